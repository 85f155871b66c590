//! What goes into one transaction, and who waits for each part of it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::journal::commit::Commit;
use crate::journal::error::AppendError;
use crate::journal::holdings::Holdings;
use crate::journal::store::{Chore, Fence, Partition, Task, Write};
use crate::words::limits::{COMMIT_BYTES_MAX, COMMIT_ROWS_MAX};
use crate::words::{Address, Seq};

/// The other end of a [`Commit`]. Dropping it unused fails the write, so that nobody waits for ever.
pub struct Promise(pub Commit);

impl Promise {
    pub fn complete(self, outcome: Result<(), AppendError>) {
        // Only `drop` comes after this, and it tolerates a value that is set.
        let _ = self.0.0.outcome.set(outcome);
    }

    /// Fails a write, while an `older` one of its entity may be on its way.
    pub fn refuse(self, error: AppendError, older: Option<Commit>) {
        if let Some(older) = older {
            // Nothing else sets it, and this ends the promise.
            let _ = self.0.0.older.set(older);
        }
        self.complete(Err(error));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.0.0.outcome.initialized() {
            let reason = Arc::from("the task that commits has ended");
            let _ = self.0.0.outcome.set(Err(AppendError::Unknown { reason }));
        }
    }
}

/// Writes and chores of one transaction, and who waits for each.
#[derive(Default)]
pub struct Batch {
    pub writes: Vec<Write>,
    pub chores: Vec<Chore>,
    write_promises: Vec<Promise>,
    chore_promises: Vec<Promise>,
    pub rows: usize,
    pub bytes: usize,
}

impl Batch {
    pub fn push(&mut self, write: Write, promise: Promise) {
        self.rows += write.rows();
        self.bytes += write.bytes();
        self.writes.push(write);
        self.write_promises.push(promise);
    }

    pub fn push_chore(&mut self, chore: Chore, promise: Promise) {
        self.rows += chore.rows();
        self.bytes += chore.bytes();
        self.chores.push(chore);
        self.chore_promises.push(promise);
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.chores.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.rows >= COMMIT_ROWS_MAX || self.bytes >= COMMIT_BYTES_MAX
    }

    pub fn len(&self) -> usize {
        self.writes.len() + self.chores.len()
    }

    /// The newest write of each entity.
    pub fn newest(&self) -> HashMap<&Address, Commit> {
        let writes = self.writes.iter().zip(&self.write_promises);
        writes.map(|(write, promise)| (&write.address, promise.0.clone())).collect()
    }

    pub fn complete(self, outcome: Result<(), AppendError>) {
        for promise in self.write_promises.into_iter().chain(self.chore_promises) {
            promise.complete(outcome.clone());
        }
    }

    /// Fails what the store has fenced, and tells the holdings.
    pub fn fence_out(&mut self, fenced: &[Fence], holdings: &Holdings) {
        self.lose(fenced, &AppendError::Fenced, holdings);
    }

    /// Fails what may or may not be stored, and tells the holdings: nothing goes on from there.
    pub fn leave_open(&mut self, unknown: &[Fence], reason: &Arc<str>, holdings: &Holdings) {
        self.lose(unknown, &AppendError::Unknown { reason: reason.clone() }, holdings);
    }

    fn lose(&mut self, fences: &[Fence], error: &AppendError, holdings: &Holdings) {
        if fences.is_empty() {
            return;
        }
        // Before anybody hears of it.
        for fence in fences {
            holdings.lose(fence.shard, fence.epoch);
        }
        let error = |fence: &Fence| fences.contains(fence).then(|| error.clone());
        let batch = std::mem::take(self);
        // The others are stored by now.
        *self = batch.failing(|write| error(&write.fence), |chore| error(&chore.fence), None);
    }

    /// Fails the first write of an entity that cannot follow what is before it, and every later one
    /// of that entity. If they follow one another, it is the first that does not follow the store.
    pub fn without_conflict(self, address: &Address) -> Self {
        let mut head = None;
        let keep = self
            .writes
            .iter()
            .filter(|write| write.address == *address)
            .position(|write| {
                let before = head.replace(write.head());
                before.is_some_and(|before| before != write.after)
            })
            .unwrap_or(0);
        self.without(address, keep)
    }

    /// Fails the write of an entity that follows a number, and every later one of that entity.
    pub fn without_refused(self, address: &Address, after: Seq) -> Self {
        let mut writes = self.writes.iter().filter(|write| write.address == *address);
        let keep = writes.position(|write| write.after == after).unwrap_or(0);
        self.without(address, keep)
    }

    /// Fails the step of a group that expects a place, and every later one of that group and partition.
    pub fn without_moved(self, group: &str, partition: Partition, expected: u64) -> Self {
        let is_step = |chore: &Chore| match &chore.task {
            Task::Consumed(step) if step.group == group && step.partition == partition => {
                Some(step.expected_off)
            }
            _ => None,
        };
        // The store names a step of the batch; if it does not, all of them go.
        let is_there = self.chores.iter().any(|chore| is_step(chore) == Some(expected));
        let mut found = !is_there;
        self.failing(
            |_| None,
            |chore| {
                let step = is_step(chore)?;
                found |= step == expected;
                found.then_some(AppendError::Conflict)
            },
            None,
        )
    }

    /// Fails all writes of an entity but the first ones, which are still to be stored.
    fn without(self, address: &Address, keep: usize) -> Self {
        let writes = self.writes.iter().zip(&self.write_promises);
        let kept = writes.filter(|(write, _)| write.address == *address).take(keep).last();
        let older = kept.map(|(_, promise)| promise.0.clone());
        let mut seen = 0;
        self.failing(
            |write| {
                seen += usize::from(write.address == *address);
                (write.address == *address && seen > keep).then_some(AppendError::Conflict)
            },
            |_| None,
            older,
        )
    }

    /// Fails those that have an error; of writes, `older` may still be on its way. Returns the others.
    fn failing(
        self,
        mut write_error: impl FnMut(&Write) -> Option<AppendError>,
        mut chore_error: impl FnMut(&Chore) -> Option<AppendError>,
        older: Option<Commit>,
    ) -> Self {
        let mut rest = Batch::default();
        for (write, promise) in self.writes.into_iter().zip(self.write_promises) {
            match write_error(&write) {
                Some(error) => promise.refuse(error, older.clone()),
                None => rest.push(write, promise),
            }
        }
        for (chore, promise) in self.chores.into_iter().zip(self.chore_promises) {
            match chore_error(&chore) {
                Some(error) => promise.complete(Err(error)),
                None => rest.push_chore(chore, promise),
            }
        }
        rest
    }
}
