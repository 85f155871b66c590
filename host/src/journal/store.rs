//! What a store must do.

mod chore;
mod feed;
mod outbox;
mod records;
mod timers;
pub(super) mod views;
mod write;

use std::future::Future;

use bytes::Bytes;

use crate::journal::error::StoreError;
use crate::journal::holdings::ALONE_SHARDS;
use crate::words::{Address, Digest, JournalName, Revision, Seq, Shard};

pub use chore::{Chore, Task};
pub use feed::{Consumed, FeedEntry, FeedPage, GroupPosition, Laggard, Partition};
pub use outbox::{EffectId, NewEffect, OutboxRow, StoredCall};
pub use records::{
    DeploymentRecord, EntityFilter, EntityPage, EntitySummary, EventPage, Loaded, ModuleRecord,
    Snapshot, StoredEvent,
};
pub use timers::{DueTimer, Timer, TimerChange, TimerRow};
pub use views::{NewRow, RowChange, ViewQuery, ViewRange, ViewRow};
pub use write::{Fence, Receipt, Write};

/// A database that keeps journals.
///
/// Durability contract:
///
/// - [`commit`](Store::commit) MUST write all of its batch or nothing, and MUST NOT return `Ok`
///   before the batch would survive the loss of the process and of power.
/// - A write whose `after` is not the entity's newest sequence number MUST fail the whole batch with
///   [`StoreError::Conflict`], and leave the store unchanged.
/// - A write whose fence is not the shard's present owner and epoch MUST NOT be stored. It is named
///   in the answer of `commit`, which stores the other writes. A store that only one process can open
///   names none.
/// - What a write asks for beside its events (effects, timers) MUST be stored with it, or not at all. Chores are
///   stored in the same transaction as the writes of their batch, each under its own fence, and applied in
///   their order. Who sends one has waited for the write whose rows it changes.
/// - A [`Consumed`] whose `expected_off` is not the group's position MUST fail the whole batch with
///   [`StoreError::Moved`], and leave the store unchanged.
/// - Events that a write allows to forget MAY be dropped at any time after it is stored; the others, and always
///   the newest, MUST stay. What is not dropped has no gap: reading from a dropped number on starts with the
///   first event that is kept.
/// - A write that the store cannot take for a reason of its own (its entity's rows are damaged, a
///   bound is reached) MUST fail the whole batch with [`StoreError::Refused`], which names it.
/// - `commit` MUST return [`StoreError::Conflict`], [`StoreError::Moved`], [`StoreError::Refused`],
///   [`StoreError::Full`], [`StoreError::Read`], [`StoreError::Corrupt`] or [`StoreError::Unavailable`] only if it
///   is certain that nothing of the batch was stored, nor will be later. The store goes on.
/// - If the outcome is unknown, `commit` MUST return [`StoreError::Poisoned`], and MUST refuse every later
///   commit with it until the store is opened again. A store of a cluster returns [`StoreError::InDoubt`]
///   instead, as soon as it is certain that nothing of the batch will be stored later, and goes on.
/// - A read that starts after `commit` returned MUST see the batch. Reads MUST NOT wait for commits.
/// - An event MUST be returned exactly as written, with its number, unless it was forgotten.
/// - The feed of a partition MUST show events in the order of their commits, those of an entity in the order of
///   their numbers, and MUST NOT show an event below a place that it has named as `next_off`.
/// - Dropping the future of a read leaves the store as it was. `commit` is called by one task for each
///   lane, one batch at a time, and its future is never dropped before it ends. All writes and chores of a batch
///   are of shards of the same lane: a shard's number modulo [`lanes`](Store::lanes).
/// - Reads of rows that carry calls or payloads end early when those take more than
///   [`ROWS_READ_BYTES_MAX`](crate::words::limits::ROWS_READ_BYTES_MAX), but return one row at least if there is
///   one. Who pages asks until nothing comes.
pub trait Store: Send + Sync + 'static {
    /// How many batches may be on their way at once.
    fn lanes(&self) -> usize {
        1
    }

    /// Stores a batch, but for the writes and chores with the fences that it returns.
    fn commit(
        &self,
        batch: &[Write],
        chores: &[Chore],
    ) -> impl Future<Output = Result<Vec<Fence>, StoreError>> + Send;

    /// As `commit`, for copies: a write of an entity of which nothing is stored may begin at any number, if it
    /// allows to forget whatever is before its first event ([`Write::is_beginning`]).
    fn import(
        &self,
        batch: &[Write],
    ) -> impl Future<Output = Result<Vec<Fence>, StoreError>> + Send;

    /// How many shards there are: rows name them, from 0 on.
    fn shards(&self) -> u32 {
        ALONE_SHARDS
    }

    /// Which of these are not the shards' present owner and epoch.
    fn fenced(
        &self,
        fences: &[Fence],
    ) -> impl Future<Output = Result<Vec<Shard>, StoreError>> + Send {
        let _ = fences;
        async { Ok(Vec::new()) }
    }

    /// The newest snapshot with `seq <= at` (any, if `at` is none), and the newest event's number.
    fn load(
        &self,
        address: &Address,
        at: Option<Seq>,
    ) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Events from `from` on, in order: at most `limit` of them and about `bytes_max` bytes, at least
    /// one if there is one.
    fn events(
        &self,
        address: &Address,
        from: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<EventPage, StoreError>> + Send;

    /// The receipt of a command, unless it has expired.
    fn receipt(
        &self,
        address: &Address,
        key: &str,
        now_ms: u64,
    ) -> impl Future<Output = Result<Option<Receipt>, StoreError>> + Send;

    /// Receipts of all entities that have not expired, ordered by journal name, id and key (bytewise),
    /// from after a place on: at most `limit`.
    fn receipts(
        &self,
        after: Option<(&Address, &str)>,
        now_ms: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Address, Receipt)>, StoreError>> + Send;

    /// Entities with at least one event, ordered by journal name and id (bytewise).
    fn entities(
        &self,
        filter: &EntityFilter,
    ) -> impl Future<Output = Result<EntityPage, StoreError>> + Send;

    /// How many entities have a journal under this name; it may stop counting at `limit`.
    fn count_entities(
        &self,
        journal: &JournalName,
        limit: usize,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Effects of these shards that are not parked, by id, from after one on: at most `limit`.
    fn outbox(
        &self,
        shards: &[Shard],
        after: Option<EffectId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, StoreError>> + Send;

    /// Effects of all shards that are parked, by id, from after one on: at most `limit`.
    fn dead_letters(
        &self,
        after: Option<EffectId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, StoreError>> + Send;

    /// An effect, unless it has left the outbox.
    fn effect(
        &self,
        id: EffectId,
    ) -> impl Future<Output = Result<Option<OutboxRow>, StoreError>> + Send;

    /// Effects of an entity, parked or not, by id: at most `limit`.
    fn outbox_of(
        &self,
        source: &Address,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, StoreError>> + Send;

    /// Timers of these shards that are due up to a time, earliest first: at most `limit`.
    fn timers(
        &self,
        shards: &[Shard],
        until_ms: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<DueTimer>, StoreError>> + Send;

    /// Timers of an entity, by name (bytewise): at most `limit`.
    fn timers_of(
        &self,
        address: &Address,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<TimerRow>, StoreError>> + Send;

    fn timer(
        &self,
        address: &Address,
        name: &str,
    ) -> impl Future<Output = Result<Option<TimerRow>, StoreError>> + Send;

    /// Timers of all entities, ordered by journal name, id and name (bytewise), from after a place on: at most
    /// `limit`.
    fn list_timers(
        &self,
        after: Option<(&Address, &str)>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<TimerRow>, StoreError>> + Send;

    /// How many partitions the feed has: they are numbered from 0. Either one, or one for each shard, of the
    /// same number.
    fn partitions(&self) -> u32 {
        1
    }

    /// Events of a partition from a place on: at most `limit` of them and about `bytes_max` bytes, at least one
    /// if there is one.
    fn feed(
        &self,
        partition: Partition,
        from_off: u64,
        limit: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<FeedPage, StoreError>> + Send;

    /// The places after the newest events of all partitions: where "from now on" begins.
    fn feed_ends(&self) -> impl Future<Output = Result<Vec<GroupPosition>, StoreError>> + Send;

    /// Names of groups that have a position, ordered (bytewise), from after one on: at most `limit`.
    fn groups(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// Where a group is, by partition; partitions in which it has not begun are missing.
    fn group_positions(
        &self,
        group: &str,
    ) -> impl Future<Output = Result<Vec<GroupPosition>, StoreError>> + Send;

    /// Laggards of a group in these partitions: those that are not parked before those that are, what is due
    /// first before the others; at most `limit`.
    fn laggards(
        &self,
        group: &str,
        partitions: &[Partition],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Laggard>, StoreError>> + Send;

    /// Forgets a group. Nobody may consume in its name meanwhile.
    fn delete_group(&self, group: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn view_row(
        &self,
        view: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<ViewRow>, StoreError>> + Send;

    /// Rows of a view: at most `limit`.
    fn view_rows(
        &self,
        view: &str,
        query: &ViewQuery,
    ) -> impl Future<Output = Result<Vec<ViewRow>, StoreError>> + Send;

    /// All that there is of a view's rows, by key (bytewise), from after one on: at most `limit`.
    fn list_view(
        &self,
        view: &str,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RowChange>, StoreError>> + Send;

    /// Names of views that have rows, ordered (bytewise), from after one on: at most `limit`.
    fn views(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// Deletes all rows of a view, some at a time. Nobody may write to it meanwhile.
    fn delete_view(&self, view: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Stores a module. Idempotent.
    fn put_module(
        &self,
        record: &ModuleRecord,
        bytes: &Bytes,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn module(
        &self,
        digest: &Digest,
    ) -> impl Future<Output = Result<Option<(ModuleRecord, Bytes)>, StoreError>> + Send;

    fn modules(&self) -> impl Future<Output = Result<Vec<ModuleRecord>, StoreError>> + Send;

    /// Adds a revision. `record.revision` MUST be the newest plus one, else [`StoreError::Conflict`].
    fn put_deployment(
        &self,
        record: &DeploymentRecord,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Every revision, oldest first.
    fn deployments(&self)
    -> impl Future<Output = Result<Vec<DeploymentRecord>, StoreError>> + Send;

    /// The one with the highest revision; none before the first deployment.
    fn newest_deployment(
        &self,
    ) -> impl Future<Output = Result<Option<DeploymentRecord>, StoreError>> + Send;

    /// Ends background work and closes files. Later calls fail.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A deployment whose number is not the newest plus one.
pub(super) fn deployment_conflict(revision: Revision) -> StoreError {
    let address = Box::new(Address::new("deployment", revision.to_string()));
    StoreError::Conflict { address, expected: Seq(revision.0.saturating_sub(1)) }
}
