//! The embedded store: one SQLite file.
//!
//! A commit appends its events to one table, in commit order and without an index: that is what makes
//! it fast. Where the events of an entity lie is kept in memory, until they are packed into segments
//! by entity, behind the hot path. Reads never wait for commits.
//!
//! A `LIMIT` is written `? + 0`: SQLite plans by the value of a bare parameter, and would compile the statement
//! anew after each binding.

mod catalogue;
mod draft;
mod fault;
mod feed;
mod index;
mod open;
mod outbox;
mod pack;
mod read;
mod readers;
mod rows;
mod segment;
mod sweep;
mod views;
mod writer;

#[cfg(test)]
pub mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Mutex as SyncMutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak,
};

use bytes::Bytes;
use sqlx::Connection;
use tokio::sync::{Mutex, Notify};

use crate::journal::error::{OpenError, StoreError};
use crate::journal::sqlite::index::{Index, Types};
use crate::journal::sqlite::readers::Readers;
use crate::journal::sqlite::writer::Writer;
use crate::journal::store::{
    Chore, DeploymentRecord, DueTimer, EffectId, EntityFilter, EntityPage, EventPage, FeedPage,
    Fence, GroupPosition, Laggard, Loaded, ModuleRecord, OutboxRow, Partition, Receipt, RowChange,
    Store, TimerRow, ViewQuery, ViewRow, Write,
};
use crate::words::limits::{
    LIST_PAGE_MAX, MESSAGE_TYPES_MAX, PACK_AT_CLOSE_MAX, PACK_RETRY_AFTER, PACK_SLICE_BYTES,
    PACK_SLICE_ENTITIES, RECEIPT_SWEEP_EVERY, RECEIPT_SWEEP_ROWS, SEGMENT_BYTES_MAX,
    SEGMENT_MERGE_BYTES_MAX, TAIL_BYTES_MAX, TAIL_ROWS_MAX,
};
use crate::words::{Address, Digest, JournalName, Seq, Shard, clock};

/// When events are packed, and how. The defaults are for use; tests take small numbers.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Unpacked events at which the packer starts, and their bytes in memory.
    pub tail_rows_max: usize,
    pub tail_bytes_max: usize,
    pub segment_bytes_max: usize,
    pub segment_merge_bytes_max: usize,
    pub pack_slice_bytes: usize,
    pub pack_slice_entities: usize,
    pub message_types_max: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            tail_rows_max: TAIL_ROWS_MAX,
            tail_bytes_max: TAIL_BYTES_MAX,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            segment_merge_bytes_max: SEGMENT_MERGE_BYTES_MAX,
            pack_slice_bytes: PACK_SLICE_BYTES,
            pack_slice_entities: PACK_SLICE_ENTITIES,
            message_types_max: MESSAGE_TYPES_MAX,
        }
    }
}

pub use open::FILE;

/// Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    options: SqliteOptions,
    writer: Mutex<Writer>,
    readers: Readers,
    listers: Readers,
    index: SyncMutex<Index>,
    types: RwLock<Types>,
    poisoned: OnceLock<Arc<str>>,
    closing: AtomicBool,
    /// Up to where the feed was swept of what is forgotten. One round of packing at a time has it.
    packing: Mutex<i64>,
    wake: Arc<Notify>,
    lock: SyncMutex<Option<File>>,
}

impl SqliteStore {
    /// Opens (or creates) `stead.db` in a data directory, takes its exclusive lock, and migrates its
    /// schema.
    pub async fn open(data_dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(data_dir, SqliteOptions::default()).await
    }

    pub async fn open_with(data_dir: &Path, options: SqliteOptions) -> Result<Self, OpenError> {
        let inner = Arc::new(open::open(data_dir, options).await?);
        tokio::spawn(housekeep(Arc::downgrade(&inner), inner.wake.clone()));
        if inner.index().rows() >= inner.options.tail_rows_max {
            inner.wake.notify_one();
        }
        Ok(Self(inner))
    }
}

#[cfg(test)]
impl SqliteStore {
    pub(super) async fn pack_now(&self) {
        self.0.pack(None).await.unwrap();
    }

    /// Runs a statement on the connection that writes.
    pub(super) async fn meddle(&self, statement: &'static str) {
        let mut writer = self.0.writer.lock().await;
        sqlx::query(statement).execute(writer.connection.as_mut().unwrap()).await.unwrap();
    }
}

