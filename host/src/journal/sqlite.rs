//! The embedded store: one SQLite file.

use std::path::Path;
use std::sync::Arc;

use crate::journal::error::OpenError;

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
