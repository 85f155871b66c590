//! The model entity of the compatibility tests: its state is a string, and a command says what to do.

mod api {
    stead_sdk::include_proto!("stead.tck.v1");
}

use api::request_action::Action;
use api::{Emit, EventSourcedConfigured, EventSourcedModel, EventSourcedTwo, Fail};
use api::{Persisted, Request, Response, State};
use stead_sdk::{Context, EventSourced, Events, Outcome, reject};

/// One entity serves all three services.
#[derive(Default)]
pub struct Model {
    text: String,
}

#[derive(Events)]
pub enum Event {
    Persisted(Persisted),
}

impl Model {
    fn run(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        for action in request.actions.into_iter().filter_map(|action| action.action) {
            match action {
                Action::Emit(Emit { value }) => ctx.emit(Persisted { value }),
                Action::Fail(Fail { message }) => reject!(FailedPrecondition, "{message}"),
                Action::Forward(_) => reject!(Unimplemented, "forwards are not supported yet"),
                Action::Effect(_) => reject!(Unimplemented, "effects are not supported yet"),
            }
        }
        ctx.reply_with(|model| Response { message: model.text.clone() })
    }
}

impl EventSourcedModel for Model {
    fn process(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        self.run(ctx, request)
    }
}

impl EventSourcedTwo for Model {
    fn call(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        self.run(ctx, request)
    }
}

impl EventSourcedConfigured for Model {
    fn call(&self, ctx: &mut Context<Self>, request: Request) -> Outcome<Self, Response> {
        self.run(ctx, request)
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

stead_sdk::export! {
    Model: EventSourcedModel, journal = "tck-model", snapshot_every = 5;
    Model: EventSourcedTwo, journal = "tck-two";
    Model: EventSourcedConfigured, journal = "tck-configured", passivate_after_ms = 100;
}

#[cfg(test)]
mod tests;
