use stead_sdk::Code;
use stead_sdk::testing::{self, ValueScenario, effect_sync};

use super::*;
use crate::api::{ValueDelete, ValueEffect, ValueFail, ValueForward, ValueUpdate};

fn request(actions: impl IntoIterator<Item = Action>) -> ValueRequest {
    ValueRequest { id: "one".into(), actions: told(actions) }
}

fn told(actions: impl IntoIterator<Item = Action>) -> Vec<ValueRequestAction> {
    actions.into_iter().map(|action| ValueRequestAction { action: Some(action) }).collect()
}

fn update(value: &str) -> Action {
    Action::Update(ValueUpdate { value: value.into() })
}

fn delete() -> Action {
    Action::Delete(ValueDelete {})
}

fn state(value: &str) -> ValueState {
    ValueState { value: value.into() }
}

fn response(message: &str) -> ValueResponse {
    ValueResponse { message: message.into() }
}

#[test]
fn the_last_change_wins() {
    ValueScenario::<Text>::new("one")
        .given(state("a"))
        .when(Text::process, request([update("b"), delete(), update("c")]))
        .then_updated(state("c"))
        .then_reply(response("c"))
        .and()
        .when(Text::process, request([update("d"), delete()]))
        .then_deleted()
        .then_reply(response(""));
}

#[test]
fn a_failure_keeps_no_change() {
    let fail = Action::Fail(ValueFail { message: "expected".into() });
    ValueScenario::<Text>::new("one")
        .given(state("a"))
        .when(Text::process, request([update("b"), fail]))
        .then_rejected(Code::FailedPrecondition)
        .and()
        .when(Text::process, request([]))
        .then_unchanged()
        .then_reply(response("a"));
}

#[test]
fn another_entity_is_told_by_forwards_and_effects() {
    let two = |value| two("two".into(), told([update(value)]));
    let effect = |value, synchronous| {
        let actions = told([update(value)]);
        Action::Effect(ValueEffect { id: "two".into(), synchronous, actions })
    };
    let forward = ValueForward { id: "two".into(), actions: told([update("x")]) };
    let actions = [effect("a", false), effect("b", true), Action::Forward(forward)];
    ValueScenario::<Text>::new("one")
        .when(Text::process, request(actions))
        .then_effects([testing::effect(two("a")), effect_sync(two("b"))])
        .then_forward(two("x"));
}
