//! The action models.

use stead_sdk::{Action, Call, Context, Outcome, Rejection, Requests, Responses, reject};

use crate::api::process_step::Step;
use crate::api::request_action;
use crate::api::{
    ActionModel, ActionRequest, ActionResponse, ActionTwo, ActionTwoClient, Emit,
    EventSourcedTwoClient, OtherRequest, ProcessStep, Relay, Request, RequestAction, Response,
};

#[derive(Default)]
pub struct Acting;

impl Action for Acting {}

/// What a response is made of.
enum Made {
    Nothing,
    Reply(String),
    Forward(Call<ActionResponse>),
}

fn run(
    ctx: &mut Context<Acting>,
    steps: impl IntoIterator<Item = ProcessStep>,
    mut made: Made,
) -> Result<Made, Rejection> {
    for step in steps.into_iter().filter_map(|step| step.step) {
        match step {
            Step::Reply(reply) => made = Made::Reply(reply.message),
            Step::Forward(to) => made = Made::Forward(other(to.id)),
            Step::Effect(effect) if effect.synchronous => ctx.effect_sync(other(effect.id)),
            Step::Effect(effect) => ctx.effect(other(effect.id)),
            Step::Fail(fail) => reject!(FailedPrecondition, "{}", fail.message),
            Step::Call(call) => made = Made::Reply(ctx.call(emit(call.id, call.value))?.message),
            Step::Crash(_) => panic!("as told"),
            Step::Spin(spin) => {
                for round in 0..spin.rounds {
                    std::hint::black_box(round);
                }
            }
        }
    }
    Ok(made)
}

fn other(id: String) -> Call<ActionResponse> {
    ActionTwoClient::call(OtherRequest { id })
}

fn emit(id: String, value: String) -> Call<Response> {
    let action = Some(request_action::Action::Emit(Emit { value }));
    EventSourcedTwoClient::call(Request { id, actions: vec![RequestAction { action }] })
}

fn answer(ctx: &mut Context<Acting>, made: Made) -> Outcome<Acting, ActionResponse> {
    match made {
        Made::Nothing => ctx.reply_nothing(),
        Made::Reply(message) => ctx.reply(ActionResponse { message }),
        Made::Forward(call) => ctx.forward(call),
    }
}

fn respond(
    ctx: &mut Context<Acting>,
    request: ActionRequest,
    responses: &Responses<ActionResponse>,
) -> Result<(), Rejection> {
    for group in request.groups {
        match run(ctx, group.steps, Made::Nothing)? {
            Made::Nothing => responses.send_nothing()?,
            Made::Reply(message) => responses.send(ActionResponse { message })?,
            Made::Forward(call) => responses.forward(call)?,
        }
    }
    Ok(())
}

impl ActionModel for Acting {
    fn process_unary(
        &self,
        ctx: &mut Context<Self>,
        request: ActionRequest,
    ) -> Outcome<Self, ActionResponse> {
        let steps = request.groups.into_iter().flat_map(|group| group.steps);
        let made = run(ctx, steps, Made::Nothing)?;
        answer(ctx, made)
    }

    fn process_streamed_in(
        &self,
        ctx: &mut Context<Self>,
        requests: Requests<ActionRequest>,
    ) -> Outcome<Self, ActionResponse> {
        let mut made = Made::Nothing;
        while let Some(request) = requests.next()? {
            made = run(ctx, request.groups.into_iter().flat_map(|group| group.steps), made)?;
        }
        answer(ctx, made)
    }

    fn process_streamed_out(
        &self,
        ctx: &mut Context<Self>,
        request: ActionRequest,
        responses: Responses<ActionResponse>,
    ) -> Result<(), Rejection> {
        respond(ctx, request, &responses)
    }

    fn process_streamed(
        &self,
        ctx: &mut Context<Self>,
        requests: Requests<ActionRequest>,
        responses: Responses<ActionResponse>,
    ) -> Result<(), Rejection> {
        while let Some(request) = requests.next()? {
            respond(ctx, request, &responses)?;
        }
        Ok(())
    }
}

#[derive(Default)]
pub struct Other;

impl Action for Other {}

impl ActionTwo for Other {
    fn call(
        &self,
        ctx: &mut Context<Self>,
        request: OtherRequest,
    ) -> Outcome<Self, ActionResponse> {
        ctx.effect_sync(emit(request.id, "ActionTwo".to_owned()));
        ctx.reply(ActionResponse::default())
    }
}

#[derive(Default)]
pub struct Passing;

impl Action for Passing {}

impl Relay for Passing {
    fn pass(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        ctx.forward(EventSourcedTwoClient::call(request))
    }
}

#[cfg(test)]
mod tests;