/// Packs when there is enough to pack, and forgets receipts that have expired. Ends with the store.
async fn housekeep(inner: Weak<Inner>, wake: Arc<Notify>) {
    let mut sweep = tokio::time::interval(RECEIPT_SWEEP_EVERY);
    let mut pack_at = clock::now();
    loop {
        let is_pack = tokio::select! {
            () = wake.notified() => true,
            _ = sweep.tick() => false,
        };
        let Some(inner) = inner.upgrade() else { return };
        if inner.is_closing() {
            return;
        }
        // Every commit wakes the packer while there is much to pack.
        if is_pack && clock::now() < pack_at {
            continue;
        }
        let done = match is_pack {
            true => inner.pack(None).await,
            false => inner.sweep_receipts(clock::unix_ms()).await,
        };
        if let Err(error) = done {
            // The journal is whole, only longer than it could be. A later commit tries again.
            pack_at = clock::now() + PACK_RETRY_AFTER;
            tracing::warn!(%error, "housekeeping of the journal failed");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Inner {
    fn new(
        options: SqliteOptions,
        writer: Mutex<Writer>,
        readers: Readers,
        listers: Readers,
        index: Index,
        types: Types,
        lock: File,
    ) -> Self {
        Self {
            options,
            writer,
            readers,
            listers,
            index: SyncMutex::new(index),
            types: RwLock::new(types),
            poisoned: OnceLock::new(),
            closing: AtomicBool::new(false),
            packing: Mutex::new(0),
            wake: Arc::default(),
            lock: SyncMutex::new(Some(lock)),
        }
    }

    // Nothing panics while it holds these two, so a poisoned lock cannot be.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn types(&self) -> RwLockReadGuard<'_, Types> {
        self.types.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_types(&self, new: Vec<(Arc<str>, i64)>) {
        let mut types = self.types.write().unwrap_or_else(PoisonError::into_inner);
        new.into_iter().for_each(|(name, number)| types.insert(name, number));
    }

    fn poison(&self, reason: Arc<str>) -> StoreError {
        let reason = self.poisoned.get_or_init(|| reason).clone();
        StoreError::Poisoned { reason }
    }

    fn refuse_if_poisoned(&self) -> Result<(), StoreError> {
        match self.poisoned.get() {
            Some(reason) => Err(StoreError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn closed(&self) -> StoreError {
        StoreError::Poisoned { reason: "the store is closed".into() }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    async fn sweep_receipts(&self, now_ms: u64) -> Result<(), StoreError> {
        loop {
            let delete = sqlx::query(
                "DELETE FROM receipt WHERE (entity, key) IN \
                 (SELECT entity, key FROM receipt WHERE expires_at_ms <= ? LIMIT ? + 0)",
            );
            let delete = delete.bind(now_ms as i64).bind(RECEIPT_SWEEP_ROWS);
            if self.write_one(delete).await? < RECEIPT_SWEEP_ROWS as u64 || self.is_closing() {
                return Ok(());
            }
        }
    }

    async fn close(&self) {
        if self.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.poisoned.get().is_none()
            && let Err(error) = self.pack(Some(clock::now() + PACK_AT_CLOSE_MAX)).await
        {
            tracing::warn!(%error, "the journal was closed without being packed");
        }
        self.readers.close().await;
        self.listers.close().await;
        // The last connection to close moves the log into the file.
        if let Some(connection) = self.writer.lock().await.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the journal was not closed cleanly; the next start repairs it");
        }
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Store for SqliteStore {
    async fn commit(&self, batch: &[Write], chores: &[Chore]) -> Result<Vec<Fence>, StoreError> {
        self.0.commit(batch, chores, false).await?;
        Ok(Vec::new())
    }

    async fn import(&self, batch: &[Write]) -> Result<Vec<Fence>, StoreError> {
        self.0.commit(batch, &[], true).await?;
        Ok(Vec::new())
    }

    async fn load(&self, address: &Address, at: Option<Seq>) -> Result<Loaded, StoreError> {
        read::load(&self.0, address, at).await
    }

    async fn events(
        &self,
        address: &Address,
        from: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<EventPage, StoreError> {
        read::events(&self.0, address, from, limit, bytes_max).await
    }

    async fn receipt(
        &self,
        address: &Address,
        key: &str,
        now_ms: u64,
    ) -> Result<Option<Receipt>, StoreError> {
        read::receipt(&self.0, address, key, now_ms).await
    }

    async fn receipts(
        &self,
        after: Option<(&Address, &str)>,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Address, Receipt)>, StoreError> {
        read::receipts(&self.0, after, now_ms, limit).await
    }

    async fn entities(&self, filter: &EntityFilter) -> Result<EntityPage, StoreError> {
        read::entities(&self.0, filter).await
    }

    async fn count_entities(
        &self,
        journal: &JournalName,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let mut count = 0;
        let mut filter = EntityFilter { journal: Some(journal.clone()), ..EntityFilter::default() };
        loop {
            filter.limit = (limit - count).min(LIST_PAGE_MAX);
            let page = read::entities(&self.0, &filter).await?;
            count += page.entities.len();
            let last = page.entities.into_iter().next_back();
            filter.after = last.map(|entity| Address { journal: entity.journal, id: entity.id });
            if !page.more || count >= limit {
                return Ok(count);
            }
        }
    }

    async fn outbox(
        &self,
        shards: &[Shard],
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        outbox::outbox(&self.0, shards, after, limit).await
    }

    async fn dead_letters(
        &self,
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        outbox::dead_letters(&self.0, after, limit).await
    }

    async fn effect(&self, id: EffectId) -> Result<Option<OutboxRow>, StoreError> {
        outbox::effect(&self.0, id).await
    }

    async fn outbox_of(
        &self,
        source: &Address,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        outbox::outbox_of(&self.0, source, limit).await
    }

    async fn timers(
        &self,
        shards: &[Shard],
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        outbox::timers(&self.0, shards, until_ms, limit).await
    }

    async fn timers_of(
        &self,
        address: &Address,
        limit: usize,
    ) -> Result<Vec<TimerRow>, StoreError> {
        outbox::timers_of(&self.0, address, None, limit).await
    }

    async fn timer(&self, address: &Address, name: &str) -> Result<Option<TimerRow>, StoreError> {
        Ok(outbox::timers_of(&self.0, address, Some(name), 1).await?.pop())
    }

    async fn list_timers(
        &self,
        after: Option<(&Address, &str)>,
        limit: usize,
    ) -> Result<Vec<TimerRow>, StoreError> {
        outbox::list_timers(&self.0, after, limit).await
    }

    async fn feed(
        &self,
        _partition: Partition,
        from_off: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<FeedPage, StoreError> {
        feed::feed(&self.0, from_off, limit, bytes_max).await
    }

    async fn feed_ends(&self) -> Result<Vec<GroupPosition>, StoreError> {
        Ok(vec![feed::end(&self.0).await?])
    }

    async fn groups(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        feed::groups(&self.0, after, limit).await
    }

    async fn group_positions(&self, group: &str) -> Result<Vec<GroupPosition>, StoreError> {
        feed::positions(&self.0, group).await
    }

    async fn laggards(
        &self,
        group: &str,
        partitions: &[Partition],
        limit: usize,
    ) -> Result<Vec<Laggard>, StoreError> {
        feed::laggards(&self.0, group, partitions, limit).await
    }

    async fn delete_group(&self, group: &str) -> Result<(), StoreError> {
        feed::delete_group(&self.0, group).await
    }

    async fn view_row(&self, view: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
        views::row(&self.0, view, key).await
    }

    async fn view_rows(&self, view: &str, query: &ViewQuery) -> Result<Vec<ViewRow>, StoreError> {
        views::rows(&self.0, view, query).await
    }

    async fn list_view(
        &self,
        view: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RowChange>, StoreError> {
        views::list(&self.0, view, after, limit).await
    }

    async fn views(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        views::names(&self.0, after, limit).await
    }

    async fn delete_view(&self, view: &str) -> Result<(), StoreError> {
        views::delete(&self.0, view).await
    }

    async fn put_module(&self, record: &ModuleRecord, bytes: &Bytes) -> Result<(), StoreError> {
        catalogue::put_module(&self.0, record, bytes).await
    }

    async fn module(&self, digest: &Digest) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
        catalogue::module(&self.0, digest).await
    }

    async fn modules(&self) -> Result<Vec<ModuleRecord>, StoreError> {
        catalogue::modules(&self.0).await
    }

    async fn put_deployment(&self, record: &DeploymentRecord) -> Result<(), StoreError> {
        catalogue::put_deployment(&self.0, record).await
    }

    async fn deployments(&self) -> Result<Vec<DeploymentRecord>, StoreError> {
        catalogue::deployments(&self.0).await
    }

    async fn newest_deployment(&self) -> Result<Option<DeploymentRecord>, StoreError> {
        catalogue::newest_deployment(&self.0).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
