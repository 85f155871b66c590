//! Who a member is, as SWIM tells one from another.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::words::{Incarnation, NodeId};

/// One life of a node at an address. Of two at the same address the later one wins and replaces the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Gossip (UDP) of the node reaches it here.
    pub addr: SocketAddr,
    pub node: NodeId,
    /// As the store registered it.
    pub incarnation: u64,
    /// When the process started, in milliseconds since 1970, plus 1 for each time that others thought it
    /// was down and it was not.
    pub bump: u64,
}

impl Identity {
    /// Stands for whoever listens there: only ever an addressee.
    pub fn whoever(addr: SocketAddr) -> Self {
        Self { addr, node: NodeId([0; 16]), incarnation: 0, bump: 0 }
    }

    /// How new the life is, among those of one node.
    pub fn age(&self) -> (u64, u64) {
        (self.incarnation, self.bump)
    }

    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }
}

impl foca::Identity for Identity {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self { bump: self.bump.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Incarnations of different nodes say nothing about each other: there the later start wins.
    fn win_addr_conflict(&self, other: &Self) -> bool {
        if self.node == other.node {
            return self.age() > other.age();
        }
        (self.bump, self.node) > (other.bump, other.node)
    }
}
