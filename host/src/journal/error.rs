//! What can go wrong with the journal.

use std::path::PathBuf;
use std::sync::Arc;

use crate::journal::store::{Fence, Partition};
use crate::words::{Address, Seq};

/// Why a store could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data directory {} is in use by another stead (process {pid}); stop it, or choose another with --data", path.display())]
    InUse { path: PathBuf, pid: String },
    #[error("data directory {} cannot be written: {reason}", path.display())]
    NotWritable { path: PathBuf, reason: String },
    #[error("{} was written by a newer stead (schema {found}, this one knows {known}); start that version, or restore a backup", path.display())]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("{} is damaged: {reason}; restore it from a backup", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("{} cannot be opened: {reason}", path.display())]
    Other { path: PathBuf, reason: String },
    #[error(
        "the store's URL is not one of PostgreSQL ({reason}); write it like postgres://user@host:5432/database"
    )]
    StoreUrl { reason: String },
    /// `store` is host, port and database, without credentials.
    #[error("the database {store} {problem}")]
    Database { store: String, problem: String },
    #[error(
        "the cluster in {store} has another cluster key; give this node the same STEAD_CLUSTER_KEY as the others (while the key is replaced, the other one as STEAD_CLUSTER_KEY_PREVIOUS)"
    )]
    ClusterKey { store: String },
    #[error(
        "the database {store} is in use: a node is registered there, or was not stopped cleanly; stop every node, or use a new database"
    )]
    StoreInUse { store: String },
    #[error(
        "the database {store} was set up by a newer stead (schema {found}, this one knows {known}); start that version"
    )]
    NewerStore { store: String, found: i64, known: i64 },
}

/// Why an operation of a store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Terminal for this batch; the store is unchanged and goes on.
    #[error("{address} is at another sequence number than {expected}")]
    Conflict { address: Box<Address>, expected: Seq },
    /// Terminal for this chore and those after it of the same group and partition; the store is unchanged and
    /// goes on.
    #[error("group {group} is at another place of partition {partition} than {expected}")]
    Moved { group: Arc<str>, partition: Partition, expected: u64 },
    /// Terminal for this write and those after it of the same entity; the store is unchanged and goes on.
    #[error("{address} cannot be written after {after}: {reason}")]
    Refused { address: Box<Address>, after: Seq, reason: Arc<str> },
    /// Terminal until the store is opened again. The batch in which it arose may or may not be stored.
    #[error("the journal stopped after a failed commit: {reason}")]
    Poisoned { reason: Arc<str> },
    /// Terminal for what the batch has for the shards in `unknown`: it may or may not be stored, and nobody can
    /// tell any more. Nothing was stored for those in `fenced`, and everything for the others; the store goes on.
    #[error("nobody can tell any more whether a commit was carried out: {reason}")]
    InDoubt { fenced: Vec<Fence>, unknown: Vec<Fence>, reason: Arc<str> },
    /// Transient: the disk is full. Nothing of the batch was stored; the store goes on.
    #[error("no space left for the journal: {reason}")]
    Full { reason: Arc<str> },
    /// Transient: the database cannot be reached or serves no writes. Nothing of the batch was stored.
    #[error("the journal's database is not available: {reason}")]
    Unavailable { reason: Arc<str> },
    /// A read failed; the store is unchanged.
    #[error("the journal cannot be read: {reason}")]
    Read { reason: Arc<str> },
    /// A read found bytes that cannot be right.
    #[error("the journal is damaged: {reason}")]
    Corrupt { reason: Arc<str> },
}

/// Why a write was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Not stored. The instance must be dropped; a retry is safe.
    #[error("another writer was first")]
    Conflict,
    /// Not stored, nor was anything after it of the same entity. A retry is safe.
    #[error("no space left for the journal")]
    Full,
    /// Not stored: as many writes wait as may. The instance must be dropped; a retry is safe.
    #[error("too many writes are waiting for the journal")]
    Busy,
    /// Not stored: the shard belongs to another node, or was loaded before it came back. Route again.
    #[error("the shard is not held under this epoch any more")]
    Fenced,
    /// Not stored: the database cannot be reached. A retry is safe.
    #[error("the journal's database is not available")]
    Unavailable,
    /// It may or may not be stored. The instance must be dropped; a retry is safe only with an idempotency key.
    #[error("it may or may not be stored: {reason}")]
    Unknown { reason: Arc<str> },
    /// Not stored: the journal had stopped before. A retry on a restarted node is safe.
    #[error("the journal has stopped: {reason}")]
    Stopped { reason: Arc<str> },
}
