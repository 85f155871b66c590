use stead_sdk::Code;
use stead_sdk::testing::Scenario;

use super::*;
use api::{Effect, Forward, RequestAction};

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

#[test]
fn forwards_and_effects_are_refused() {
    let forward = Action::Forward(Forward { id: "two".into() });
    let effect = Action::Effect(Effect { id: "two".into(), synchronous: false });
    for action in [forward, effect] {
        Scenario::<Model>::new("one")
            .when(Model::process, request([action]))
            .then_rejected(Code::Unimplemented);
    }
}
