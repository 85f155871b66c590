//! What is not a turn's: stored in the same batches, under the same fence, without a sequence number.

use crate::journal::store::feed::Consumed;
use crate::journal::store::outbox::EffectId;
use crate::journal::store::views::RowChange;
use crate::journal::store::write::Fence;
use crate::words::Address;

/// Stored as a whole or not at all. Chores are idempotent: after an unknown outcome their owner reads what is
/// there.
#[derive(Clone, Debug)]
pub struct Chore {
    /// Of the shard whose rows it changes.
    pub fence: Fence,
    pub task: Task,
}

/// A row that is not there (any more) is left alone.
#[derive(Clone, Debug)]
pub enum Task {
    /// Delivered, or dropped by an operator: the effects leave the outbox.
    EffectDone(Vec<EffectId>),
    /// A try failed: the next one is due then.
    EffectLater {
        id: EffectId,
        tries: u32,
        due_ms: u64,
        error: String,
    },
    /// Given up.
    EffectPark {
        id: EffectId,
        tries: u32,
        error: String,
    },
    /// Due now, as if it had never been tried.
    EffectRetry(EffectId),
    /// Unless the timer has been set again since: the token tells.
    TimerLater {
        address: Address,
        name: String,
        token: [u8; 16],
        due_ms: u64,
        tries: u32,
        error: String,
    },
    Consumed(Consumed),
    /// Rows of views, whatever was consumed.
    ViewRows(Vec<RowChange>),
}

impl Chore {
    /// What it counts against the rows of a commit.
    pub fn rows(&self) -> usize {
        match &self.task {
            Task::EffectDone(ids) => ids.len(),
            Task::EffectLater { .. }
            | Task::EffectPark { .. }
            | Task::EffectRetry(_)
            | Task::TimerLater { .. } => 1,
            Task::Consumed(consumed) => consumed.rows(),
            Task::ViewRows(rows) => rows.iter().map(RowChange::rows).sum(),
        }
    }

    /// What it counts against the bytes of a commit.
    pub fn bytes(&self) -> usize {
        match &self.task {
            Task::EffectDone(ids) => 16 * ids.len(),
            Task::EffectLater { error, .. } | Task::EffectPark { error, .. } => 32 + error.len(),
            Task::EffectRetry(_) => 16,
            Task::TimerLater { address, name, error, .. } => {
                32 + address.journal.as_str().len()
                    + address.id.as_str().len()
                    + name.len()
                    + error.len()
            }
            Task::Consumed(consumed) => consumed.bytes(),
            Task::ViewRows(rows) => rows.iter().map(RowChange::size).sum(),
        }
    }
}
