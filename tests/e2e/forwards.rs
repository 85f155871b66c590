//! Forwards and effects that lead in a circle, or to what is not there any more.

use serde_json::{Value, json};
use stead_tests::eventually::eventually;
use stead_tests::files;
use stead_tests::host::Options;
use stead_tests::model::{
    BESIDE_EVERY_KIND, EVENT_SOURCED, EVERY_KIND, Model, effect, emit, forward, through_an_action,
    values,
};

fn in_a_circle(mut forward: Value) -> Value {
    forward["forward"]["inACircle"] = json!(true);
    forward
}

/// Each function of the circle stores an event before it forwards.
async fn ends_and_leaves_all_alive(forward: Value) {
    let model = Model::start(BESIDE_EVERY_KIND).await;
    let refused = model.process("e1", &[emit("x"), in_a_circle(forward)]).await;
    let message = refused.refused(400, "failed_precondition");
    assert!(message.contains("perhaps in a circle"), "{message}");
    assert!(message.contains("no more than 16"), "{message}");
    assert!(message.contains("stead.tck.v1."), "it names nobody: {message}");
    assert_eq!(model.state("e1", &[emit("y")]).await, "xy");
    let two = model.two("t").await;
    assert!(!two.is_empty() && two.chars().all(|c| c == 'x'), "{two}");
    assert_eq!(model.tell_two("t", &[emit("y")]).await, format!("{two}y"));
    let passed = through_an_action(self::forward("u", &[emit("X")]));
    assert_eq!(model.state("e1", &[passed]).await, "X", "the action goes on");
    assert_eq!(model.host.metric("stead_crashes_total").await, 0.0);
}

#[tokio::test]
async fn a_circle_of_forwards_between_entities_ends_with_a_clear_error() {
    ends_and_leaves_all_alive(forward("t", &[])).await;
}

#[tokio::test]
async fn a_circle_of_forwards_through_an_action_ends_with_a_clear_error() {
    ends_and_leaves_all_alive(through_an_action(forward("t", &[]))).await;
}

/// The same entities without the action that they forward to.
async fn remove_the_action(model: &Model) {
    let digest = model.host.upload(&files::guest(EVENT_SOURCED.guest)).await;
    model.host.deploy_digest(&digest, true).await.ok();
}

#[tokio::test]
async fn a_forward_to_a_target_that_was_removed_is_a_clear_error() {
    let model = Model::start(BESIDE_EVERY_KIND).await;
    let passed = |own: &str| [emit(own), through_an_action(forward("t", &[emit("X")]))];
    assert_eq!(model.state("e1", &passed("A")).await, "X");
    remove_the_action(&model).await;
    let message = model.process("e1", &passed("B")).await.refused(500, "internal");
    assert!(message.contains("stead.tck.v1.Relay/Pass, which is not deployed"), "{message}");
    // A forward comes after what is durable.
    assert_eq!(model.state("e1", &[]).await, "AB");
    model.host.deploy(EVERY_KIND).await;
    assert_eq!(model.state("e1", &passed("C")).await, "XX");
    assert_eq!(model.stored("e1").await, values(&["A", "B", "C"]));
}

async fn dead_letters(model: &Model) -> Vec<Value> {
    let list = model.host.stead(&["--format", "json", "dead-letters", "list"]).await.ok().json();
    list["dead_letters"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn an_effect_for_a_target_that_was_removed_is_parked_until_it_is_there_again() {
    let few_tries = Options::default().argument("--effect-tries=3");
    let model = Model::with(few_tries, BESIDE_EVERY_KIND).await;
    model.state("e1", &[]).await;
    remove_the_action(&model).await;
    let actions = [emit("A"), through_an_action(effect("t", &[emit("X")]))];
    assert_eq!(model.state("e1", &actions).await, "A", "its own answer does not depend on it");

    let letter = eventually("the effect is parked", async || {
        let mut letters = dead_letters(&model).await;
        letters.pop().ok_or_else(|| "there are no dead letters".to_owned())
    })
    .await;
    assert_eq!(
        (&letter["service"], &letter["method"]),
        (&json!("stead.tck.v1.Relay"), &json!("Pass"))
    );
    assert_eq!(letter["tries"], 3, "{letter}");
    let error = letter["error"].as_str().expect("an error");
    assert!(error.contains("stead.tck.v1.Relay/Pass is not deployed"), "{error}");
    assert_eq!(model.two("t").await, "");

    // A letter survives the host.
    let model = model.kill_and_restart().await;
    model.host.deploy(EVERY_KIND).await;
    let id = letter["id"].as_str().expect("an id");
    model.host.stead(&["dead-letters", "retry", id]).await.ok();
    model.two_becomes("t", "X").await;
    eventually("no dead letters", async || match dead_letters(&model).await {
        letters if letters.is_empty() => Ok(()),
        letters => Err(format!("{letters:?}")),
    })
    .await;
    assert_eq!(model.stored_by_two("t").await, values(&["X"]), "it happened once");
}
