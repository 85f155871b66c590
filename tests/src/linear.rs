//! Whether what clients saw of one entity could have come from one copy of it: linearizability
//! (Herlihy and Wing 1990), searched for as Wing and Gong (1993) did, with the memory of visited
//! configurations that Lowe (2017) added.
//!
//! A history is judged as a whole, after the fact. A call whose outcome nobody knows may have taken
//! effect at any time after it was sent, or never.

pub mod models;

mod explain;

mod search;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

pub use explain::explain;

/// Configurations visited before a search gives up. A history of some hundred calls takes a few hundred.
pub const CONFIGURATIONS_MAX: usize = 2_000_000;

/// What one copy of an entity does with one call after the other.
pub trait Model {
    type State: Clone + Eq + Hash + Debug;
    type Call: Clone + Debug;
    type Answer: Clone + Eq + Debug;

    fn initial() -> Self::State;

    /// The state after the call, or `None` if it cannot have had this answer. Without an answer, the
    /// call is one whose outcome is unknown, and it took effect.
    fn step(
        state: &Self::State,
        call: &Self::Call,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;

    /// What an answer, to whatever call, says of another call.
    fn tells(_answer: &Self::Answer, _of: &Self::Call) -> Tells {
        Tells::Unclear
    }

    /// The answer as it would have been had `call` never happened, if one can tell: to leave out of an
    /// explanation what has no part in it.
    fn without(_call: &Self::Call, _answer: &Self::Answer) -> Option<Self::Answer> {
        None
    }

    /// Whether the call never changes the state.
    fn only_reads(call: &Self::Call) -> bool;
}

/// Where every answer is clear about every call, a history of any length is judged without a search, and
/// calls of unknown outcome cost nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// The call took effect before the answer was decided, or the answer is impossible.
    Before,
    /// The call took effect after that, or never.
    NotBefore,
    /// The answer would have been the same without the call.
    Nothing,
    /// One cannot tell from the two alone.
    Unclear,
}

/// One call of a client, sent once or several times under one idempotency key.
#[derive(Clone, Debug)]
pub struct Operation<C, A> {
    pub client: usize,
    pub call: C,
    /// When it was sent first, since any one moment.
    pub invoked: Duration,
    /// When its answer came, and the answer. `None`: the outcome is unknown.
    pub returned: Option<(Duration, A)>,
}

/// In any order.
pub type History<M> = Vec<Operation<<M as Model>::Call, <M as Model>::Answer>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order of the calls explains the answers.
    Violated,
    /// Too many configurations: nothing is proven.
    Undecided,
}

/// Judges the history of one entity.
pub fn check<M: Model>(history: &History<M>) -> Verdict {
    search::run::<M>(history, CONFIGURATIONS_MAX)
}
