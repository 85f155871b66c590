//! A store in memory, for tests. It keeps the contract of [`Store`] but durability.

mod aside;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::journal::error::StoreError;
use crate::journal::memory::aside::Aside;
use crate::journal::store::{
    Chore, DeploymentRecord, DueTimer, EffectId, EntityFilter, EntityPage, EntitySummary,
    EventPage, FeedEntry, FeedPage, Fence, GroupPosition, Laggard, Loaded, ModuleRecord, OutboxRow,
    Partition, Receipt, RowChange, Snapshot, Store, StoredEvent, TimerRow, ViewQuery, ViewRow,
    Write, deployment_conflict,
};
use crate::words::limits::SNAPSHOTS_KEPT;
use crate::words::{Address, Digest, EntityId, Epoch, JournalName, Revision, Seq, Shard};

/// Cheap to clone; clones share the data.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    gate: Arc<RwLock<()>>,
    waiting: Arc<AtomicUsize>,
}

/// Commits wait for as long as this lives.
pub struct Hold {
    _gate: OwnedRwLockWriteGuard<()>,
}

#[derive(Default)]
struct State {
    entities: BTreeMap<Address, Entity>,
    /// Which event is at an offset: the first is 1.
    feed: Vec<(Address, Seq)>,
    aside: Aside,
    modules: BTreeMap<Digest, (ModuleRecord, Bytes)>,
    deployments: Vec<DeploymentRecord>,
    /// How often the newest of them was read.
    newest_read: usize,
    closed: bool,
    /// Errors for the next commits, for tests of what stands on a store.
    errors: VecDeque<StoreError>,
    /// What the next loads are followed by, one write each.
    after_loads: VecDeque<Write>,
    /// Shards that another writer has taken, at some epoch.
    taken: BTreeMap<Shard, Epoch>,
}

#[derive(Default)]
struct Entity {
    /// How many of the first events are dropped.
    dropped: usize,
    /// The event with the number n is at n - 1 - dropped.
    events: Vec<StoredEvent>,
    snapshots: Vec<Snapshot>,
    receipts: BTreeMap<String, Receipt>,
}

impl MemoryStore {
    /// Makes commits wait.
    pub async fn hold(&self) -> Hold {
        Hold { _gate: self.gate.clone().write_owned().await }
    }

    /// How many commits wait for a [`Hold`] to end.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Makes the next commit (or one after it, if others are to fail before) store nothing and fail.
    pub fn fail_next(&self, error: StoreError) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).errors.push_back(error);
    }

    /// Stores a write right after the next load (or one after it, if others are to follow before), as another
    /// node may.
    pub fn store_after_load(&self, write: Write) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).after_loads.push_back(write);
    }

    /// How often the newest deployment was read.
    pub fn newest_read(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).newest_read
    }

    /// From now on writes of this shard are fenced unless they carry this epoch.
    pub fn set_epoch(&self, shard: Shard, epoch: Epoch) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).taken.insert(shard, epoch);
    }

    /// The state is only ever changed by code that cannot panic halfway, so a poisoned lock is whole.
    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(StoreError::Read { reason: "the store is closed".into() });
        }
        Ok(state)
    }
}

impl Entity {
    fn seq(&self) -> Seq {
        Seq((self.dropped + self.events.len()) as u64)
    }

    /// The events from a number on.
    fn from(&self, seq: Seq) -> &[StoredEvent] {
        let first = usize::try_from(seq.0.max(1) - 1).unwrap_or(usize::MAX);
        &self.events[first.saturating_sub(self.dropped).min(self.events.len())..]
    }
}

