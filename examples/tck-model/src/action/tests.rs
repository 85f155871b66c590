use stead_sdk::Code;
use stead_sdk::testing::{ActionScenario, effect, effect_sync};

use super::*;
use crate::api::{ActionCall, ActionEffect, ActionFail, ActionForward, ActionReply, ProcessGroup};

fn request<const N: usize>(groups: [&[Step]; N]) -> ActionRequest {
    let step = |step: &Step| ProcessStep { step: Some(step.clone()) };
    let group = |steps: &[Step]| ProcessGroup { steps: steps.iter().map(step).collect() };
    ActionRequest { groups: groups.into_iter().map(group).collect() }
}

fn reply(message: &str) -> Step {
    Step::Reply(ActionReply { message: message.into() })
}

fn effect_step(id: &str, synchronous: bool) -> Step {
    Step::Effect(ActionEffect { id: id.into(), synchronous })
}

fn fail() -> Step {
    Step::Fail(ActionFail { message: "expected".into() })
}

fn response(message: &str) -> ActionResponse {
    ActionResponse { message: message.into() }
}

#[test]
fn a_unary_answer_is_made_of_all_groups() {
    ActionScenario::<Acting>::new()
        .when(
            Acting::process_unary,
            request([&[reply("a"), effect_step("e", true)], &[reply("b")]]),
        )
        .then_effects([effect_sync(other("e".into()))])
        .then_reply(response("b"));
}

#[test]
fn a_failure_keeps_the_effects() {
    ActionScenario::<Acting>::new()
        .when(Acting::process_unary, request([&[effect_step("e", false), fail()]]))
        .then_rejected(Code::FailedPrecondition)
        .then_effects([effect(other("e".into()))]);
}

#[test]
fn a_forward_goes_to_action_two() {
    let forward = Step::Forward(ActionForward { id: "f".into() });
    ActionScenario::<Acting>::new()
        .when(Acting::process_unary, request([&[forward]]))
        .then_forward(other("f".into()));
}

#[test]
fn a_streamed_request_makes_one_answer() {
    ActionScenario::<Acting>::new()
        .when_streamed_in(
            Acting::process_streamed_in,
            [request([&[reply("a")]]), request([&[reply("b")]])],
        )
        .then_reply(response("b"));
}

#[test]
fn each_group_makes_a_response_until_one_fails() {
    ActionScenario::<Acting>::new()
        .when_streamed_out(
            Acting::process_streamed_out,
            request([&[reply("a")], &[], &[effect_step("e", false), reply("b")], &[fail()]]),
        )
        .then_sent_at_first([response("a"), response("b")])
        .then_effects([effect(other("e".into()))])
        .then_rejected(Code::FailedPrecondition);
}

#[test]
fn a_stream_ends_when_its_caller_goes_away() {
    ActionScenario::<Acting>::new()
        .gone_after(1)
        .when_streamed(
            Acting::process_streamed,
            [request([&[reply("a")]]), request([&[reply("b")]])],
        )
        .then_sent_at_first([response("a")])
        .then_rejected(Code::Cancelled);
}

#[test]
fn a_call_is_answered_by_another_function() {
    let call = Step::Call(ActionCall { id: "c".into(), value: "x".into() });
    ActionScenario::<Acting>::new()
        .answering(EventSourcedTwoClient::call, |request: Request| {
            Ok(Response { message: format!("{} was told", request.id) })
        })
        .when(Acting::process_unary, request([&[call]]))
        .then_reply(response("c was told"));
}

#[test]
fn action_two_leaves_a_trace() {
    ActionScenario::<Other>::new()
        .when(Other::call, OtherRequest { id: "o".into() })
        .then_effects([effect_sync(emit("o".into(), "ActionTwo".into()))])
        .then_reply(response(""));
}
