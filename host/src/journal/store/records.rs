//! What a store gives back, and its modules and revisions.

use crate::words::{Address, Digest, EntityId, Grants, JournalName, Message, Revision, Seq};

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
    pub grants: Grants,
}
