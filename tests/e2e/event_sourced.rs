//! The E rows of the acceptance list that Cloudstate's TCK left us, one test a row, against the model
//! entity. Forwards and effects are not there yet.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use stead_tests::Host;
use stead_tests::client::Answer;

const MODEL: &str = "stead.tck.v1.EventSourcedModel";
const CONFIGURED: &str = "stead.tck.v1.EventSourcedConfigured";

fn emit(value: &str) -> Value {
    json!({"emit": {"value": value}})
}

fn fail(message: &str) -> Value {
    json!({"fail": {"message": message}})
}

async fn process(host: &Host, id: &str, actions: &[Value]) -> Answer {
    let request = json!({"id": id, "actions": actions});
    host.services.post(&format!("/{MODEL}/Process"), &request).await
}

/// The state after the command.
async fn state(host: &Host, id: &str, actions: &[Value]) -> String {
    let response = process(host, id, actions).await.ok();
    response["message"].as_str().expect("a message").to_owned()
}

async fn model() -> Host {
    Host::with_guest("tck-model").await
}

async fn values(host: &Host, id: &str) -> Vec<String> {
    let events = host.events(MODEL, id).await;
    events.iter().map(|e| e["json"]["value"].as_str().expect("a value").to_owned()).collect()
}

#[tokio::test]
async fn initial_empty_state() {
    let host = model().await;
    assert_eq!(state(&host, "e1", &[]).await, "");
    assert!(values(&host, "e1").await.is_empty());
}

#[tokio::test]
async fn single_event() {
    let host = model().await;
    assert_eq!(state(&host, "e1", &[emit("A")]).await, "A");
    assert_eq!(values(&host, "e1").await, ["A"]);
}

#[tokio::test]
async fn several_events_in_one_command() {
    let host = model().await;
    assert_eq!(state(&host, "e1", &[emit("A"), emit("B"), emit("C")]).await, "ABC");
    assert_eq!(values(&host, "e1").await, ["A", "B", "C"]);
}

#[tokio::test]
async fn events_and_snapshots() {
    let host = model().await;
    for (value, wanted) in [("A", "A"), ("B", "AB"), ("C", "ABC"), ("D", "ABCD"), ("E", "ABCDE")] {
        assert_eq!(state(&host, "e1", &[emit(value)]).await, wanted);
    }
    assert_eq!(host.entity(MODEL, "e1").await["snapshotSeq"], "5");
    // A batch that passes a multiple of five has one snapshot, at its end.
    assert_eq!(state(&host, "e1", &["F", "G", "H", "I", "J", "K"].map(emit)).await, "ABCDEFGHIJK");
    assert_eq!(host.entity(MODEL, "e1").await["snapshotSeq"], "11");
}

#[tokio::test]
async fn start_from_a_snapshot() {
    let host = model().await;
    state(&host, "e1", &["A", "B", "C", "D", "E"].map(emit)).await;
    let host = host.kill_and_restart().await;
    assert_eq!(state(&host, "e1", &[]).await, "ABCDE");
    assert_eq!(host.metric("stead_replayed_events_total").await, 0.0);
}

#[tokio::test]
async fn start_from_snapshot_and_later_events() {
    let host = model().await;
    state(&host, "e1", &["A", "B", "C", "D", "E"].map(emit)).await;
    state(&host, "e1", &[emit("F"), emit("G")]).await;
    let host = host.kill_and_restart().await;
    assert_eq!(state(&host, "e1", &[emit("H")]).await, "ABCDEFGH");
    assert_eq!(host.metric("stead_replayed_events_total").await, 2.0);
}

#[tokio::test]
async fn rehydration_after_passivation() {
    let host = model().await;
    state(&host, "e1", &[emit("A"), emit("B")]).await;
    assert_eq!(host.passivate(MODEL, "e1").await["wasHot"], true);
    assert_eq!(state(&host, "e1", &[emit("C")]).await, "ABC");
    assert_eq!(host.metric("stead_activations_total").await, 2.0);
}

#[tokio::test]
async fn failure() {
    let host = model().await;
    let message = process(&host, "e1", &[fail("expected")]).await;
    assert_eq!(message.refused(400, "failed_precondition"), "expected");
}

#[tokio::test]
async fn alive_after_failure() {
    let host = model().await;
    state(&host, "e1", &[emit("A")]).await;
    process(&host, "e1", &[fail("expected")]).await.refused(400, "failed_precondition");
    assert_eq!(state(&host, "e1", &[emit("B")]).await, "AB");
    assert_eq!(host.metric("stead_activations_total").await, 1.0, "a rejection is no crash");
}

#[tokio::test]
async fn a_failure_retains_no_events() {
    let host = model().await;
    state(&host, "e1", &[emit("A")]).await;
    let actions = [emit("B"), emit("C"), fail("after events")];
    process(&host, "e1", &actions).await.refused(400, "failed_precondition");
    assert_eq!(state(&host, "e1", &[]).await, "A");
    assert_eq!(values(&host, "e1").await, ["A"]);
}

#[tokio::test]
async fn http_api() {
    let host = model().await;
    let body = json!({"actions": [emit("A")]});
    let path = "/tck/model/eventsourced/e1";
    let response = host.services.post(path, &body).await.ok();
    assert_eq!(response, json!({"message": "A"}));
    let get = host.services.send(Method::GET, path, "application/json", "").await;
    assert_eq!(get.status, 405);
    assert_eq!(get.header("allow"), Some("POST"));
}

#[tokio::test]
async fn passivated_within_2_s_of_a_100_ms_timeout() {
    let host = model().await;
    let request = json!({"id": "e1", "actions": [emit("A")]});
    let path = format!("/{CONFIGURED}/Call");
    host.services.post(&path, &request).await.ok();
    let start = Instant::now();
    while host.entity(CONFIGURED, "e1").await["hot"] == true {
        assert!(start.elapsed() < Duration::from_secs(2), "still hot");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let response = host.services.post(&path, &json!({"id": "e1"})).await.ok();
    assert_eq!(response["message"], "A");
}

#[tokio::test]
async fn the_types_of_a_module_keep_their_entities_apart() {
    let host = model().await;
    state(&host, "e1", &[emit("A")]).await;
    let two = host.services.post("/stead.tck.v1.EventSourcedTwo/Call", &json!({"id": "e1"})).await;
    assert_eq!(two.ok()["message"], "");
}

#[tokio::test]
async fn commands_of_one_entity_run_in_their_order_of_arrival() {
    let host = model().await;
    let all: Vec<_> = (0..200)
        .map(|_| {
            let services = host.services.clone();
            tokio::spawn(async move {
                let request = json!({"id": "e1", "actions": [emit("x")]});
                let response = services.post(&format!("/{MODEL}/Process"), &request).await.ok();
                response["message"].as_str().expect("a message").len()
            })
        })
        .collect();
    let mut lengths = Vec::new();
    for call in all {
        lengths.push(call.await.expect("a call"));
    }
    lengths.sort_unstable();
    assert_eq!(lengths, (1..=200).collect::<Vec<_>>(), "each command saw all before it");
}
