//! Effects that were delivered leave the store, many at a time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::entity::house::House;
use crate::entity::outbox::{Outbox, Past, Work};
use crate::journal::{AppendError, Chore, Fence, Task};
use crate::words::limits;

impl Outbox {
    pub(super) fn deliver(&self, delivered: Past) {
        self.done.lock().push(delivered);
        self.work.done.notify_one();
    }
}

pub(super) async fn run(house: Weak<House>, work: Arc<Work>) {
    loop {
        let _ = tokio::time::timeout(limits::OUTBOX_RETRY_AFTER, work.done.notified()).await;
        let Some(house) = house.upgrade() else { return };
        let delivered = std::mem::take(&mut *house.outbox.done.lock());
        if !delivered.is_empty() {
            settle(&house, delivered).await;
        }
    }
}

async fn settle(house: &House, delivered: Vec<Past>) {
    let mut by_fence: HashMap<Fence, Vec<Past>> = HashMap::new();
    for one in delivered {
        by_fence.entry(one.fence).or_default().push(one);
    }
    let mut chores = Vec::with_capacity(by_fence.len());
    for (fence, mut all) in by_fence {
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(limits::EFFECTS_DONE_AT_ONCE_MAX));
            let task = Task::EffectDone(all.iter().map(|one| one.id).collect());
            chores.push((house.journal.chore(Chore { fence, task }), all));
            all = rest;
        }
    }
    let mut failed = Vec::new();
    for (commit, all) in chores {
        match commit.wait().await {
            Ok(()) | Err(AppendError::Stopped { .. }) => house.outbox.forget(all),
            // Whoever has the shard now delivers them again, and finds receipts.
            Err(AppendError::Fenced | AppendError::Unknown { .. }) => house.outbox.let_go(all),
            Err(
                error @ (AppendError::Unavailable
                | AppendError::Conflict
                | AppendError::Full
                | AppendError::Busy),
            ) => {
                tracing::warn!(%error, effects = all.len(), "delivered effects are still in the store");
                failed.extend(all);
            }
        }
    }
    if !failed.is_empty() {
        tokio::time::sleep(limits::OUTBOX_RETRY_AFTER).await;
        house.outbox.done.lock().extend(failed);
    }
}
