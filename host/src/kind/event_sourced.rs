//! Event-sourced entities: what an outcome of the guest means.
//!
//! Events are numbered in the order in which the guest returned them, all or none are stored, and the
//! reply leaves after them. A snapshot is due when the events of a command reach or pass a multiple
//! of the type's interval; there is one at the end of the command, however many multiples it passed.

use bytes::Bytes;

use crate::wasm::{Answer, Outcome, StateChange};
use crate::words::{Message, Seq};

/// What a command leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub reply: Bytes,
    pub events: Vec<Message>,
    /// The sequence number after the events.
    pub seq: Seq,
    pub snapshot_due: bool,
}

/// The guest asked for something that an event-sourced entity of this host cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a forward, which this host does not run yet")]
    Forward,
    #[error("an effect, which this host does not run yet")]
    Effect,
    #[error("a timer, which this host does not run yet")]
    Timer,
    #[error("a state change, which only a value entity may ask for")]
    StateChange,
}

/// Decides about an outcome of an entity that was at `before`.
pub fn decide(outcome: Outcome, before: Seq, snapshot_every: u32) -> Result<Decision, Violation> {
    if !outcome.effects.is_empty() {
        return Err(Violation::Effect);
    }
    if !outcome.timers.is_empty() {
        return Err(Violation::Timer);
    }
    if outcome.state_change != StateChange::None {
        return Err(Violation::StateChange);
    }
    let reply = match outcome.answer {
        Answer::Reply(reply) => reply,
        Answer::None => Bytes::new(),
        Answer::Forward(_) => return Err(Violation::Forward),
    };
    let seq = before.plus(outcome.events.len());
    Ok(Decision {
        reply,
        events: outcome.events,
        seq,
        snapshot_due: passes_multiple(before, seq, snapshot_every),
    })
}

fn passes_multiple(before: Seq, after: Seq, every: u32) -> bool {
    let every = u64::from(every.max(1));
    after.0 / every > before.0 / every
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::{Call, Effect, TimerChange};

    fn outcome(events: usize) -> Outcome {
        Outcome {
            answer: Answer::None,
            effects: Vec::new(),
            events: vec![Message::new("t.Happened", "x"); events],
            state_change: StateChange::None,
            timers: Vec::new(),
        }
    }

    #[test]
    fn a_snapshot_is_due_when_a_multiple_is_reached_or_passed() {
        let due = |before, events| decide(outcome(events), Seq(before), 5).unwrap().snapshot_due;
        assert!(!due(0, 4));
        assert!(due(0, 5));
        assert!(due(4, 1));
        assert!(due(3, 14));
        assert!(!due(5, 4));
        assert!(!due(5, 0));
    }

    #[test]
    fn events_advance_the_sequence_number() {
        assert_eq!(decide(outcome(3), Seq(7), 100).unwrap().seq, Seq(10));
    }

    #[test]
    fn what_later_kinds_may_ask_for_is_a_violation() {
        let call = || Call {
            service: "s".into(),
            method: "m".into(),
            payload: Bytes::new(),
            metadata: Vec::new(),
        };
        let mut forward = outcome(0);
        forward.answer = Answer::Forward(call());
        assert_eq!(decide(forward, Seq(0), 5), Err(Violation::Forward));
        let mut effect = outcome(0);
        effect.effects = vec![Effect { call: call(), synchronous: false }];
        assert_eq!(decide(effect, Seq(0), 5), Err(Violation::Effect));
        let mut state = outcome(0);
        state.state_change = StateChange::Delete;
        assert_eq!(decide(state, Seq(0), 5), Err(Violation::StateChange));
        let mut timer = outcome(0);
        timer.timers = vec![TimerChange { name: "t".into(), timer: None }];
        assert_eq!(decide(timer, Seq(0), 5), Err(Violation::Timer));
    }
}
