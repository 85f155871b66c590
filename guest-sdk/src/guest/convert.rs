//! From the SDK's types to the contract's, and back.

use super::bindings::stead::function::{calls, types};
use crate::action::Gone;
use crate::call::{Answer, Due, Effect, Request, TimerChange};
use crate::event::EncodedMessage;
use crate::module::Handled;
use crate::rejection::{Code, Rejection};
use crate::view::StateChange;

impl From<types::Message> for EncodedMessage {
    fn from(message: types::Message) -> Self {
        Self { type_name: message.type_name, data: message.data }
    }
}

impl From<EncodedMessage> for types::Message {
    fn from(message: EncodedMessage) -> Self {
        Self { type_name: message.type_name, data: message.data }
    }
}

impl From<Handled> for types::Outcome {
    fn from(handled: Handled) -> Self {
        Self {
            answer: handled.answer.into(),
            effects: handled.effects.into_iter().map(Into::into).collect(),
            events: handled.events.into_iter().map(Into::into).collect(),
            state_change: handled.state.into(),
            timers: handled.timers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Answer<Vec<u8>>> for types::Answer {
    fn from(answer: Answer<Vec<u8>>) -> Self {
        match answer {
            Answer::Reply(response) => Self::Reply(response),
            Answer::Forward(call) => Self::Forward(call.into()),
            Answer::None => Self::None,
        }
    }
}

impl From<Request> for types::Call {
    fn from(call: Request) -> Self {
        let entry = |(name, value): (&str, &str)| types::MetadataEntry {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        Self {
            metadata: call.metadata.iter().map(entry).collect(),
            service: call.service.into_owned(),
            method: call.method.into_owned(),
            payload: call.payload,
        }
    }
}

impl From<Effect> for types::Effect {
    fn from(effect: Effect) -> Self {
        Self { call: effect.call.into(), synchronous: effect.synchronous }
    }
}

impl From<StateChange> for types::StateChange {
    fn from(change: StateChange) -> Self {
        match change {
            StateChange::None => Self::None,
            StateChange::Update(state) => Self::Update(state.into()),
            StateChange::Delete => Self::Delete,
        }
    }
}

impl From<TimerChange> for types::TimerChange {
    fn from(change: TimerChange) -> Self {
        let timer = change.timer.map(|timer| types::Timer {
            due: match timer.due {
                Due::AfterMs(ms) => types::Due::AfterMs(ms),
                Due::AtMs(ms) => types::Due::AtMs(ms),
            },
            every_ms: timer.every_ms,
            method: timer.method.into_owned(),
            payload: timer.payload,
        });
        Self { name: change.name, timer }
    }
}

impl From<Rejection> for types::Rejection {
    fn from(rejection: Rejection) -> Self {
        Self {
            code: rejection.code as u32,
            message: rejection.message,
            details: rejection.details.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<types::Rejection> for Rejection {
    fn from(rejection: types::Rejection) -> Self {
        Self {
            code: Code::from_number(rejection.code),
            message: rejection.message,
            details: rejection.details.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<calls::Gone> for Gone {
    fn from(gone: calls::Gone) -> Self {
        match gone {
            calls::Gone::Cancelled => Self::Cancelled,
            calls::Gone::DeadlineExceeded => Self::DeadlineExceeded,
        }
    }
}
