//! The V rows of the acceptance list that Cloudstate's TCK left us, one test a row, against the model entity.

use serde_json::{Value, json};
use stead_tests::model::{
    Model, VALUE, delete, effect, fail, forward, synchronous, update, values,
};

async fn model() -> Model {
    Model::start(VALUE).await
}

/// What is stored, as operators see it.
async fn state(model: &Model, id: &str) -> Value {
    model.host.state(VALUE.model, id, None).await["json"].clone()
}

crate::rows::rows! {
    VALUE;
    initial_empty_state
    rehydration_after_passivation
    forward_to_a_second_service
    effect_to_a_second_service
    synchronous_effect
    forward_and_effect
    several_effects
    failure
    alive_after_failure
    a_failure_allows_no_effects
    passivated_within_2_s_of_a_100_ms_timeout
}

#[tokio::test]
async fn http_api() {
    crate::rows::http_api(VALUE, "/tck/model/entity/e1").await;
}

#[tokio::test]
async fn update_replaces_the_state() {
    let model = model().await;
    assert_eq!(model.state("e1", &[update("A")]).await, "A");
    assert_eq!(model.state("e1", &[update("B")]).await, "B");
    assert_eq!(model.state("e1", &[]).await, "B");
    assert_eq!(state(&model, "e1").await, json!({"value": "B"}));
    assert_eq!(model.stored("e1").await, values(&["A", "B"]));
}

#[tokio::test]
async fn delete_leaves_no_state() {
    let model = model().await;
    model.state("e1", &[update("A")]).await;
    assert_eq!(model.state("e1", &[delete()]).await, "");
    assert_eq!(state(&model, "e1").await, Value::Null);
    let model = model.kill_and_restart().await;
    assert_eq!(model.state("e1", &[]).await, "");
    assert_eq!(model.state("e1", &[update("B")]).await, "B", "there can be a new one");
}

#[tokio::test]
async fn forwarded_sub_calls_with_several_updates() {
    let model = model().await;
    let actions = [
        update("A"),
        forward("t", &[update("X"), update("Y"), update("Z")]),
        update("B"),
        update("C"),
    ];
    assert_eq!(model.state("e1", &actions).await, "Z", "the second service answers");
    assert_eq!(model.stored("e1").await, values(&["C"]));
    assert_eq!(model.stored_by_two("t").await, values(&["Z"]));
}

#[tokio::test]
async fn updates_then_deletes() {
    let model = model().await;
    assert_eq!(model.state("e1", &[update("A"), update("B"), delete()]).await, "");
    assert!(model.stored("e1").await.is_empty(), "there was nothing, and there is nothing");
    model.state("e1", &[update("C")]).await;
    assert_eq!(model.state("e1", &[update("D"), delete(), delete()]).await, "");
    assert_eq!(state(&model, "e1").await, Value::Null);
    assert_eq!(model.stored("e1").await, [Some("C".to_owned()), None]);
    assert_eq!(model.host.passivate(VALUE.model, "e1").await["wasHot"], true);
    assert_eq!(model.state("e1", &[]).await, "");
}

#[tokio::test]
async fn update_delete_update_last_wins_one_write() {
    let model = model().await;
    assert_eq!(model.state("e1", &[update("A"), delete(), update("B")]).await, "B");
    assert_eq!(state(&model, "e1").await, json!({"value": "B"}));
    assert_eq!(model.host.entity(VALUE.model, "e1").await["seq"], "1");
    assert_eq!(model.stored("e1").await, values(&["B"]));
}

#[tokio::test]
async fn forward_with_update() {
    let model = model().await;
    let actions = [update("A"), forward("t", &[update("X")])];
    assert_eq!(model.state("e1", &actions).await, "X");
    let model = model.kill_and_restart().await;
    assert_eq!(model.state("e1", &[]).await, "A");
    assert_eq!(model.two("t").await, "X");
}

#[tokio::test]
async fn effects_with_update() {
    let model = model().await;
    for (own, other) in [("A", "1"), ("B", "2"), ("C", "3")] {
        let told = [update(other)];
        let actions = [update(own), effect("t", &told), synchronous("u", &told)];
        assert_eq!(model.state("e1", &actions).await, own);
        assert_eq!(model.two("u").await, other);
    }
    model.two_becomes("t", "3").await;
    let model = model.kill_and_restart().await;
    assert_eq!(model.state("e1", &[]).await, "C");
    for id in ["t", "u"] {
        assert_eq!(model.host.entity(VALUE.two, id).await["seq"], "3", "each happened once");
    }
}

#[tokio::test]
async fn a_failure_changes_nothing() {
    let model = model().await;
    model.state("e1", &[update("A")]).await;
    for change in [update("B"), delete()] {
        let refused = model.process("e1", &[change, fail("expected")]).await;
        refused.refused(400, "failed_precondition");
        assert_eq!(state(&model, "e1").await, json!({"value": "A"}));
    }
    assert_eq!(model.stored("e1").await, values(&["A"]));
}
