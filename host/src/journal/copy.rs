//! Copies everything that a store holds into an empty one, and compares the two.
//!
//! Modules and revisions come last: until then a node that starts on the copy serves nothing.
//!
//! The events of a copy are in another order than those of the source, but for those of one entity. So the place of
//! a group of consumers means nothing there, unless it is behind all events: a group that has more to consume
//! is not copied, and nor is anything else.

mod aside;
#[cfg(test)]
mod tests;

use crate::journal::error::StoreError;
use crate::journal::store::{
    Chore, EntityFilter, EntitySummary, Fence, Receipt, Store, Task, Write,
};
use crate::words::limits::{
    COMMIT_BYTES_MAX, COMMIT_ROWS_MAX, LIST_PAGE_MAX, REPLAY_BATCH_BYTES, REPLAY_BATCH_EVENTS,
};
use crate::words::{Address, Seq, Shard};

/// How much there is to copy, or was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub entities: u64,
    pub events: u64,
    pub snapshots: u64,
    /// Records of idempotency keys that have not expired.
    pub receipts: u64,
    /// Also those that are parked.
    pub effects: u64,
    pub timers: u64,
    /// Groups of consumers.
    pub groups: u64,
    pub view_rows: u64,
    pub modules: u64,
    pub revisions: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Copying,
    Verifying,
}

/// Why a copy is not complete. The target must not be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("the source cannot be read: {0}")]
    Source(StoreError),
    #[error("the target cannot be written: {0}")]
    Target(StoreError),
    /// A node started, and took shards.
    #[error("a node has started on the target; stop it, and copy into a new database")]
    Fenced,
    #[error(
        "the consumer group {group} {problem}; start the source again until it has consumed everything (see `stead consumers list`) and copy then, delete the group first if nothing deployed has it any more (`stead consumers delete`), or copy with --without-consumers, so that all groups and views begin anew"
    )]
    Behind { group: String, problem: String },
    #[error("{what} differs between source and target; copy again, into a new database")]
    Different { what: String },
}

/// Whether a store holds nothing at all.
pub async fn is_empty(store: &impl Store) -> Result<bool, StoreError> {
    let first = EntityFilter { limit: 1, ..EntityFilter::default() };
    let shards: Vec<Shard> = (0..store.shards()).map(Shard).collect();
    Ok(store.entities(&first).await?.entities.is_empty()
        && store.outbox(&shards, None, 1).await?.is_empty()
        && store.dead_letters(None, 1).await?.is_empty()
        && store.receipts(None, 0, 1).await?.is_empty()
        && store.list_timers(None, 1).await?.is_empty()
        && store.groups(None, 1).await?.is_empty()
        && store.views(None, 1).await?.is_empty()
        && store.modules().await?.is_empty()
        && store.deployments().await?.is_empty())
}

/// How many entities a store has.
pub async fn count_entities(store: &impl Store) -> Result<u64, StoreError> {
    let mut count = 0;
    let mut filter = EntityFilter { limit: LIST_PAGE_MAX, ..EntityFilter::default() };
    loop {
        let page = store.entities(&filter).await?;
        count += page.entities.len() as u64;
        filter.after = page.entities.last().map(address);
        if !page.more {
            return Ok(count);
        }
    }
}

/// Copies and verifies. `fence` gives the right to write a shard of the target; `told` hears of each entity that is
/// done. Nothing may change the source meanwhile. Without `consumers`, groups of consumers and rows of views stay
/// behind, and begin anew on the copy.
pub async fn copy<S: Store, T: Store>(
    source: &S,
    target: &T,
    fence: impl Fn(Shard) -> Fence,
    consumers: bool,
    now_ms: u64,
    mut told: impl FnMut(Step),
) -> Result<Counts, CopyError> {
    let lanes = (0..target.lanes()).map(|_| Batch::default()).collect();
    let mut copy = Copy { source, target, fence, lanes, counts: Counts::default() };
    let groups = if consumers { copy.groups_of_source().await? } else { Vec::new() };
    copy.for_entities(async |copy, address| {
        copy.entity(&address).await?;
        copy.counts.entities += 1;
        told(Step::Copying);
        Ok(())
    })
    .await?;
    copy.flush_all().await?;
    copy.receipts(now_ms).await?;
    copy.effects().await?;
    copy.timers().await?;
    copy.flush_all().await?;
    copy.tries().await?;
    if consumers {
        copy.view_rows().await?;
    }
    copy.flush_all().await?;
    copy.groups(&groups).await?;
    copy.for_entities(async |copy, address| {
        copy.compare(&address).await?;
        told(Step::Verifying);
        Ok(())
    })
    .await?;
    copy.compare_receipts(now_ms).await?;
    copy.compare_effects().await?;
    copy.compare_timers().await?;
    if consumers {
        copy.compare_groups().await?;
        copy.compare_views().await?;
    }
    if count_entities(target).await.map_err(CopyError::Target)? != copy.counts.entities {
        return Err(different("the number of entities"));
    }
    copy.catalogue().await?;
    Ok(copy.counts)
}

