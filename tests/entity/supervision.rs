//! Crashes, and entities that cannot be activated.

use serde_json::json;
use stead::words::{Address, Code};

use crate::house::{House, MISBEHAVING, shared, spawn};

fn address(id: &str) -> Address {
    Address::new("misbehaving", id)
}

async fn misbehave(house: &House, id: &str, what: &str) -> Result<serde_json::Value, Code> {
    let answer = house.call(MISBEHAVING, "Do", json!({"id": id, "what": what})).await;
    answer.map_err(|status| status.code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loses_neither_the_state_nor_the_commands_that_wait() {
    let house = shared(House::with(&["misbehaving"]).await);
    misbehave(&house, "e", "ok").await.unwrap();
    let crash = spawn({
        let house = house.clone();
        async move { misbehave(&house, "e", "loop").await }
    });
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            spawn({
                let house = house.clone();
                async move { misbehave(&house, "e", "ok").await }
            })
        })
        .collect();
    assert_eq!(crash.await.unwrap(), Err(Code::Internal));
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.stored_events(&address("e")).await, 11);
    let report = house.entities.crash(&address("e")).unwrap();
    assert_eq!((report.what, report.during.as_str()), ("deadline", "handle Do"));
    assert_eq!(report.retry_at_ms, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_that_cannot_be_activated_backs_off_and_says_so() {
    let house = House::with(&["misbehaving"]).await;
    misbehave(&house, "good", "ok").await.unwrap();
    misbehave(&house, "bad", "poison").await.unwrap();
    house.entities.passivate(&address("bad")).await;

    let first = house.call(MISBEHAVING, "Do", json!({"id": "bad", "what": "ok"})).await;
    let first = first.unwrap_err();
    assert_eq!(first.code, Code::Unavailable);
    assert!(first.message.contains("cannot be activated"), "{}", first.message);
    // Within the back-off, the same is answered without another try.
    let crashes = house.metric("stead_crashes_total{");
    assert_eq!(misbehave(&house, "bad", "ok").await, Err(Code::Unavailable));
    assert_eq!(house.metric("stead_crashes_total{"), crashes);

    let report = house.entities.crash(&address("bad")).unwrap();
    assert_eq!(report.consecutive, 1);
    assert!(report.retry_at_ms.is_some());
    // Once it has passed, the next command tries again, and the failures add up.
    let patience = std::time::Duration::from_secs(10);
    let next = tokio::time::timeout(patience, async {
        while house.entities.crash(&address("bad")).unwrap().consecutive == 1 {
            assert_eq!(misbehave(&house, "bad", "ok").await, Err(Code::Unavailable));
            tokio::time::sleep(stead::words::limits::PASSIVATION_TICK).await;
        }
    });
    next.await.expect("another try");
    assert_eq!(house.entities.crash(&address("bad")).unwrap().consecutive, 2);
    misbehave(&house, "good", "ok").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_violation_of_the_kinds_rules_changes_nothing() {
    let house = House::with(&["misbehaving"]).await;
    misbehave(&house, "e", "ok").await.unwrap();
    for what in ["state-change"] {
        assert_eq!(misbehave(&house, "e", what).await, Err(Code::Internal), "{what}");
    }
    assert_eq!(misbehave(&house, "e", "garbage-reply").await, Err(Code::Internal));
    assert_eq!(house.stored_events(&address("e")).await, 1);
    misbehave(&house, "e", "ok").await.unwrap();
}
