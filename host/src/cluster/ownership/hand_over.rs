//! The steps of giving a shard away. It was closed, its commands have ended, and its writes are durable.
//!
//! From the moment that the store was asked until its answer is known, the shard is served by nobody here:
//! a statement whose answer was lost may still take effect. Freeing the shard settles that, for whichever
//! of the two statements comes second finds another epoch.

use crate::words::Epoch;

/// What the store said of one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The shard has a new owner, or none, and this epoch.
    Done(Epoch),
    /// Nothing was changed.
    Refused,
    /// No answer, or an error.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Revoke it here, and tell the new owner.
    Tell(Epoch),
    /// Free it, so that anyone may claim it.
    Release,
    /// Revoke it here: it is free under this epoch.
    Free(Epoch),
    /// Revoke it here: it was not ours any more, or the hand-over took effect unheard.
    Lost,
}

pub fn after_hand_over(outcome: Outcome) -> Next {
    match outcome {
        Outcome::Done(epoch) => Next::Tell(epoch),
        Outcome::Refused | Outcome::Unknown => Next::Release,
    }
}

pub fn after_release(outcome: Outcome) -> Next {
    match outcome {
        Outcome::Done(epoch) => Next::Free(epoch),
        Outcome::Refused => Next::Lost,
        Outcome::Unknown => Next::Release,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_never_served_again_once_the_store_was_asked_to_give_it_away() {
        assert_eq!(after_hand_over(Outcome::Done(Epoch(3))), Next::Tell(Epoch(3)));
        assert_eq!(after_hand_over(Outcome::Refused), Next::Release);
        assert_eq!(after_hand_over(Outcome::Unknown), Next::Release);
        assert_eq!(after_release(Outcome::Unknown), Next::Release);
        assert_eq!(after_release(Outcome::Refused), Next::Lost);
        assert_eq!(after_release(Outcome::Done(Epoch(3))), Next::Free(Epoch(3)));
    }
}
