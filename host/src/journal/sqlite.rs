//! The embedded store: one SQLite file.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::journal::error::{OpenError, StoreError};
use crate::journal::store::*;
use crate::words::{Address, Digest, JournalName, Seq};

/// Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    _private: Arc<()>,
}

impl SqliteStore {
    /// Opens (or creates) `stead.db` in a data directory, takes its exclusive lock, and migrates its
    /// schema.
    pub async fn open(_data_dir: &Path) -> Result<Self, OpenError> {
        unreachable!()
    }
}

impl Store for SqliteStore {
    async fn commit(&self, _: &[Write]) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn load(&self, _: &Address, _: Option<Seq>) -> Result<Loaded, StoreError> {
        unreachable!()
    }
    async fn events(
        &self,
        _: &Address,
        _: Seq,
        _: usize,
        _: usize,
    ) -> Result<EventPage, StoreError> {
        unreachable!()
    }
    async fn receipt(&self, _: &Address, _: &str, _: u64) -> Result<Option<Receipt>, StoreError> {
        unreachable!()
    }
    async fn entities(&self, _: &EntityFilter) -> Result<EntityPage, StoreError> {
        unreachable!()
    }
    async fn count_entities(&self, _: &JournalName, _: usize) -> Result<usize, StoreError> {
        unreachable!()
    }
    async fn put_module(&self, _: &ModuleRecord, _: &Bytes) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn module(&self, _: &Digest) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
        unreachable!()
    }
    async fn modules(&self) -> Result<Vec<ModuleRecord>, StoreError> {
        unreachable!()
    }
    async fn put_deployment(&self, _: &DeploymentRecord) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn deployments(&self) -> Result<Vec<DeploymentRecord>, StoreError> {
        unreachable!()
    }
    async fn close(&self) {}
}
