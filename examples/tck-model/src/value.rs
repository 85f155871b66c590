//! The value model: its state is a string.

use stead_sdk::{Call, Context, Outcome, Value, reject};

use crate::api::value_request_action::Action;
use crate::api::{
    ValueEntityConfigured, ValueEntityModel, ValueEntityTwo, ValueEntityTwoClient, ValueRequest,
    ValueRequestAction, ValueResponse, ValueState,
};

/// One entity serves all three services.
#[derive(Default)]
pub struct Text(String);

impl Text {
    fn run(&self, ctx: &mut Context<Self>, request: ValueRequest) -> Outcome<Self, ValueResponse> {
        let mut forward = None;
        for action in request.actions.into_iter().filter_map(|action| action.action) {
            match action {
                Action::Update(update) => ctx.update(ValueState { value: update.value }),
                Action::Delete(_) => ctx.delete(),
                Action::Fail(fail) => reject!(FailedPrecondition, "{}", fail.message),
                Action::Forward(to) => forward = Some(two(to.id, to.actions)),
                Action::Effect(effect) if effect.synchronous => {
                    ctx.effect_sync(two(effect.id, effect.actions));
                }
                Action::Effect(effect) => ctx.effect(two(effect.id, effect.actions)),
            }
        }
        match forward {
            Some(call) => ctx.forward(call),
            None => ctx.reply_with(|text| ValueResponse { message: text.0.clone() }),
        }
    }
}

fn two(id: String, actions: Vec<ValueRequestAction>) -> Call<ValueResponse> {
    ValueEntityTwoClient::call(ValueRequest { id, actions })
}

impl ValueEntityModel for Text {
    fn process(
        &self,
        ctx: &mut Context<Self>,
        request: ValueRequest,
    ) -> Outcome<Self, ValueResponse> {
        self.run(ctx, request)
    }
}

impl ValueEntityTwo for Text {
    fn call(&self, ctx: &mut Context<Self>, request: ValueRequest) -> Outcome<Self, ValueResponse> {
        self.run(ctx, request)
    }
}

impl ValueEntityConfigured for Text {
    fn call(&self, ctx: &mut Context<Self>, request: ValueRequest) -> Outcome<Self, ValueResponse> {
        self.run(ctx, request)
    }
}

impl Value for Text {
    type State = ValueState;
}

impl From<ValueState> for Text {
    fn from(state: ValueState) -> Self {
        Self(state.value)
    }
}

#[cfg(test)]
mod tests;