impl MemoryStore {
    async fn store(&self, batch: &[Write], chores: &[Chore]) -> Result<Vec<Fence>, StoreError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _open = self.gate.read().await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.state()?;
        if let Some(error) = state.errors.pop_front() {
            return Err(error);
        }
        let fences = batch.iter().map(|write| write.fence);
        let fences = fences.chain(chores.iter().map(|chore| chore.fence));
        let fenced: Vec<Fence> = fences.filter(|fence| state.is_fenced(fence)).collect();
        let batch: Vec<&Write> =
            batch.iter().filter(|write| !fenced.contains(&write.fence)).collect();
        let chores: Vec<&Chore> =
            chores.iter().filter(|chore| !fenced.contains(&chore.fence)).collect();
        state.check(&batch)?;
        state.aside.check(&chores)?;
        batch.into_iter().for_each(|write| state.apply(write));
        chores.into_iter().for_each(|chore| state.aside.chore(chore));
        Ok(fenced)
    }
}

impl State {
    fn seq(&self, address: &Address) -> Seq {
        self.entities.get(address).map_or(Seq::ZERO, Entity::seq)
    }

    fn is_fenced(&self, fence: &Fence) -> bool {
        self.taken.get(&fence.shard).is_some_and(|epoch| *epoch != fence.epoch)
    }

    fn load(&self, address: &Address, at: Option<Seq>) -> Loaded {
        let Some(entity) = self.entities.get(address) else { return Loaded::default() };
        let snapshot = entity.snapshots.iter().rev().find(|s| at.is_none_or(|at| s.seq <= at));
        Loaded { snapshot: snapshot.cloned(), seq: entity.seq() }
    }

    fn check(&self, batch: &[&Write]) -> Result<(), StoreError> {
        let mut heads = BTreeMap::new();
        for write in batch {
            let head = heads.entry(&write.address).or_insert_with(|| self.seq(&write.address));
            if *head != write.after {
                let address = Box::new(write.address.clone());
                return Err(StoreError::Conflict { address, expected: write.after });
            }
            *head = head.plus(write.events.len());
        }
        Ok(())
    }

    fn apply(&mut self, write: &Write) {
        let entity = self.entities.entry(write.address.clone()).or_default();
        for event in &write.events {
            let seq = entity.seq().plus(1);
            entity.events.push(StoredEvent { seq, at_ms: write.at_ms, event: event.clone() });
            self.feed.push((write.address.clone(), seq));
        }
        if let Some(state) = &write.snapshot {
            let seq = entity.seq();
            entity.snapshots.retain(|snapshot| snapshot.seq != seq);
            entity.snapshots.push(Snapshot { seq, state: state.clone() });
            let excess = entity.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
            entity.snapshots.drain(..excess);
        }
        if let Some(receipt) = &write.receipt {
            entity.receipts.insert(receipt.key.clone(), receipt.clone());
        }
        if let Some(before) = write.forgotten_before() {
            let kept = entity.from(before).len();
            let gone = entity.events.len() - kept;
            entity.events.drain(..gone);
            entity.dropped += gone;
        }
        self.aside.write(write);
    }
}

impl Store for MemoryStore {
    async fn commit(&self, batch: &[Write], chores: &[Chore]) -> Result<Vec<Fence>, StoreError> {
        self.store(batch, chores).await
    }

    async fn import(&self, batch: &[Write]) -> Result<Vec<Fence>, StoreError> {
        for write in batch.iter().filter(|write| write.is_beginning()) {
            let mut state = self.state()?;
            let entity = state.entities.entry(write.address.clone()).or_default();
            if entity.seq() == Seq::ZERO {
                entity.dropped = write.after.0 as usize;
            }
        }
        self.store(batch, &[]).await
    }

    async fn fenced(&self, fences: &[Fence]) -> Result<Vec<Shard>, StoreError> {
        let state = self.state()?;
        let fenced = fences.iter().filter(|fence| state.is_fenced(fence));
        Ok(fenced.map(|fence| fence.shard).collect())
    }

    async fn load(&self, address: &Address, at: Option<Seq>) -> Result<Loaded, StoreError> {
        let mut state = self.state()?;
        let loaded = state.load(address, at);
        if let Some(write) = state.after_loads.pop_front() {
            state.apply(&write);
        }
        Ok(loaded)
    }

