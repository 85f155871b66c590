//! The E rows of the acceptance list that Cloudstate's TCK left us, one test a row, against the model entity.

use futures_util::future::join_all;
use stead_tests::model::{EVENT_SOURCED, Model, effect, emit, fail, forward, synchronous, values};

async fn model() -> Model {
    Model::start(EVENT_SOURCED).await
}

async fn snapshot_seq(model: &Model, id: &str) -> String {
    let entity = model.host.entity(EVENT_SOURCED.model, id).await;
    entity["snapshotSeq"].as_str().expect("a number").to_owned()
}

crate::rows::rows! {
    EVENT_SOURCED;
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
    crate::rows::http_api(EVENT_SOURCED, "/tck/model/eventsourced/e1").await;
}

#[tokio::test]
async fn single_event() {
    let model = model().await;
    assert_eq!(model.state("e1", &[emit("A")]).await, "A");
    assert_eq!(model.stored("e1").await, values(&["A"]));
}

#[tokio::test]
async fn several_events_in_one_command() {
    let model = model().await;
    assert_eq!(model.state("e1", &[emit("A"), emit("B"), emit("C")]).await, "ABC");
    assert_eq!(model.stored("e1").await, values(&["A", "B", "C"]));
}

#[tokio::test]
async fn events_and_snapshots() {
    let model = model().await;
    for (value, wanted) in [("A", "A"), ("B", "AB"), ("C", "ABC"), ("D", "ABCD"), ("E", "ABCDE")] {
        assert_eq!(model.state("e1", &[emit(value)]).await, wanted);
    }
    assert_eq!(snapshot_seq(&model, "e1").await, "5");
    // A batch that passes a multiple of five has one snapshot, at its end.
    let batch = ["F", "G", "H", "I", "J", "K"].map(emit);
    assert_eq!(model.state("e1", &batch).await, "ABCDEFGHIJK");
    assert_eq!(snapshot_seq(&model, "e1").await, "11");
}

#[tokio::test]
async fn start_from_a_snapshot() {
    let model = model().await;
    model.state("e1", &["A", "B", "C", "D", "E"].map(emit)).await;
    let model = model.kill_and_restart().await;
    assert_eq!(model.state("e1", &[]).await, "ABCDE");
    assert_eq!(model.host.metric("stead_replayed_events_total").await, 0.0);
}

#[tokio::test]
async fn start_from_snapshot_and_later_events() {
    let model = model().await;
    model.state("e1", &["A", "B", "C", "D", "E"].map(emit)).await;
    model.state("e1", &[emit("F"), emit("G")]).await;
    let model = model.kill_and_restart().await;
    assert_eq!(model.state("e1", &[emit("H")]).await, "ABCDEFGH");
    assert_eq!(model.host.metric("stead_replayed_events_total").await, 2.0);
}

#[tokio::test]
async fn forward_with_events() {
    let model = model().await;
    let actions = [emit("A"), forward("t", &[emit("X"), emit("Y")]), emit("B")];
    assert_eq!(model.state("e1", &actions).await, "XY", "the second service answers");
    assert_eq!(model.stored("e1").await, values(&["A", "B"]));
    assert_eq!(model.stored_by_two("t").await, values(&["X", "Y"]));
}

#[tokio::test]
async fn forward_with_events_and_snapshot() {
    let model = model().await;
    let mut actions = ["A", "B", "C", "D", "E"].map(emit).to_vec();
    actions.push(forward("t", &[emit("X")]));
    assert_eq!(model.state("e1", &actions).await, "X");
    assert_eq!(snapshot_seq(&model, "e1").await, "5");
    let model = model.kill_and_restart().await;
    assert_eq!(model.state("e1", &[forward("t", &[])]).await, "X");
    assert_eq!(model.state("e1", &[]).await, "ABCDE");
}

#[tokio::test]
async fn effects_with_events_and_snapshot() {
    let model = model().await;
    let mut state = String::new();
    for (own, other) in [("A", "1"), ("B", "2"), ("C", "3"), ("D", "4"), ("E", "5"), ("F", "6")] {
        state.push_str(own);
        let actions = [emit(own), effect("t", &[emit(other)]), synchronous("u", &[emit(other)])];
        assert_eq!(model.state("e1", &actions).await, state);
    }
    assert_eq!(snapshot_seq(&model, "e1").await, "5");
    assert_eq!(model.two("u").await, "123456");
    model.two_becomes("t", "123456").await;
    // What is activated again does not repeat the effects of the past.
    let model = model.kill_and_restart().await;
    assert_eq!(model.state("e1", &[synchronous("t", &[emit("7")])]).await, "ABCDEF");
    assert_eq!(model.two("t").await, "1234567");
}

#[tokio::test]
async fn a_failure_retains_no_events() {
    let model = model().await;
    model.state("e1", &[emit("A")]).await;
    let actions = [emit("B"), emit("C"), fail("after events")];
    model.process("e1", &actions).await.refused(400, "failed_precondition");
    assert_eq!(model.state("e1", &[]).await, "A");
    assert_eq!(model.stored("e1").await, values(&["A"]));
}

#[tokio::test]
async fn the_types_of_a_module_keep_their_entities_apart() {
    let model = model().await;
    model.state("e1", &[emit("A")]).await;
    assert_eq!(model.two("e1").await, "");
}

#[tokio::test]
async fn commands_of_one_entity_run_in_their_order_of_arrival() {
    let model = model().await;
    let command = async || model.state("e1", &[emit("x")]).await.len();
    let mut lengths = join_all((0..200).map(|_| command())).await;
    lengths.sort_unstable();
    assert_eq!(lengths, (1..=200).collect::<Vec<_>>(), "each command saw all before it");
}
