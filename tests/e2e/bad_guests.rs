//! Guests that trap, loop, grow or answer nonsense. The caller gets an error without the guest's
//! internals, the journal nothing that cannot be read, and the neighbours do not notice.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;
use stead_tests::Host;
use stead_tests::cart::GUEST as CART;
use stead_tests::client::Answer;

pub const SERVICE: &str = "misbehaving.v1.Misbehaving";

pub async fn host() -> Host {
    let host = Host::with_guest("misbehaving").await;
    host.deploy(CART).await;
    host
}

pub async fn ask(host: &Host, id: &str, what: &str, amount: u64) -> Answer {
    let request = json!({"id": id, "what": what, "amount": amount.to_string()});
    host.services.post(&format!("/{SERVICE}/Do"), &request).await
}

pub async fn count(host: &Host, id: &str) -> String {
    ask(host, id, "count", 0).await.ok()["count"].as_str().expect("a count").to_owned()
}

/// One crash of an entity with an event: refused, kept for the operator, forgotten by the next
/// command; a neighbour of the same type and one of another stay hot and right.
async fn crashes(what: &str, amount: u64, kind: &str) {
    let host = host().await;
    for id in ["victim", "neighbour"] {
        ask(&host, id, "ok", 0).await.ok();
    }
    host.add("ada", "kettle", 1).await.ok();
    let activations = host.metric("stead_activations_total").await;

    let message = ask(&host, "victim", what, amount).await.refused(500, "internal");
    for leaked in ["as asked", "wasm", "panicked", "unreachable"] {
        assert!(!message.contains(leaked), "the guest's internals are in: {message}");
    }
    let crash = host.entity(SERVICE, "victim").await["lastCrash"].clone();
    assert_eq!(crash["what"], kind, "{crash}");
    assert!(crash["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{crash}");

    assert_eq!(count(&host, "neighbour").await, "1");
    assert_eq!(host.cart("ada").await["kettle"], 1);
    assert_eq!(
        host.metric("stead_activations_total").await,
        activations,
        "a neighbour was dropped"
    );
    assert_eq!(count(&host, "victim").await, "1", "nothing of the crashed command is kept");
    assert_eq!(host.events(SERVICE, "victim").await.len(), 1);
}

#[tokio::test]
async fn handler_trapping() {
    crashes("trap", 0, "trap").await;
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_deadline() {
    let start = Instant::now();
    crashes("loop", 0, "deadline").await;
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_loop_leaves_the_node_to_the_others() {
    let host = host().await;
    host.add("ada", "kettle", 1).await.ok();
    let loops = futures_util::future::join_all((0..8).map(|loops| {
        let (services, id) = (host.services.clone(), format!("loop-{loops}"));
        let request = json!({"id": id, "what": "loop"});
        async move { services.post(&format!("/{SERVICE}/Do"), &request).await }
    }));
    let others = async {
        let start = Instant::now();
        for _ in 0..20 {
            host.add("ada", "kettle", 1).await.ok();
        }
        start.elapsed()
    };
    let (loops, others) = tokio::join!(loops, others);
    assert!(loops.iter().all(|answer| answer.status == StatusCode::INTERNAL_SERVER_ERROR));
    assert!(others < Duration::from_secs(8), "20 calls took {others:?} beside endless loops");
}

#[tokio::test]
async fn memory_without_end_stops_at_its_limit() {
    crashes("grow", 0, "memory").await;
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    crashes("recurse", 0, "trap").await;
}

#[tokio::test]
async fn a_reply_of_100_mib_is_refused() {
    // Larger than the 64 MiB that the guest may have, and then larger than a reply may be.
    crashes("huge-reply", 100 << 20, "memory").await;
    crashes("huge-reply", 8 << 20, "malformed").await;
}

#[tokio::test]
async fn a_garbage_reply_is_refused() {
    crashes("garbage-reply", 0, "malformed").await;
}

#[tokio::test]
async fn too_many_events_are_refused_whole() {
    crashes("many-events", 1_001, "malformed").await;
}

#[tokio::test]
async fn an_event_that_is_too_large_is_refused() {
    crashes("big-event", (1 << 20) + 1, "malformed").await;
}

#[tokio::test]
async fn an_event_of_a_type_that_is_nowhere_described_is_kept_as_bytes() {
    let host = host().await;
    ask(&host, "victim", "bad-event-name", 0).await.ok();
    let events = host.events(SERVICE, "victim").await;
    assert_eq!(events[0]["type"], "misbehaving.v1.Unheard");
    assert!(events[0]["note"].as_str().is_some_and(|note| !note.is_empty()), "{events:?}");
    // The guest itself does not know it: it cannot be loaded again, and says so.
    host.passivate(SERVICE, "victim").await;
    ask(&host, "victim", "count", 0).await.refused(503, "unavailable");
}

#[tokio::test]
async fn an_event_whose_name_is_too_long_is_refused() {
    crashes("bad-event-name", 257, "malformed").await;
}

#[tokio::test]
async fn what_an_event_sourced_entity_cannot_do_changes_nothing() {
    let host = host().await;
    ask(&host, "victim", "ok", 0).await.ok();
    ask(&host, "victim", "state-change", 0).await.refused(500, "internal");
    // Without the key of whom it is for.
    ask(&host, "victim", "forward", 0).await.refused(400, "invalid_argument");
    assert_eq!(count(&host, "victim").await, "1");
    assert_eq!(host.events(SERVICE, "victim").await.len(), 1);
}

#[tokio::test]
async fn a_rejection_with_a_code_that_does_not_exist_is_refused() {
    crashes("bad-rejection-code", 99, "malformed").await;
}

#[tokio::test]
async fn an_event_that_apply_traps_on_backs_off_and_keeps_its_journal() {
    let host = host().await;
    ask(&host, "victim", "ok", 0).await.ok();
    ask(&host, "victim", "poison", 0).await.ok();
    ask(&host, "neighbour", "ok", 0).await.ok();
    let host = host.kill_and_restart().await;
    for _ in 0..3 {
        let message = ask(&host, "victim", "count", 0).await.refused(503, "unavailable");
        assert!(message.contains("activated"), "{message}");
    }
    let crash = host.entity(SERVICE, "victim").await["lastCrash"].clone();
    assert_eq!(crash["what"], "trap", "{crash}");
    assert!(crash["retryTime"].is_string(), "{crash}");
    assert_eq!(host.events(SERVICE, "victim").await.len(), 2, "the journal can still be read");
    assert_eq!(count(&host, "neighbour").await, "1");
}

#[tokio::test]
async fn an_activation_is_tried_again_after_its_backoff_and_not_before() {
    let host = host().await;
    ask(&host, "victim", "poison", 0).await.ok();
    host.passivate(SERVICE, "victim").await;
    let crashes = host.metric("stead_crashes_total").await;
    let start = Instant::now();
    let mut asked = 0;
    // After 100, 200, 400 and 800 ms.
    let crash = loop {
        ask(&host, "victim", "count", 0).await.refused(503, "unavailable");
        asked += 1;
        let crash = host.entity(SERVICE, "victim").await["lastCrash"].clone();
        if crash["consecutive"].as_u64() >= Some(5) {
            break crash;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "not tried again: {crash}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(crash["consecutive"], 5, "{crash}");
    assert_eq!(host.metric("stead_crashes_total").await, crashes + 5.0);
    assert!(start.elapsed() >= Duration::from_millis(1_500), "tried too soon");
    assert!(asked > 5, "every question was a try");
}

#[tokio::test]
async fn a_module_that_can_activate_ends_the_backoff() {
    let host = Host::with_guest("misbehaving-constructor-traps").await;
    for _ in 0..2 {
        ask(&host, "victim", "ok", 0).await.refused(503, "unavailable");
    }
    let file = stead_tests::files::guest("misbehaving").display().to_string();
    host.stead(&["deploy", &file, "--yes"]).await.ok();
    let start = Instant::now();
    loop {
        let answer = ask(&host, "victim", "ok", 0).await;
        if answer.status == StatusCode::OK {
            break;
        }
        answer.refused(503, "unavailable");
        assert!(start.elapsed() < Duration::from_secs(30), "it still backs off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count(&host, "victim").await, "1");
    let crash = host.entity(SERVICE, "victim").await["lastCrash"].clone();
    assert!(crash["retryTime"].is_null(), "{crash}");
}

#[tokio::test]
async fn a_constructor_that_traps_makes_its_entities_unavailable() {
    let host = Host::with_guest("misbehaving-constructor-traps").await;
    host.deploy(CART).await;
    ask(&host, "victim", "count", 0).await.refused(503, "unavailable");
    host.add("ada", "kettle", 1).await.ok();
}

#[tokio::test]
async fn a_snapshot_that_fails_fails_no_command() {
    for what in ["snapshot-trap", "huge-snapshot"] {
        let host = host().await;
        ask(&host, "victim", what, 0).await.ok();
        for _ in 0..6 {
            ask(&host, "victim", "ok", 0).await.ok();
        }
        assert_eq!(count(&host, "victim").await, "7", "after {what}");
        assert_eq!(host.events(SERVICE, "victim").await.len(), 7);
    }
}

#[tokio::test]
async fn queued_commands_survive_a_crash_before_them() {
    let host = host().await;
    ask(&host, "victim", "ok", 0).await.ok();
    let crash = ask(&host, "victim", "loop", 0);
    let queued = futures_util::future::join_all((0..10).map(|_| ask(&host, "victim", "ok", 0)));
    let (crash, queued) = tokio::join!(crash, queued);
    crash.refused(500, "internal");
    for answer in queued {
        answer.ok();
    }
    assert_eq!(count(&host, "victim").await, "11");
}
