//! Activation, passivation, eviction, looking back in time, draining.

use serde_json::json;
use stead::words::{Code, EntityId, Seq};

use crate::house::{CART, House, MODEL, cart, eventually, shared, spawn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_entity_is_passivated_and_comes_back_with_its_state() {
    let house = House::with(&["tck-model"]).await;
    let service = "stead.tck.v1.EventSourcedConfigured";
    house.call(service, "Call", json!({"id": "e"})).await.unwrap();
    assert_eq!(house.entities.hot_count(), 1);
    eventually("passivation after 100 ms", || house.entities.hot_count() == 0).await;
    house.call(service, "Call", json!({"id": "e"})).await.unwrap();
    assert_eq!(house.metric("stead_passivations_total{"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_entities_than_the_budget_allows_evict_those_unused_for_longest() {
    let house = House::sized(&["shopping-cart"], 10).await;
    for n in 0..40 {
        house.add(&format!("user-{n}"), "cup").await.unwrap();
        assert!(house.entities.hot_count() <= 10);
    }
    assert!(house.entities.hot_one(&cart("user-39")).is_some());
    assert!(house.entities.hot_one(&cart("user-0")).is_none());
    for n in 0..40 {
        assert_eq!(house.cart(&format!("user-{n}")).await.unwrap(), ["cup x 1"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_entities_are_listed_in_order_page_by_page() {
    let house = House::with(&["shopping-cart"]).await;
    for user in ["c", "a", "b", "x"] {
        house.add(user, "cup").await.unwrap();
    }
    let first = house.entities.hot(None, "", None, 2);
    let ids: Vec<_> = first.iter().map(|hot| hot.id.as_str().to_owned()).collect();
    assert_eq!(ids, ["a", "b"]);
    let rest = house.entities.hot(None, "", Some(&cart("b")), 9);
    let ids: Vec<_> = rest.iter().map(|hot| hot.id.as_str().to_owned()).collect();
    assert_eq!(ids, ["c", "x"]);
    assert_eq!(house.entities.hot(None, "x", None, 9).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_the_past_is_folded_without_touching_the_entity() {
    let house = House::with(&["tck-model"]).await;
    for n in 1..=12 {
        let action = json!({"emit": {"value": format!("{n}.")}});
        house.call(MODEL, "Process", json!({"id": "e", "actions": [action]})).await.unwrap();
    }
    let live = house.registry.live();
    let service = &live.services[MODEL];
    let id = EntityId::from("e");
    let at = |n| house.entities.state(service, &id, n);
    let text = |state: stead::entity::StateAt| {
        String::from_utf8_lossy(&state.state.unwrap().data).into_owned()
    };
    assert!(text(at(Some(Seq(3))).await.unwrap()).ends_with("1.2.3."));
    assert!(text(at(Some(Seq(7))).await.unwrap()).ends_with("1.2.3.4.5.6.7."));
    assert!(text(at(None).await.unwrap()).ends_with("11.12."));
    assert_eq!(at(Some(Seq(13))).await.unwrap_err().code, Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_from_a_snapshot_gives_the_state_of_a_replay_from_the_start() {
    let house = House::with(&["tck-model"]).await;
    let mut message = serde_json::Value::Null;
    for n in 1..=13 {
        let action = json!({"emit": {"value": format!("{n}.")}});
        let call = house.call(MODEL, "Process", json!({"id": "e", "actions": [action]}));
        message = call.await.unwrap()["message"].clone();
    }
    assert_eq!(house.metric("stead_snapshots_total{"), 2.0);
    let live = house.registry.live();
    let address =
        stead::words::Address { journal: live.services[MODEL].journal.clone(), id: "e".into() };
    assert!(house.entities.passivate(&address).await);
    let again = house.call(MODEL, "Process", json!({"id": "e"})).await.unwrap();
    assert_eq!(again["message"], message);
    // Snapshots every 5: the replay was of the events after the tenth.
    assert_eq!(house.metric("stead_replayed_events_total{"), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_the_guest_cannot_read_is_never_needed() {
    let house = House::with(&["shopping-cart"]).await;
    house.add("ada", "cup").await.unwrap();
    let stored = house.journal.events(&cart("ada"), Seq(1), 1, 1 << 20).await.unwrap();
    let write = stead::journal::Write {
        events: vec![stored.events[0].event.clone()],
        snapshot: Some(stead::words::Message::new("an.older.Cart", &b"\xff\xff"[..])),
        ..stead::journal::Write::new(cart("ada"), stead::journal::Fence::default(), Seq(1), 0)
    };
    house.entities.passivate(&cart("ada")).await;
    stead::journal::Store::commit(&house.store, &[write], &[]).await.unwrap();
    assert_eq!(house.cart("ada").await.unwrap(), ["cup x 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_ends_what_is_in_hand_and_refuses_what_comes() {
    let house = shared(House::with(&["shopping-cart"]).await);
    house.add("ada", "kettle").await.unwrap();
    let hold = house.store.hold().await;
    let write = spawn({
        let house = house.clone();
        async move { house.add("ada", "cup").await }
    });
    eventually("the turn", || house.entities.hot_one(&cart("ada")).unwrap().seq.0 == 2).await;
    let drain = spawn({
        let house = house.clone();
        async move { house.entities.drain().await }
    });
    loop {
        match house.call(CART, "GetCart", json!({"userId": "bob"})).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => break assert_eq!(status.code, Code::Unavailable),
        }
    }
    assert!(!drain.is_finished());
    drop(hold);
    write.await.unwrap().unwrap();
    drain.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_deadline_has_passed_is_not_run() {
    let house = House::with(&["shopping-cart"]).await;
    house.add("ada", "kettle").await.unwrap();
    let mut request = house.adding("ada", "cup");
    request.deadline = stead::words::clock::now();
    assert_eq!(house.send(request).await.unwrap_err().code, Code::DeadlineExceeded);
    assert_eq!(house.cart("ada").await.unwrap(), ["kettle x 1"]);
}
