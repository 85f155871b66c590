//! Shards that change hands, over the peer port.

use std::net::SocketAddr;

use futures_util::future::BoxFuture;

use crate::cluster::routes::RouteTable;
use crate::cluster::{Greeting, Handed, Messenger};
use crate::router::Peers;
use crate::router::wire::{TakeEntity, TakeShard};
use crate::words::{Address, Epoch, NodeId, Shard, clock, limits};

/// Tells other nodes what was handed to them.
#[derive(Clone)]
pub struct PeerMessenger {
    pub peers: Peers,
    pub routes: RouteTable,
}

impl Messenger for PeerMessenger {
    fn hand_over(&self, to: NodeId, handed: Vec<Handed>) -> BoxFuture<'static, bool> {
        let Self { peers, routes } = self.clone();
        Box::pin(async move {
            let Some(address) = routes.address(to) else { return false };
            let deadline = clock::now() + limits::HAND_OVER_MAX;
            let shards = handed.iter().map(TakeShard::new).collect();
            match peers.take(to, address, shards, deadline).await {
                Ok(taken) => taken,
                Err(status) => {
                    tracing::debug!(node = ?to, %status, "a node could not be told of its shards");
                    false
                }
            }
        })
    }

    fn greet(&self, node: NodeId, at: SocketAddr) -> BoxFuture<'static, Greeting> {
        let peers = self.peers.clone();
        Box::pin(async move { peers.greet(node, at).await })
    }
}

impl TakeShard {
    fn new(handed: &Handed) -> Self {
        let entity = |address: &Address| TakeEntity {
            journal: address.journal.as_str().into(),
            id: address.id.as_str().into(),
        };
        Self {
            shard: handed.shard.0,
            epoch: handed.epoch.0,
            recent: handed.recent.iter().map(entity).collect(),
        }
    }

    /// What the other side meant.
    pub(super) fn handed(self) -> Handed {
        let recent = self.recent.into_iter().take(limits::HANDOFF_WARM_MAX);
        Handed {
            shard: Shard(self.shard),
            epoch: Epoch(self.epoch),
            recent: recent.map(|entity| Address::new(entity.journal, entity.id)).collect(),
        }
    }
}
