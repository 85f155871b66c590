//! What waits, for operators: effects, dead letters and timers.

use crate::entity::house::Entities;
use crate::entity::outbox::Waken;
use crate::entity::{CallError, outbox};
use crate::journal::{AppendError, Chore, EffectId, Fence, OutboxRow, StoreError, Task, TimerRow};
use crate::words::{Address, Status};

/// What this node has in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingCounts {
    /// Effects that are not delivered yet; others may be in the store alone.
    pub effects: usize,
    /// Timers that are due within the next minute.
    pub timers: usize,
}

impl Entities {
    /// Effects that were given up, of all shards, by id, from after one on.
    pub async fn dead_letters(
        &self,
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, Status> {
        self.house.journal.dead_letters(after, limit).await.map_err(unreadable)
    }

    /// An effect, unless it was delivered or dropped.
    pub async fn effect(&self, id: EffectId) -> Result<Option<OutboxRow>, Status> {
        self.house.journal.effect(id).await.map_err(unreadable)
    }

    /// Effects of an entity, parked or not, by id.
    pub async fn effects_of(
        &self,
        source: &Address,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, Status> {
        self.house.journal.outbox_of(source, limit).await.map_err(unreadable)
    }

    /// Timers of an entity, by name.
    pub async fn timers_of(
        &self,
        address: &Address,
        limit: usize,
    ) -> Result<Vec<TimerRow>, Status> {
        self.house.journal.timers_of(address, limit).await.map_err(unreadable)
    }

    pub fn pending(&self) -> PendingCounts {
        let house = &self.house;
        PendingCounts { effects: house.outbox.len(), timers: house.timers.len() }
    }

    /// Has a dead letter delivered, as if it had never been tried. Returns once that is stored. NOT_FOUND if
    /// there is none of this id; [`CallError::NotHere`] if the shard of its source is another node's.
    pub async fn retry_effect(&self, id: EffectId) -> Result<(), CallError> {
        let (row, fence) = self.dead_letter(id).await?;
        self.change(fence, Task::EffectRetry(id)).await?;
        let row = OutboxRow { tries: 0, due_ms: 0, parked: false, ..row };
        outbox::waken(&self.house, Waken { row, fence });
        Ok(())
    }

    /// Has a dead letter forgotten. Returns once that is stored; errors as of
    /// [`retry_effect`](Self::retry_effect).
    pub async fn drop_effect(&self, id: EffectId) -> Result<(), CallError> {
        let (row, fence) = self.dead_letter(id).await?;
        self.change(fence, Task::EffectDone(vec![id])).await?;
        tracing::warn!(
            source = %row.source, effect = %id, service = row.call.service, method = row.call.method,
            request_id = row.call.request_id, "an operator dropped an effect"
        );
        Ok(())
    }

    async fn dead_letter(&self, id: EffectId) -> Result<(OutboxRow, Fence), CallError> {
        let row = self.effect(id).await?.filter(|row| row.parked);
        let Some(row) = row else {
            return Err(Status::not_found(format!("there is no dead letter {id}")).into());
        };
        let shard = row.shard;
        let epoch = self.house.holdings.epoch(shard).ok_or(CallError::NotHere)?;
        Ok((row, Fence { shard, epoch }))
    }

    async fn change(&self, fence: Fence, task: Task) -> Result<(), CallError> {
        match self.house.journal.chore(Chore { fence, task }).wait().await {
            Ok(()) => Ok(()),
            Err(AppendError::Fenced) => Err(CallError::NotHere),
            Err(error) => {
                let reason = format!("the store did not confirm the change: {error}; try again");
                Err(Status::unavailable(reason).into())
            }
        }
    }
}

fn unreadable(error: StoreError) -> Status {
    Status::unavailable(format!("the store cannot be read: {error}"))
}
