use stead_sdk::Code;
use stead_sdk::testing::{self, Scenario, effect_sync, no_timer, timer};

use super::*;
use crate::api::{CancelTimer, Effect, Emit, Fail, Forward};

fn request(actions: impl IntoIterator<Item = Action>) -> Request {
    let actions = actions.into_iter().map(|action| RequestAction { action: Some(action) });
    Request { id: "one".into(), actions: actions.collect() }
}

fn emit(value: &str) -> Action {
    Action::Emit(Emit { value: value.into() })
}

fn persisted(value: &str) -> Persisted {
    Persisted { value: value.into() }
}

#[test]
fn the_state_is_empty_at_first() {
    Scenario::<Model>::new("one")
        .when(Model::process, request([]))
        .then_no_events()
        .then_reply(Response::default());
}

#[test]
fn the_reply_shows_the_state_after_the_events() {
    Scenario::<Model>::new("one")
        .given([persisted("a")])
        .when(Model::process, request([emit("b"), emit("c")]))
        .then([persisted("b"), persisted("c")], Response { message: "abc".into() });
}

#[test]
fn a_failure_keeps_none_of_the_events_before_it() {
    let fail = Action::Fail(Fail { message: "expected".into() });
    Scenario::<Model>::new("one")
        .when(Model::process, request([emit("a"), fail]))
        .then_rejected(Code::FailedPrecondition)
        .and()
        .when(Model::process, request([emit("b")]))
        .then_reply(Response { message: "b".into() });
}

fn to_two(action: Action) -> Call<Response> {
    EventSourcedTwoClient::call(Request {
        id: "two".into(),
        actions: vec![RequestAction { action: Some(action) }],
    })
}

fn told(action: Action) -> Vec<RequestAction> {
    vec![RequestAction { action: Some(action) }]
}

#[test]
fn another_entity_is_told_by_forwards_and_effects() {
    let forward = Forward { id: "two".into(), actions: told(emit("x")), ..Forward::default() };
    let effect = |value: &str, synchronous: bool| {
        let (id, actions) = ("two".into(), told(emit(value)));
        Action::Effect(Effect { id, synchronous, actions, ..Effect::default() })
    };
    let actions = [emit("a"), effect("b", false), Action::Forward(forward), effect("c", true)];
    Scenario::<Model>::new("one")
        .when(Model::process, request(actions))
        .then_events([persisted("a")])
        .then_effects([testing::effect(to_two(emit("b"))), effect_sync(to_two(emit("c")))])
        .then_forward(to_two(emit("x")));
}

#[test]
fn a_forward_in_a_circle_passes_on_the_command() {
    let forward = Forward { id: "two".into(), in_a_circle: true, ..Forward::default() };
    Scenario::<Model>::new("one")
        .when(Model::process, request([Action::Forward(forward.clone())]))
        .then_forward(to_two(Action::Forward(forward)));
}

#[test]
fn a_call_may_go_through_an_action() {
    let forward = Forward { id: "two".into(), through_an_action: true, ..Forward::default() };
    let effect = Effect { id: "two".into(), through_an_action: true, ..Effect::default() };
    let passed = || RelayClient::pass(Request { id: "two".into(), actions: Vec::new() });
    Scenario::<Model>::new("one")
        .when(Model::process, request([Action::Effect(effect), Action::Forward(forward)]))
        .then_effects([testing::effect(passed())])
        .then_forward(passed());
}

#[test]
fn timers_wake_the_entity_with_what_they_were_told() {
    let set = |name: &str, after_ms, at_ms, every_ms| {
        let (name, actions) = (name.to_owned(), told(emit("ring")));
        Action::SetTimer(SetTimer { name, after_ms, at_ms, every_ms, actions })
    };
    let wake = || EventSourcedModelClient::wake(request([emit("ring")]));
    let cancel = Action::CancelTimer(CancelTimer { name: "d".into() });
    let actions = [set("a", 5, 0, 0), set("b", 0, 2000, 0), set("c", 0, 0, 100), cancel];
    Scenario::<Model>::new("one").at_ms(1000).when(Model::process, request(actions)).then_timers([
        timer("a", 1005, wake()),
        timer("b", 2000, wake()),
        timer("c", 1100, wake()).every(Duration::from_millis(100)),
        no_timer("d"),
    ]);
}
