//! What a store must do.

use std::future::Future;

use bytes::Bytes;

use crate::journal::error::StoreError;
use crate::words::{Address, Digest, EntityId, Epoch, JournalName, Message, Revision, Seq, Shard};

/// The right to write: a shard, and the epoch under which the entity was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    pub shard: Shard,
    pub epoch: Epoch,
}

/// What one turn of one entity leaves behind.
#[derive(Clone, Debug)]
pub struct Write {
    pub address: Address,
    /// Checked by stores of clusters in the transaction that stores the write.
    pub fence: Fence,
    /// The sequence number that the entity had before: its events are numbered from `after + 1`.
    pub after: Seq,
    pub events: Vec<Message>,
    /// At most one, of the state after these events.
    pub snapshot: Option<Message>,
    pub receipt: Option<Receipt>,
    /// When the command came, milliseconds since 1970. Kept with every event.
    pub at_ms: u64,
}

impl Write {
    /// What it counts against the rows of a commit.
    pub fn rows(&self) -> usize {
        self.events.len()
            + usize::from(self.snapshot.is_some())
            + usize::from(self.receipt.is_some())
    }

    /// What it counts against the bytes of a commit.
    pub fn bytes(&self) -> usize {
        let events: usize = self.events.iter().map(Message::size).sum();
        let snapshot = self.snapshot.as_ref().map_or(0, Message::size);
        let receipt = self.receipt.as_ref().map_or(0, |r| r.key.len() + r.reply.len());
        events + snapshot + receipt
    }
}

/// The record of a command that carried an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub key: String,
    /// SHA-256 over method and payload.
    pub request_hash: [u8; 32],
    pub reply: Bytes,
    pub expires_at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The number of the last event that it contains.
    pub seq: Seq,
    pub state: Message,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub seq: Seq,
    pub at_ms: u64,
    pub event: Message,
}

/// What an activation starts from.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub snapshot: Option<Snapshot>,
    /// The number of the newest event, 0 for an entity without a journal.
    pub seq: Seq,
}

#[derive(Clone, Debug)]
pub struct EventPage {
    /// In order, without a gap, starting with the first event asked for.
    pub events: Vec<StoredEvent>,
    /// Whether the entity has events after these.
    pub more: bool,
}

#[derive(Clone, Debug, Default)]
pub struct EntityFilter {
    pub journal: Option<JournalName>,
    pub id_prefix: String,
    /// Addresses greater than this one only (the last of the page before).
    pub after: Option<Address>,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntitySummary {
    pub journal: JournalName,
    pub id: EntityId,
    pub seq: Seq,
}

#[derive(Clone, Debug, Default)]
pub struct EntityPage {
    pub entities: Vec<EntitySummary>,
    pub more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleRecord {
    pub digest: Digest,
    pub name: String,
    pub bytes: u64,
    pub uploaded_at_ms: u64,
}

/// A revision: which modules are live. The newest is the one in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRecord {
    pub revision: Revision,
    pub modules: Vec<Digest>,
    pub created_at_ms: u64,
    /// For people: `deploy cart.wasm`, `roll back to 3`.
    pub note: String,
}

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
/// - A write that the store cannot take for a reason of its own (its entity's rows are damaged, a
///   bound is reached) MUST fail the whole batch with [`StoreError::Refused`], which names it.
/// - `commit` MUST return [`StoreError::Conflict`], [`StoreError::Refused`], [`StoreError::Full`],
///   [`StoreError::Read`], [`StoreError::Corrupt`] or [`StoreError::Unavailable`] only if it is certain that nothing of the batch was
///   stored. The store goes on.
/// - If the outcome is unknown, `commit` MUST return [`StoreError::Poisoned`], and MUST refuse every later
///   commit with it until the store is opened again.
/// - A read that starts after `commit` returned MUST see the batch. Reads MUST NOT wait for commits.
/// - An event MUST be returned exactly as written, with its number, as long as the entity lives.
/// - Dropping the future of a read leaves the store as it was. `commit` is called by one task for each
///   lane, one batch at a time, and its future is never dropped before it ends. All writes of a batch are
///   of shards of the same lane: a shard's number modulo [`lanes`](Store::lanes).
pub trait Store: Send + Sync + 'static {
    /// How many batches may be on their way at once.
    fn lanes(&self) -> usize {
        1
    }

    /// Stores a batch, but for the writes with the fences that it returns.
    fn commit(
        &self,
        batch: &[Write],
    ) -> impl Future<Output = Result<Vec<Fence>, StoreError>> + Send;

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

    /// Ends background work and closes files. Later calls fail.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A deployment whose number is not the newest plus one.
pub(super) fn deployment_conflict(revision: Revision) -> StoreError {
    let address = Box::new(Address::new("deployment", revision.to_string()));
    StoreError::Conflict { address, expected: Seq(revision.0.saturating_sub(1)) }
}