#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    chores: Vec<Chore>,
    rows: usize,
    bytes: usize,
}

struct Copy<'a, S, T, F> {
    source: &'a S,
    target: &'a T,
    fence: F,
    lanes: Vec<Batch>,
    counts: Counts,
}

impl<S: Store, T: Store, F: Fn(Shard) -> Fence> Copy<'_, S, T, F> {
    async fn for_entities(
        &mut self,
        mut each: impl AsyncFnMut(&mut Self, Address) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        let mut filter = EntityFilter { limit: LIST_PAGE_MAX, ..EntityFilter::default() };
        loop {
            let page = self.source.entities(&filter).await.map_err(CopyError::Source)?;
            filter.after = page.entities.last().map(address);
            for entity in &page.entities {
                each(self, address(entity)).await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn entity(&mut self, address: &Address) -> Result<(), CopyError> {
        let loaded = self.source.load(address, None).await.map_err(CopyError::Source)?;
        let mut from = Seq(1);
        loop {
            let page = self.source.events(address, from, REPLAY_BATCH_EVENTS, REPLAY_BATCH_BYTES);
            let page = page.await.map_err(CopyError::Source)?;
            // Events before the first of the first page may be forgotten.
            let is_beginning = from == Seq(1);
            for stored in page.events {
                let after = Seq(stored.seq.0 - 1);
                let forgotten = is_beginning && from == Seq(1) && after > Seq::ZERO;
                from = stored.seq.plus(1);
                let snapshot = loaded.snapshot.as_ref().filter(|kept| kept.seq == stored.seq);
                self.counts.events += 1;
                self.counts.snapshots += u64::from(snapshot.is_some());
                let mut write = self.write(address, after, stored.at_ms);
                write.events.push(stored.event);
                write.forget_before = forgotten.then_some(stored.seq);
                write.snapshot = snapshot.map(|kept| kept.state.clone());
                self.queue(write).await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn receipts(&mut self, now_ms: u64) -> Result<(), CopyError> {
        let mut after: Option<(Address, Receipt)> = None;
        loop {
            let page = self.source.receipts(after.as_ref().map(place), now_ms, LIST_PAGE_MAX);
            let page = page.await.map_err(CopyError::Source)?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            after = Some(last);
            for (address, receipt) in page {
                let loaded = self.source.load(&address, None).await.map_err(CopyError::Source)?;
                let mut write = self.write(&address, loaded.seq, now_ms);
                write.receipt = Some(receipt);
                self.queue(write).await?;
                self.counts.receipts += 1;
            }
        }
    }

    fn write(&self, address: &Address, after: Seq, at_ms: u64) -> Write {
        Write::new(address.clone(), self.fence_of(address), after, at_ms)
    }

    fn fence_of(&self, address: &Address) -> Fence {
        (self.fence)(address.shard(self.target.shards()))
    }

    async fn chore(&mut self, fence: Fence, task: Task) -> Result<(), CopyError> {
        let chore = Chore { fence, task };
        let lane = fence.shard.0 as usize % self.lanes.len();
        let batch = &mut self.lanes[lane];
        batch.rows += chore.rows();
        batch.bytes += chore.bytes();
        batch.chores.push(chore);
        self.flush_if_full(lane).await
    }

    async fn queue(&mut self, write: Write) -> Result<(), CopyError> {
        let lane = write.fence.shard.0 as usize % self.lanes.len();
        let batch = &mut self.lanes[lane];
        batch.rows += write.rows();
        batch.bytes += write.bytes();
        batch.writes.push(write);
        self.flush_if_full(lane).await
    }

    async fn flush_if_full(&mut self, lane: usize) -> Result<(), CopyError> {
        let batch = &self.lanes[lane];
        match batch.rows >= COMMIT_ROWS_MAX || batch.bytes >= COMMIT_BYTES_MAX {
            true => self.flush(lane).await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self, lane: usize) -> Result<(), CopyError> {
        let batch = std::mem::take(&mut self.lanes[lane]);
        let mut fenced = Vec::new();
        if !batch.writes.is_empty() {
            fenced = self.target.import(&batch.writes).await.map_err(CopyError::Target)?;
        }
        if !batch.chores.is_empty() {
            let done = self.target.commit(&[], &batch.chores).await;
            fenced.extend(done.map_err(CopyError::Target)?);
        }
        if fenced.is_empty() { Ok(()) } else { Err(CopyError::Fenced) }
    }

    async fn flush_all(&mut self) -> Result<(), CopyError> {
        for lane in 0..self.lanes.len() {
            self.flush(lane).await?;
        }
        Ok(())
    }

    async fn compare(&self, address: &Address) -> Result<(), CopyError> {
        let source = self.source.load(address, None).await.map_err(CopyError::Source)?;
        let target = self.target.load(address, None).await.map_err(CopyError::Target)?;
        if (source.seq, source.snapshot) != (target.seq, target.snapshot) {
            return Err(different(&format!("the newest event or snapshot of {address}")));
        }
        let mut from = Seq(1);
        loop {
            let page = self.source.events(address, from, REPLAY_BATCH_EVENTS, REPLAY_BATCH_BYTES);
            let page = page.await.map_err(CopyError::Source)?;
            from = page.events.first().map_or(from, |first| first.seq);
            // Pages of two stores may end at different events.
            let mut copied = Vec::new();
            while copied.len() < page.events.len() {
                let rest = page.events.len() - copied.len();
                let next = from.plus(copied.len());
                let found = self.target.events(address, next, rest, REPLAY_BATCH_BYTES).await;
                let found = found.map_err(CopyError::Target)?;
                if found.events.is_empty() {
                    break;
                }
                copied.extend(found.events);
            }
            if copied != page.events {
                return Err(different(&format!("the journal of {address}")));
            }
            from = from.plus(page.events.len());
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn compare_receipts(&self, now_ms: u64) -> Result<(), CopyError> {
        let mut after: Option<(Address, Receipt)> = None;
        loop {
            let place = after.as_ref().map(place);
            let source = self.source.receipts(place, now_ms, LIST_PAGE_MAX).await;
            let target = self.target.receipts(place, now_ms, LIST_PAGE_MAX).await;
            let source = source.map_err(CopyError::Source)?;
            if source != target.map_err(CopyError::Target)? {
                return Err(different("the records of idempotency keys"));
            }
            let Some(last) = source.last().cloned() else { return Ok(()) };
            after = Some(last);
        }
    }

    async fn catalogue(&mut self) -> Result<(), CopyError> {
        for record in self.source.modules().await.map_err(CopyError::Source)? {
            let module = self.source.module(&record.digest).await.map_err(CopyError::Source)?;
            let Some((record, bytes)) = module else {
                return Err(different(&format!("module {}", record.digest)));
            };
            self.target.put_module(&record, &bytes).await.map_err(CopyError::Target)?;
            let copied = self.target.module(&record.digest).await.map_err(CopyError::Target)?;
            if copied.is_none_or(|copied| copied != (record.clone(), bytes)) {
                return Err(different(&format!("module {}", record.digest)));
            }
            self.counts.modules += 1;
        }
        let deployments = self.source.deployments().await.map_err(CopyError::Source)?;
        for record in &deployments {
            self.target.put_deployment(record).await.map_err(CopyError::Target)?;
            self.counts.revisions += 1;
        }
        match self.target.deployments().await.map_err(CopyError::Target)? == deployments {
            true => Ok(()),
            false => Err(different("the list of revisions")),
        }
    }
}

fn address(entity: &EntitySummary) -> Address {
    Address { journal: entity.journal.clone(), id: entity.id.clone() }
}

fn place(last: &(Address, Receipt)) -> (&Address, &str) {
    (&last.0, &last.1.key)
}

fn different(what: &str) -> CopyError {
    CopyError::Different { what: what.into() }
}
