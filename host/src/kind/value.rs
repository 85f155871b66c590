//! Value entities. Their journal holds their states: every update is an event of the state's type, a
//! deletion one of the type [`DELETED`] without data. So a version is a sequence number, and the newest
//! event is all that an activation needs.

use crate::kind::{Before, Stored, Violation};
use crate::wasm::StateChange;
use crate::words::{Message, Seq, limits};

/// The type name of the event that is a deletion.
pub const DELETED: &str = "stead.Deleted";

/// The state that an event of the journal stands for. None: there is none any more.
pub fn state(event: &Message) -> Option<&Message> {
    (&*event.type_name != DELETED).then_some(event)
}

pub(super) fn stored(
    events: Vec<Message>,
    state_change: StateChange,
    before: &Before<'_>,
) -> Result<Stored, Violation> {
    if !events.is_empty() {
        return Err(Violation::Event);
    }
    let event = match state_change {
        StateChange::None => None,
        StateChange::Update(state) if &*state.type_name == DELETED => {
            return Err(Violation::ReservedState);
        }
        StateChange::Update(state) => Some(state),
        // There is nothing to delete.
        StateChange::Delete if before.seq == Seq::ZERO => None,
        StateChange::Delete => Some(Message::new(DELETED, "")),
    };
    let version = before.seq.plus(usize::from(event.is_some()));
    Ok(Stored {
        forget_before: event.as_ref().and_then(|_| forget_before(version, before.history)),
        events: event.into_iter().collect(),
        snapshot_due: false,
    })
}

/// Old states are dropped now and then, several at once.
fn forget_before(version: Seq, history: u32) -> Option<Seq> {
    let oldest_kept = (version.0 + 1).checked_sub(u64::from(history.max(1)))?;
    let due = version.0.is_multiple_of(limits::HISTORY_DROPPED_EVERY);
    (due && oldest_kept > 1).then_some(Seq(oldest_kept))
}
