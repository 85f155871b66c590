//! Floor 4: the rules of each kind of function, as pure code from (state, input) to what it leads to.
//!
//! Kinds differ in what a command may leave in the journal. What it may ask for beside that is the same for
//! all entities: an answer or a forward, effects, and timers.

pub mod call;
pub mod event_sourced;
pub mod timer;
pub mod value;
pub mod workflow;

#[cfg(test)]
mod tests;

use crate::registry::Kind;
use crate::wasm::{Answer, Outcome};
use crate::words::{Message, Seq};

pub use call::Effect;
pub use timer::{Set, TimerChange};

/// What a command leads to.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The call of a forward is without the host's options.
    pub answer: Answer,
    /// To be stored.
    pub events: Vec<Message>,
    /// The sequence number after the events.
    pub seq: Seq,
    pub snapshot_due: bool,
    /// Events before this one are not needed any more.
    pub forget_before: Option<Seq>,
    pub effects: Vec<Effect>,
    /// At most one for each name.
    pub timers: Vec<TimerChange>,
}

impl Decision {
    /// Whether anything is to be stored.
    pub fn changes_something(&self) -> bool {
        !(self.events.is_empty() && self.effects.is_empty() && self.timers.is_empty())
    }
}

/// The entity as the command found it, and what its type says.
pub struct Before<'a> {
    pub kind: Kind,
    pub seq: Seq,
    pub snapshot_every: u32,
    /// Of a value entity: how many states are kept.
    pub history: u32,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Whether the service has a unary method of this name.
    pub has_method: &'a dyn Fn(&str) -> bool,
}

/// The guest asked for something that an entity of its kind cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a state change, which only a value entity may ask for")]
    StateChange,
    #[error("an event, which a value entity does not have; it updates its state")]
    Event,
    #[error("a state of the type {}, which the host keeps for itself", value::DELETED)]
    ReservedState,
    #[error("the option {option} of a call, which is only for {only_for}")]
    OptionNotAllowed { option: &'static str, only_for: &'static str },
    #[error("the option {option}, {found:?}; it must be {must_be}")]
    OptionMalformed { option: &'static str, found: String, must_be: &'static str },
    #[error("a timer for the method {method:?}, which is no unary method of its service")]
    TimerMethod { method: String },
    #[error("commands of an entity, though it is of the kind {kind}")]
    NoEntity { kind: Kind },
}

/// Decides about what a guest answered to a command.
pub fn decide(outcome: Outcome, before: &Before<'_>) -> Result<Decision, Violation> {
    let Outcome { answer, effects, events, state_change, timers } = outcome;
    let kind = before.kind;
    let stored = match kind {
        Kind::EventSourced | Kind::Workflow => event_sourced::stored(events, state_change, before)?,
        Kind::Value => value::stored(events, state_change, before)?,
        Kind::Action | Kind::View => return Err(Violation::NoEntity { kind }),
    };
    let answer = match answer {
        Answer::Forward(call) => Answer::Forward(call::forward(call)?),
        answer @ (Answer::Reply(_) | Answer::None) => answer,
    };
    let may_ask_for_results = kind == Kind::Workflow;
    let effects = effects.into_iter().map(|effect| call::effect(effect, may_ask_for_results));
    Ok(Decision {
        answer,
        seq: before.seq.plus(stored.events.len()),
        events: stored.events,
        snapshot_due: stored.snapshot_due,
        forget_before: stored.forget_before,
        effects: effects.collect::<Result<_, _>>()?,
        timers: timer::changes(timers, before)?,
    })
}

/// What goes to the journal.
struct Stored {
    events: Vec<Message>,
    snapshot_due: bool,
    forget_before: Option<Seq>,
}
