//! Event-sourced entities, and workflows, whose steps are events.
//!
//! Events are numbered in the order in which the guest returned them, all or none are stored, and the
//! reply leaves after them. A snapshot is due when the events of a command reach or pass a multiple
//! of the type's interval; there is one at the end of the command, however many multiples it passed.

use crate::kind::{Before, Stored, Violation};
use crate::wasm::StateChange;
use crate::words::{Message, Seq};

pub(super) fn stored(
    events: Vec<Message>,
    state_change: StateChange,
    before: &Before<'_>,
) -> Result<Stored, Violation> {
    if state_change != StateChange::None {
        return Err(Violation::StateChange);
    }
    let seq = before.seq.plus(events.len());
    let snapshot_due = passes_multiple(before.seq, seq, before.snapshot_every);
    Ok(Stored { events, snapshot_due, forget_before: None })
}

fn passes_multiple(before: Seq, after: Seq, every: u32) -> bool {
    let every = u64::from(every.max(1));
    after.0 / every > before.0 / every
}
