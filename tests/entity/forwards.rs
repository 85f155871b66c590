//! Forwards: another function answers, once the command is durable.

use serde_json::{Value, json};
use stead::words::{Address, Code};

use crate::house::{EVERY_KIND, House, MODEL, TWO};

fn two(id: &str) -> Address {
    Address::new("tck-two", id)
}

fn forward(id: &str, actions: Value) -> Value {
    json!({"forward": {"id": id, "actions": actions}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_of_a_forward_answers_after_the_events_are_stored() {
    let house = House::with(&[EVERY_KIND]).await;
    let told =
        json!([{"emit": {"value": "mine"}}, forward("t", json!([{"emit": {"value": "its"}}]))]);
    assert_eq!(house.tell("m", told).await.unwrap(), "its");
    assert_eq!(house.tell("m", json!([])).await.unwrap(), "mine");
    assert_eq!(house.stored_events(&two("t")).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_may_be_chained_and_effects_come_first() {
    let house = House::with(&[EVERY_KIND]).await;
    let last = forward("c", json!([]));
    let effect = json!({"effect": {"id": "c", "synchronous": true, "actions": [
        {"emit": {"value": "before"}}
    ]}});
    let told = json!([forward("a", json!([forward("b", json!([effect, last]))]))]);
    assert_eq!(house.tell("m", told).await.unwrap(), "before");
    assert_eq!(house.metric("stead_command_forwards_total{result=\"ok\"}"), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rejection_of_a_target_is_the_callers() {
    let house = House::with(&[EVERY_KIND]).await;
    let told =
        json!([{"emit": {"value": "kept"}}, forward("t", json!([{"fail": {"message": "no"}}]))]);
    let status = house.tell("m", told).await.unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (Code::FailedPrecondition, "no"));
    assert_eq!(house.tell("m", json!([])).await.unwrap(), "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_forwards_ends_with_a_clear_error() {
    let house = House::with(&[EVERY_KIND]).await;
    let circle = json!([{"forward": {"id": "t", "inACircle": true}}]);
    let status = house.tell("m", circle).await.unwrap_err();
    assert_eq!(status.code, Code::FailedPrecondition);
    let two = format!(" -> /{TWO}/Call").repeat(17);
    let expected = format!("/{MODEL}/Process{two}");
    let way = status.message.split_once("perhaps in a circle").expect("says what it is").1;
    assert_eq!(way.split_once(": ").expect("names the way").1, expected, "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_command_that_comes_again_happens_once() {
    let house = House::with(&[EVERY_KIND]).await;
    let to_t = || forward("t", json!([{"emit": {"value": "x"}}]));
    for actions in [json!([to_t()]), json!([{"emit": {"value": "y"}}, to_t()])] {
        let telling = || {
            let mut request = house.telling("m", actions.clone());
            request.idempotency_key = Some(format!("key of {}", actions.as_array().unwrap().len()));
            request
        };
        let first = house.send(telling()).await.unwrap();
        assert_eq!(house.send(telling()).await.unwrap(), first);
    }
    assert_eq!(house.two("t").await, "xx");
    let mut other = house.telling("m", json!([to_t(), to_t()]));
    other.idempotency_key = Some("key of 2".into());
    assert_eq!(house.send(other).await.unwrap_err().code, Code::InvalidArgument);
}
