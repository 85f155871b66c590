//! The event-sourced model: its state is a string, to which events append.

use std::time::Duration;
use std::time::UNIX_EPOCH;

use stead_sdk::{Call, Context, EventSourced, Events, Outcome, reject};

use crate::api::request_action::Action;
use crate::api::{
    Crash, EventSourcedConfigured, EventSourcedConfiguredClient, EventSourcedModel,
    EventSourcedModelClient, EventSourcedTwo, EventSourcedTwoClient, Persisted, RelayClient,
    Request, RequestAction, Response, SetTimer, State,
};

/// One entity serves all three services.
#[derive(Default)]
pub struct Model {
    text: String,
}

#[derive(Events)]
pub enum Event {
    Persisted(Persisted),
}

/// What a timer of the service calls.
type Wake = fn(Request) -> Call<Response>;

impl Model {
    fn run(
        &self,
        ctx: &mut Context<Self>,
        request: Request,
        wake: Wake,
    ) -> Outcome<Self, Response> {
        let mut forward = None;
        for action in request.actions.iter().filter_map(|action| action.action.clone()) {
            match action {
                Action::Emit(emit) => ctx.emit(Persisted { value: emit.value }),
                Action::Fail(fail) => reject!(FailedPrecondition, "{}", fail.message),
                Action::Forward(to) => {
                    let actions = if to.in_a_circle { request.actions.clone() } else { to.actions };
                    forward = Some(two(to.id, actions, to.through_an_action));
                }
                Action::Effect(effect) if effect.synchronous => {
                    ctx.effect_sync(two(effect.id, effect.actions, effect.through_an_action));
                }
                Action::Effect(effect) => {
                    ctx.effect(two(effect.id, effect.actions, effect.through_an_action));
                }
                Action::SetTimer(timer) => set(ctx, timer, wake),
                Action::CancelTimer(timer) => ctx.cancel_timer(timer.name),
                Action::Crash(Crash { unless }) => {
                    assert!(!unless.is_empty() && self.text.contains(&unless), "as told");
                }
            }
        }
        match forward {
            Some(call) => ctx.forward(call),
            None => ctx.reply_with(|model| Response { message: model.text.clone() }),
        }
    }
}

fn two(id: String, actions: Vec<RequestAction>, through_an_action: bool) -> Call<Response> {
    let request = Request { id, actions };
    match through_an_action {
        true => RelayClient::pass(request),
        false => EventSourcedTwoClient::call(request),
    }
}

fn set(ctx: &mut Context<Model>, timer: SetTimer, wake: Wake) {
    let id = ctx.entity_id().to_owned();
    let mut setting = ctx.timer(timer.name);
    if timer.every_ms > 0 {
        setting = setting.every(Duration::from_millis(timer.every_ms));
    }
    if timer.at_ms > 0 {
        setting = setting.at(UNIX_EPOCH + Duration::from_millis(timer.at_ms));
    } else if timer.after_ms > 0 {
        setting = setting.after(Duration::from_millis(timer.after_ms));
    }
    setting.command(wake(Request { id, actions: timer.actions }));
}

impl EventSourcedModel for Model {
    fn process(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        self.run(ctx, request, EventSourcedModelClient::wake)
    }

    fn wake(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        self.run(ctx, request, EventSourcedModelClient::wake)
    }
}

impl EventSourcedTwo for Model {
    fn call(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        self.run(ctx, request, EventSourcedTwoClient::call)
    }
}

impl EventSourcedConfigured for Model {
    fn call(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        self.run(ctx, request, EventSourcedConfiguredClient::call)
    }
}

impl EventSourced for Model {
    type Event = Event;
    type Snapshot = State;

    fn apply(&mut self, event: Event) {
        match event {
            Event::Persisted(Persisted { value }) => self.text.push_str(&value),
        }
    }

    fn snapshot(&self) -> Option<State> {
        Some(State { value: self.text.clone() })
    }

    fn restore(&mut self, snapshot: State) -> Result<(), String> {
        self.text = snapshot.value;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