    async fn events(
        &self,
        address: &Address,
        from: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<EventPage, StoreError> {
        let state = self.state()?;
        let all = state.entities.get(address).map_or(&[][..], |entity| entity.from(from));
        let mut events = Vec::new();
        let mut bytes = 0;
        for event in all {
            if events.len() >= limit.max(1) || bytes >= bytes_max && !events.is_empty() {
                break;
            }
            bytes += event.event.size();
            events.push(event.clone());
        }
        let more = events.len() < all.len();
        Ok(EventPage { events, more })
    }

    async fn receipt(
        &self,
        address: &Address,
        key: &str,
        now_ms: u64,
    ) -> Result<Option<Receipt>, StoreError> {
        let state = self.state()?;
        let receipt = state.entities.get(address).and_then(|entity| entity.receipts.get(key));
        Ok(receipt.filter(|receipt| receipt.expires_at_ms > now_ms).cloned())
    }

    async fn receipts(
        &self,
        after: Option<(&Address, &str)>,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Address, Receipt)>, StoreError> {
        let state = self.state()?;
        let all = state.entities.iter().flat_map(|(address, entity)| {
            entity.receipts.values().map(move |receipt| (address, receipt))
        });
        let later = all.filter(|(address, receipt)| {
            receipt.expires_at_ms > now_ms
                && after.is_none_or(|after| (*address, receipt.key.as_str()) > after)
        });
        let copied = later.map(|(address, receipt)| (address.clone(), receipt.clone()));
        Ok(copied.take(limit).collect())
    }

    async fn entities(&self, filter: &EntityFilter) -> Result<EntityPage, StoreError> {
        let state = self.state()?;
        let start = match (&filter.after, &filter.journal) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(journal)) => {
                Bound::Included(Address { journal: journal.clone(), id: EntityId::from("") })
            }
            (None, None) => Bound::Unbounded,
        };
        let mut page = EntityPage::default();
        for (address, entity) in state.entities.range((start, Bound::Unbounded)) {
            let other = filter.journal.as_ref().is_some_and(|journal| *journal != address.journal);
            let id = address.id.as_str();
            if entity.events.is_empty() || other || !id.starts_with(&filter.id_prefix) {
                continue;
            }
            if page.entities.len() == filter.limit {
                page.more = true;
                break;
            }
            page.entities.push(EntitySummary {
                journal: address.journal.clone(),
                id: address.id.clone(),
                seq: entity.seq(),
            });
        }
        Ok(page)
    }

    async fn count_entities(
        &self,
        journal: &JournalName,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let state = self.state()?;
        let with_events = |(address, entity): &(&Address, &Entity)| {
            address.journal == *journal && !entity.events.is_empty()
        };
        Ok(state.entities.iter().filter(with_events).take(limit).count())
    }

    async fn outbox(
        &self,
        shards: &[Shard],
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let is_wanted = |row: &OutboxRow| !row.parked && shards.contains(&row.shard);
        Ok(self.state()?.aside.outbox(after, limit, is_wanted))
    }

    async fn dead_letters(
        &self,
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        Ok(self.state()?.aside.outbox(after, limit, |row| row.parked))
    }

    async fn effect(&self, id: EffectId) -> Result<Option<OutboxRow>, StoreError> {
        Ok(self.state()?.aside.effect(id))
    }

    async fn outbox_of(
        &self,
        source: &Address,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        Ok(self.state()?.aside.outbox(None, limit, |row| row.source == *source))
    }

    async fn timers(
        &self,
        shards: &[Shard],
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        Ok(self.state()?.aside.timers(shards, until_ms, limit))
    }

    async fn timers_of(
        &self,
        address: &Address,
        limit: usize,
    ) -> Result<Vec<TimerRow>, StoreError> {
        Ok(self.state()?.aside.timers_of(address, limit))
    }

    async fn timer(&self, address: &Address, name: &str) -> Result<Option<TimerRow>, StoreError> {
        Ok(self.state()?.aside.timer(address, name))
    }

    async fn list_timers(
        &self,
        after: Option<(&Address, &str)>,
        limit: usize,
    ) -> Result<Vec<TimerRow>, StoreError> {
        Ok(self.state()?.aside.list_timers(after, limit))
    }

    async fn feed(
        &self,
        _partition: Partition,
        from_off: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<FeedPage, StoreError> {
        let state = self.state()?;
        let first = usize::try_from(from_off.max(1) - 1).unwrap_or(usize::MAX);
        let mut page = FeedPage { entries: Vec::new(), next_off: from_off.max(1) };
        let mut bytes = 0;
        for (off, (address, seq)) in (1..).zip(&state.feed).skip(first) {
            let is_full = page.entries.len() >= limit.max(1) || bytes >= bytes_max;
            if is_full && !page.entries.is_empty() {
                break;
            }
            page.next_off = off + 1;
            let kept = state.entities.get(address).and_then(|entity| entity.from(*seq).first());
            let Some(stored) = kept.filter(|stored| stored.seq == *seq) else { continue };
            bytes += stored.event.size();
            page.entries.push(FeedEntry {
                off,
                address: address.clone(),
                seq: *seq,
                at_ms: stored.at_ms,
                event: stored.event.clone(),
            });
        }
        Ok(page)
    }

    async fn feed_ends(&self) -> Result<Vec<GroupPosition>, StoreError> {
        let off = self.state()?.feed.len() as u64 + 1;
        Ok(vec![GroupPosition { partition: Partition(0), off }])
    }

    async fn groups(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        Ok(self.state()?.aside.groups(after, limit))
    }

    async fn group_positions(&self, group: &str) -> Result<Vec<GroupPosition>, StoreError> {
        Ok(self.state()?.aside.group_positions(group))
    }

    async fn laggards(
        &self,
        group: &str,
        partitions: &[Partition],
        limit: usize,
    ) -> Result<Vec<Laggard>, StoreError> {
        Ok(self.state()?.aside.laggards(group, partitions, limit))
    }

    async fn delete_group(&self, group: &str) -> Result<(), StoreError> {
        self.state()?.aside.delete_group(group);
        Ok(())
    }

    async fn view_row(&self, view: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
        Ok(self.state()?.aside.view_row(view, key))
    }

    async fn view_rows(&self, view: &str, query: &ViewQuery) -> Result<Vec<ViewRow>, StoreError> {
        Ok(self.state()?.aside.view_rows(view, query))
    }

    async fn list_view(
        &self,
        view: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RowChange>, StoreError> {
        Ok(self.state()?.aside.list_view(view, after, limit))
    }

    async fn views(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        Ok(self.state()?.aside.views(after, limit))
    }

    async fn delete_view(&self, view: &str) -> Result<(), StoreError> {
        self.state()?.aside.delete_view(view);
        Ok(())
    }

    async fn put_module(&self, record: &ModuleRecord, bytes: &Bytes) -> Result<(), StoreError> {
        let mut state = self.state()?;
        state.modules.entry(record.digest).or_insert_with(|| (record.clone(), bytes.clone()));
        Ok(())
    }

    async fn module(&self, digest: &Digest) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
        Ok(self.state()?.modules.get(digest).cloned())
    }

    async fn modules(&self) -> Result<Vec<ModuleRecord>, StoreError> {
        let mut modules: Vec<_> =
            self.state()?.modules.values().map(|(record, _)| record.clone()).collect();
        modules.sort_by_key(|record| (record.uploaded_at_ms, record.digest));
        Ok(modules)
    }

    async fn put_deployment(&self, record: &DeploymentRecord) -> Result<(), StoreError> {
        let mut state = self.state()?;
        if record.revision != Revision(state.deployments.len() as u64 + 1) {
            return Err(deployment_conflict(record.revision));
        }
        state.deployments.push(record.clone());
        Ok(())
    }

    async fn deployments(&self) -> Result<Vec<DeploymentRecord>, StoreError> {
        Ok(self.state()?.deployments.clone())
    }

    async fn newest_deployment(&self) -> Result<Option<DeploymentRecord>, StoreError> {
        let mut state = self.state()?;
        state.newest_read += 1;
        Ok(state.deployments.last().cloned())
    }

    async fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}
