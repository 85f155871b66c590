//! Tests functions natively, without WebAssembly and without a host: given events or a state, when a
//! command, then what it leads to.
//!
//! ```ignore
//! Scenario::<Cart>::new("ada")
//!     .given([added("kettle", 1)])
//!     .when(Cart::add_item, AddLineItem { product_id: "kettle".into(), quantity: 2, .. })
//!     .then_events([added("kettle", 2)])
//!     .then_reply(());
//! ```
//!
//! Whatever a scenario asserts, it also checks what the host relies on: that messages survive their
//! encoding, that a refused command changes nothing, and that a replay gives the state that the live
//! entity had.
//!
//! [`Scenario`] is for event-sourced entities, [`ValueScenario`] for value entities, [`ActionScenario`]
//! for actions, [`WorkflowScenario`] for workflows, and [`fold_view`] for views.

mod action;
mod event_sourced;
mod expected;
mod value;
mod view;
mod workflow;

use std::fmt::Debug;

use prost::Message;

use crate::call::{Answer, Call, Effect, TimerChange};
use crate::context::Metadata;
use crate::event::{EncodedMessage, decode};
use crate::rejection::{Code, Rejection};
use crate::view::StateChange;

pub use action::ActionScenario;
pub use event_sourced::Scenario;
pub use expected::{ExpectedEffect, ExpectedTimer, effect, effect_sync, no_timer, timer};
pub use value::ValueScenario;
pub use view::fold_view;
pub use workflow::WorkflowScenario;

/// What a command led to. `S` is the scenario that it was part of.
pub struct Then<S, R> {
    scenario: S,
    now_ms: u64,
    emitted: Vec<EncodedMessage>,
    state: StateChange,
    effects: Vec<Effect>,
    timers: Vec<TimerChange>,
    sent: Vec<Answer<R>>,
    result: Result<Answer<R>, Rejection>,
}

impl<S, R: PartialEq + Debug> Then<S, R> {
    #[track_caller]
    fn accepted(&self) -> &Answer<R> {
        match &self.result {
            Ok(answer) => answer,
            Err(rejection) => panic!("the command was refused: {rejection}"),
        }
    }

    #[track_caller]
    pub fn then_reply(self, reply: R) -> Self {
        match self.accepted() {
            Answer::Reply(found) => assert_eq!(*found, reply, "the command got another reply"),
            Answer::Forward(call) => panic!("the command was forwarded: {call:?}"),
            Answer::None => panic!("the command was answered with nothing"),
        }
        self
    }

    /// Another function answers.
    #[track_caller]
    pub fn then_forward<T>(self, call: Call<T>) -> Self {
        match self.accepted() {
            Answer::Forward(found) => assert_eq!(*found, call.into_request()),
            other => panic!("the command was not forwarded, but answered {other:?}"),
        }
        self
    }

    /// These effects, in this order, and no others: `[effect(call), effect_sync(call)]`. Those of a
    /// streamed answer's messages are among them.
    #[track_caller]
    pub fn then_effects(self, effects: impl IntoIterator<Item = ExpectedEffect>) -> Self {
        let expected: Vec<_> = effects.into_iter().map(|effect| effect.0).collect();
        assert_eq!(self.effects, expected, "the command asked for other effects");
        self
    }

    #[track_caller]
    pub fn then_no_effects(self) -> Self {
        self.then_effects([])
    }

    /// These changes of timers, in this order, and no others.
    #[track_caller]
    pub fn then_timers(self, timers: impl IntoIterator<Item = ExpectedTimer>) -> Self {
        let found: Vec<_> =
            self.timers.iter().map(|change| ExpectedTimer::of(change, self.now_ms)).collect();
        let expected: Vec<_> = timers.into_iter().collect();
        assert_eq!(found, expected, "the command changed other timers");
        self
    }

    #[track_caller]
    pub fn then_rejected(self, code: Code) -> Self {
        match &self.result {
            Ok(answer) => panic!("the command was accepted, and answered {answer:?}"),
            Err(rejection) => assert_eq!(rejection.code, code, "{rejection}"),
        }
        self
    }

    /// The reply, for other checks.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn reply(&self) -> &R {
        match self.accepted() {
            Answer::Reply(reply) => reply,
            other => panic!("the command was not replied to: {other:?}"),
        }
    }

    /// Why it was refused, for other checks.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.result.as_ref().err()
    }

    /// The same entity, for the next command.
    pub fn and(self) -> S {
        self.scenario
    }
}

fn metadata_of<const N: usize>(entries: [(&str, &str); N]) -> Metadata {
    let entries = entries.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Metadata::new(entries.into())
}

fn reencoded<M: Message + Default>(what: &str, message: &M) -> M {
    decode(what, &message.encode_to_vec()).expect("a message decodes after it was encoded")
}

fn reencoded_reply<R: Message + Default>(answer: Answer<R>) -> Answer<R> {
    match answer {
        Answer::Reply(reply) => Answer::Reply(reencoded("the reply", &reply)),
        other => other,
    }
}
