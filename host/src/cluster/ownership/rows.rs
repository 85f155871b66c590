//! What the store says of nodes and shards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::words::{Epoch, Incarnation, NodeId, Revision, Shard};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    Active,
    /// Gives its shards away, and takes none.
    Draining,
    /// Declared dead. It owns nothing until it has registered again.
    Fenced,
    /// Left on purpose.
    Gone,
}

impl NodeState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Fenced => "fenced",
            Self::Gone => "gone",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Active, Self::Draining, Self::Fenced, Self::Gone]
            .into_iter()
            .find(|state| state.name() == name)
    }

    /// Whether the node may hold a lease.
    pub fn is_member(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// Random for each process: tells two processes with one identity apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(pub [u8; 16]);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    pub id: NodeId,
    pub incarnation: Incarnation,
    /// Counts renewals.
    pub hb: u64,
    pub state: NodeState,
    pub process: Process,
    /// Where other nodes reach it. None: what the row holds is no address.
    pub peer_addr: Option<SocketAddr>,
    pub zone: Arc<str>,
    pub capacity: u32,
    pub version: Arc<str>,
    /// What the node serves.
    pub revision: Revision,
    /// Why it cannot serve all of it.
    pub broken: Option<Arc<str>>,
    pub started_at_ms: u64,
    /// For how long its lease is to be respected. None: it is of a version that does not say.
    pub lease: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRow {
    pub shard: Shard,
    pub owner: Option<(NodeId, Incarnation)>,
    pub epoch: Epoch,
    /// Nobody may claim it until an operator has looked.
    pub is_halted: bool,
}
