//! Group commit: one task writes what all entities have to write.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::SetOnce;

use crate::journal::error::{AppendError, StoreError};
use crate::journal::memory::MemoryStore;
use crate::journal::sqlite::SqliteStore;
use crate::journal::store::{
    DeploymentRecord, EntityFilter, EntityPage, EventPage, Loaded, ModuleRecord, Receipt, Write,
};
use crate::words::telemetry::Metrics;
use crate::words::{Address, Digest, JournalName, Seq};

/// A write on its way to the disk. Cheap to clone; many may wait for the same.
#[derive(Clone, Debug)]
pub struct Commit(Arc<SetOnce<Result<(), AppendError>>>);

impl Commit {
    /// The outcome, if it is known already.
    pub fn outcome(&self) -> Option<Result<(), AppendError>> {
        self.0.get().cloned()
    }

    /// Returns when the write is durable, or has failed.
    pub async fn wait(&self) -> Result<(), AppendError> {
        self.0.wait().await.clone()
    }
}

/// The stores that there are.
#[derive(Clone)]
pub enum AnyStore {
    Memory(MemoryStore),
    Sqlite(SqliteStore),
}

/// The journal of a node. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    _store: AnyStore,
}

impl Journal {
    /// Starts the task that commits.
    pub fn start(_store: AnyStore, _metrics: Metrics) -> Self {
        unreachable!()
    }

    /// Queues a write, in order: writes of one entity are stored in the order of their calls. Never
    /// waits: the number of commands in the house bounds the queue, and a full queue stops the write
    /// with [`AppendError::Stopped`].
    pub fn append(&self, _write: Write) -> Commit {
        unreachable!()
    }

    /// Why nothing is acknowledged any more, if so.
    pub fn stopped(&self) -> Option<Arc<str>> {
        unreachable!()
    }

    /// Commits what is queued, then closes the store. Later appends fail.
    pub async fn close(&self) {
        unreachable!()
    }

    pub async fn load(&self, _address: &Address, _at: Option<Seq>) -> Result<Loaded, StoreError> {
        unreachable!()
    }

    pub async fn events(
        &self,
        _address: &Address,
        _from: Seq,
        _limit: usize,
        _bytes_max: usize,
    ) -> Result<EventPage, StoreError> {
        unreachable!()
    }

    pub async fn receipt(
        &self,
        _address: &Address,
        _key: &str,
        _now_ms: u64,
    ) -> Result<Option<Receipt>, StoreError> {
        unreachable!()
    }

    pub async fn entities(&self, _filter: &EntityFilter) -> Result<EntityPage, StoreError> {
        unreachable!()
    }

    pub async fn count_entities(
        &self,
        _journal: &JournalName,
        _limit: usize,
    ) -> Result<usize, StoreError> {
        unreachable!()
    }

    pub async fn put_module(
        &self,
        _record: &ModuleRecord,
        _bytes: &Bytes,
    ) -> Result<(), StoreError> {
        unreachable!()
    }

    pub async fn module(
        &self,
        _digest: &Digest,
    ) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
        unreachable!()
    }

    pub async fn modules(&self) -> Result<Vec<ModuleRecord>, StoreError> {
        unreachable!()
    }

    pub async fn put_deployment(&self, _record: &DeploymentRecord) -> Result<(), StoreError> {
        unreachable!()
    }

    pub async fn deployments(&self) -> Result<Vec<DeploymentRecord>, StoreError> {
        unreachable!()
    }
}
