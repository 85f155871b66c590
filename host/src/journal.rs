//! Floor 1: the journal, the only truth.
//!
//! [`Store`] is the contract with a database; [`Journal`] is the handle that the rest of the host
//! uses: it groups the writes of many entities into commits.

mod changes;
pub mod commit;
pub mod copy;
pub mod directory;
pub mod error;
pub mod holdings;
pub mod memory;
pub mod news;
pub mod postgres;
pub mod sqlite;
pub mod store;

#[cfg(test)]
mod conformance;

pub use commit::{AnyStore, Commit, Journal};

pub use error::{AppendError, OpenError, StoreError};
pub use holdings::Holdings;
pub use news::FeedNews;
pub use store::{
    Chore, Consumed, DeploymentRecord, DueTimer, EffectId, EntityFilter, EntityPage, EntitySummary,
    EventPage, FeedEntry, FeedPage, Fence, GroupPosition, Laggard, Loaded, ModuleRecord, NewEffect,
    NewRow, OutboxRow, Partition, Receipt, RowChange, Snapshot, Store, StoredCall, StoredEvent,
    Task, Timer, TimerChange, TimerRow, ViewQuery, ViewRange, ViewRow, Write,
};
