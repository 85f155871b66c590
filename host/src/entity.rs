//! Floor 5: the life of an entity: its mailbox, its turns, activation and passivation, supervision.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::journal::{Journal, StoredEvent};
use crate::registry::{Method, Registry, Service};
use crate::words::clock::Instant;
use crate::words::telemetry::Metrics;
use crate::words::{Address, EntityId, JournalName, Message, Seq, Status};

/// One command on its way in.
#[derive(Clone)]
pub struct Request {
    pub service: Arc<Service>,
    pub method: Arc<Method>,
    /// The request message in protobuf's binary encoding; the entity key is read from it.
    pub payload: Bytes,
    pub metadata: Vec<(String, String)>,
    pub idempotency_key: Option<String>,
    pub deadline: Instant,
    /// Ties together all log lines of a call.
    pub request_id: Arc<str>,
}

#[derive(Clone, Debug)]
pub struct EntitiesConfig {
    pub hot_entities_max: usize,
    pub hot_bytes_max: usize,
}

/// An entity in memory, as operators see it.
#[derive(Clone, Debug)]
pub struct HotEntity {
    pub journal: JournalName,
    pub id: EntityId,
    pub seq: Seq,
    pub memory_bytes: usize,
    pub idle: Duration,
    pub queued: usize,
}

/// The last crash of an entity.
#[derive(Clone, Debug)]
pub struct CrashReport {
    pub at_ms: u64,
    /// `trap`, `deadline`, `memory`, ..: the label of the failure.
    pub what: &'static str,
    /// `handle AddItem`, `replay`, ..
    pub during: String,
    pub reason: String,
    pub backtrace: String,
    /// Crashes since the last success.
    pub consecutive: u32,
    /// When the next activation will be tried, milliseconds since 1970, while it backs off.
    pub retry_at_ms: Option<u64>,
}

/// The state of an entity at some sequence number, folded in a fresh instance.
#[derive(Clone, Debug)]
pub struct StateAt {
    pub seq: Seq,
    /// None if the guest has no snapshot to give.
    pub state: Option<Message>,
}

/// Every entity of this node. Cheap to clone.
#[derive(Clone)]
pub struct Entities {
    _private: Arc<()>,
}

impl Entities {
    pub fn new(
        _registry: Registry,
        _journal: Journal,
        _metrics: Metrics,
        _config: EntitiesConfig,
    ) -> Self {
        unreachable!()
    }

    /// Runs a command and returns the serialized reply once everything it saw is durable.
    pub async fn call(&self, _request: Request) -> Result<Bytes, Status> {
        unreachable!()
    }

    /// Hot entities in the order of their addresses, after `after`.
    pub fn hot(
        &self,
        _journal: Option<&JournalName>,
        _id_prefix: &str,
        _after: Option<&Address>,
        _limit: usize,
    ) -> Vec<HotEntity> {
        unreachable!()
    }

    pub fn hot_one(&self, _address: &Address) -> Option<HotEntity> {
        unreachable!()
    }

    pub fn hot_count(&self) -> usize {
        unreachable!()
    }

    pub fn crash(&self, _address: &Address) -> Option<CrashReport> {
        unreachable!()
    }

    /// Drops the instance after the turn that runs. False if it was not hot.
    pub async fn passivate(&self, _address: &Address) -> bool {
        unreachable!()
    }

    /// Folds the journal up to and including `at` (all of it, if none) in a fresh instance.
    pub async fn state(
        &self,
        _service: &Arc<Service>,
        _id: &EntityId,
        _at: Option<Seq>,
    ) -> Result<StateAt, Status> {
        unreachable!()
    }

    /// Refuses new commands with UNAVAILABLE, lets queued ones end, and returns when every write is
    /// durable.
    pub async fn drain(&self) {
        unreachable!()
    }
}

/// Reads events for operators; a page at a time.
pub async fn events(
    journal: &Journal,
    address: &Address,
    from: Seq,
    limit: usize,
) -> Result<(Vec<StoredEvent>, bool), Status> {
    let _ = (journal, address, from, limit);
    unreachable!()
}
