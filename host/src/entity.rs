//! Floor 5: the life of an entity: its mailbox, its turns, activation and passivation, supervision.
//!
//! An entity that is in memory has an `Actor`. Its instance is owned by whoever runs its
//! turns at the moment: the task of the call itself if the entity was idle, otherwise one task that
//! works through the mailbox. Between turns it lies in the actor. So there is one turn at a time, in
//! the order of arrival, and an idle entity costs no task.
//!
//! A turn is synchronous. It ends by handing its write to the journal, in order, and the next turn
//! may begin at once: answers wait, each for the newest write that it could have seen.
//!
//! What a command asks for beside its events is stored in the same write. Once that is durable, the outbox
//! delivers its effects, its timers wait for their time, and another function may answer in its place; by then
//! the command has left its shard, so that no shard waits for another.

mod activation;
mod actor;
mod calls;
mod crash;
mod handoff;
mod house;
mod inspect;
mod operate;
mod outbox;
mod receipts;
mod residents;
mod stale;
mod timers;
mod turn;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::journal::{EffectId, Fence, TimerRow};
use crate::registry::{Method, Service};
use crate::words::clock::Instant;
use crate::words::{EntityId, JournalName, Seq, Status, Trail, limits};

pub use calls::{Called, Caller, OutCall};
pub use crash::CrashReport;
pub use house::{Entities, WeakEntities};
pub use inspect::StateAt;
pub use operate::PendingCounts;

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
    pub consistency: Consistency,
    /// Functions that it came through: none from a client.
    pub trail: Trail,
    pub origin: Origin,
    /// Its idempotency key was never used before for as long as this process holds the shard under the
    /// epoch: no receipt can exist. Never set for what comes from outside this process.
    pub fresh: Option<Fence>,
}

/// Who sends a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    #[default]
    Client,
    /// Another function: a forward, an effect, or a call.
    Function,
    /// The host, with the result of this effect of this workflow, of which it is sure under this fence.
    Result(EffectId, Fence),
    /// The host, because this timer is due.
    Timer(Arc<TimerRow>),
}

/// What an answer that is given from memory must be sure of. An answer to a command that stored events
/// is always sure: the store has checked the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Linearizable: this node's lease runs, so nobody else can have written.
    #[default]
    Leased,
    /// Linearizable, without relying on clocks: the store confirms the epoch first.
    Fenced,
    /// Whatever this node has.
    Stale,
}

impl Consistency {
    /// As headers and options write it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "leased" => Some(Self::Leased),
            "fenced" => Some(Self::Fenced),
            "stale" => Some(Self::Stale),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Fenced => "fenced",
            Self::Stale => "stale",
        }
    }
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The entity's shard is not held here (any more). The command changed nothing: it may be routed again.
    NotHere,
    Status(Status),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl CallError {
    /// For callers who cannot route it again.
    pub fn into_status(self) -> Status {
        match self {
            Self::NotHere => Status::unavailable(
                "the entity is moving to another node; nothing was changed, and a retry is safe",
            ),
            Self::Status(status) => status,
        }
    }
}

#[derive(Clone, Debug)]
pub struct EntitiesConfig {
    pub hot_entities_max: usize,
    /// Over all hot entities: [`limits::HOT_ENTITY_BYTES`] each, plus what their
    /// linear memories have grown by since they were instantiated.
    pub hot_bytes_max: usize,
    /// After so many failed tries an effect is parked.
    pub effect_tries_max: u32,
    /// Effects in memory. Others stay in the store until there is room.
    pub effects_in_memory_max: usize,
    /// Timers in memory, of those that are due soon. Others stay in the store until there is room.
    pub timers_in_memory_max: usize,
}

impl Default for EntitiesConfig {
    fn default() -> Self {
        Self {
            hot_entities_max: limits::HOT_ENTITIES_DEFAULT,
            hot_bytes_max: limits::HOT_BYTES_MIN,
            effect_tries_max: limits::EFFECT_TRIES_DEFAULT,
            effects_in_memory_max: limits::EFFECTS_IN_MEMORY_MAX,
            timers_in_memory_max: limits::TIMERS_IN_MEMORY_MAX,
        }
    }
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
