//! What the rest of the host reads of the journal, and its catalogue.

use bytes::Bytes;

use crate::journal::commit::{AnyStore, Journal, store};
use crate::journal::error::StoreError;
use crate::journal::store::{
    DeploymentRecord, DueTimer, EffectId, EntityFilter, EntityPage, EventPage, FeedPage, Fence,
    GroupPosition, Laggard, Loaded, ModuleRecord, OutboxRow, Partition, Receipt, Store, TimerRow,
    ViewQuery, ViewRow,
};
use crate::words::{Address, Digest, JournalName, Seq, Shard};

/// Each is described at [`Store`].
impl Journal {
    /// Which of these the store does not know as the shards' present owner and epoch.
    pub async fn fenced(&self, fences: &[Fence]) -> Result<Vec<Shard>, StoreError> {
        store!(&self.store, fenced(fences))
    }

    pub async fn load(&self, address: &Address, at: Option<Seq>) -> Result<Loaded, StoreError> {
        store!(&self.store, load(address, at))
    }

    pub async fn events(
        &self,
        address: &Address,
        from: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<EventPage, StoreError> {
        store!(&self.store, events(address, from, limit, bytes_max))
    }

    pub async fn receipt(
        &self,
        address: &Address,
        key: &str,
        now_ms: u64,
    ) -> Result<Option<Receipt>, StoreError> {
        store!(&self.store, receipt(address, key, now_ms))
    }

    pub async fn entities(&self, filter: &EntityFilter) -> Result<EntityPage, StoreError> {
        store!(&self.store, entities(filter))
    }

    pub async fn count_entities(
        &self,
        journal: &JournalName,
        limit: usize,
    ) -> Result<usize, StoreError> {
        store!(&self.store, count_entities(journal, limit))
    }

    pub async fn put_module(&self, record: &ModuleRecord, bytes: &Bytes) -> Result<(), StoreError> {
        store!(&self.store, put_module(record, bytes))
    }

    pub async fn module(
        &self,
        digest: &Digest,
    ) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
        store!(&self.store, module(digest))
    }

    pub async fn modules(&self) -> Result<Vec<ModuleRecord>, StoreError> {
        store!(&self.store, modules())
    }

    pub async fn put_deployment(&self, record: &DeploymentRecord) -> Result<(), StoreError> {
        store!(&self.store, put_deployment(record))
    }

    pub async fn deployments(&self) -> Result<Vec<DeploymentRecord>, StoreError> {
        store!(&self.store, deployments())
    }

    pub async fn newest_deployment(&self) -> Result<Option<DeploymentRecord>, StoreError> {
        store!(&self.store, newest_deployment())
    }

    pub async fn outbox(
        &self,
        shards: &[Shard],
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        store!(&self.store, outbox(shards, after, limit))
    }

    pub async fn dead_letters(
        &self,
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        store!(&self.store, dead_letters(after, limit))
    }

    pub async fn effect(&self, id: EffectId) -> Result<Option<OutboxRow>, StoreError> {
        store!(&self.store, effect(id))
    }

    pub async fn outbox_of(
        &self,
        source: &Address,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        store!(&self.store, outbox_of(source, limit))
    }

    pub async fn timers(
        &self,
        shards: &[Shard],
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        store!(&self.store, timers(shards, until_ms, limit))
    }

    pub async fn timers_of(
        &self,
        address: &Address,
        limit: usize,
    ) -> Result<Vec<TimerRow>, StoreError> {
        store!(&self.store, timers_of(address, limit))
    }

    pub async fn timer(
        &self,
        address: &Address,
        name: &str,
    ) -> Result<Option<TimerRow>, StoreError> {
        store!(&self.store, timer(address, name))
    }

    pub fn partitions(&self) -> u32 {
        match &self.store {
            AnyStore::Memory(store) => store.partitions(),
            AnyStore::Sqlite(store) => store.partitions(),
            AnyStore::Postgres(store) => store.partitions(),
        }
    }

    pub async fn feed(
        &self,
        partition: Partition,
        from_off: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<FeedPage, StoreError> {
        store!(&self.store, feed(partition, from_off, limit, bytes_max))
    }

    pub async fn feed_ends(&self) -> Result<Vec<GroupPosition>, StoreError> {
        store!(&self.store, feed_ends())
    }

    pub async fn groups(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        store!(&self.store, groups(after, limit))
    }

    pub async fn group_positions(&self, group: &str) -> Result<Vec<GroupPosition>, StoreError> {
        store!(&self.store, group_positions(group))
    }

    pub async fn laggards(
        &self,
        group: &str,
        partitions: &[Partition],
        limit: usize,
    ) -> Result<Vec<Laggard>, StoreError> {
        store!(&self.store, laggards(group, partitions, limit))
    }

    pub async fn delete_group(&self, group: &str) -> Result<(), StoreError> {
        store!(&self.store, delete_group(group))
    }

    pub async fn view_row(&self, view: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
        store!(&self.store, view_row(view, key))
    }

    pub async fn view_rows(
        &self,
        view: &str,
        query: &ViewQuery,
    ) -> Result<Vec<ViewRow>, StoreError> {
        store!(&self.store, view_rows(view, query))
    }

    pub async fn views(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        store!(&self.store, views(after, limit))
    }

    pub async fn delete_view(&self, view: &str) -> Result<(), StoreError> {
        store!(&self.store, delete_view(view))
    }
}
