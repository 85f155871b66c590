//! Who owns which shard, as far as this node knows. The store is the truth; this is what calls are routed
//! by, and what answers of other nodes correct.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use crate::words::{Epoch, NodeId, Shard};

/// The owner of a shard at some epoch. No owner: it is free, or on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub owner: Option<NodeId>,
    pub epoch: Epoch,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct RouteTable(Arc<Inner>);

struct Inner {
    me: NodeId,
    shards: Vec<RwLock<Route>>,
    addresses: ArcSwap<HashMap<NodeId, SocketAddr>>,
    /// Stepped with each change.
    changed: watch::Sender<u64>,
    /// Somebody needs to know more than this table does.
    asked: Notify,
}

impl RouteTable {
    pub fn new(me: NodeId, shards: u32) -> Self {
        Self(Arc::new(Inner {
            me,
            shards: (0..shards).map(|_| RwLock::default()).collect(),
            addresses: ArcSwap::default(),
            changed: watch::Sender::new(0),
            asked: Notify::new(),
        }))
    }

    pub fn me(&self) -> NodeId {
        self.0.me
    }

    pub fn route(&self, shard: Shard) -> Route {
        self.0.shards.get(shard.0 as usize).map(|route| *route.read()).unwrap_or_default()
    }

    pub fn routes(&self) -> Vec<Route> {
        self.0.shards.iter().map(|route| *route.read()).collect()
    }

    /// Where other nodes reach a node.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.0.addresses.load().get(&node).copied()
    }

    /// The higher epoch wins. At the same epoch, an owner wins over none. True if it was news.
    pub fn learn(&self, shard: Shard, route: Route) -> bool {
        let news = self.learn_quietly(shard, route);
        if news {
            self.announce();
        }
        news
    }

    /// The same for many, with one announcement.
    pub fn learn_all(&self, routes: impl IntoIterator<Item = (Shard, Route)>) {
        let mut news = false;
        for (shard, route) in routes {
            news |= self.learn_quietly(shard, route);
        }
        if news {
            self.announce();
        }
    }

    fn learn_quietly(&self, shard: Shard, route: Route) -> bool {
        let Some(known) = self.0.shards.get(shard.0 as usize) else { return false };
        let mut known = known.write();
        let news = route.epoch > known.epoch
            || (route.epoch == known.epoch && known.owner.is_none() && route.owner.is_some());
        if news {
            *known = route;
        }
        news
    }

    /// Where the nodes are that the store knows.
    pub fn set_addresses(&self, addresses: HashMap<NodeId, SocketAddr>) {
        if **self.0.addresses.load() != addresses {
            self.0.addresses.store(Arc::new(addresses));
            self.announce();
        }
    }

    /// Wakes everybody who waits for a change: also when only this node's own readiness changed.
    pub fn announce(&self) {
        self.0.changed.send_modify(|generation| *generation += 1);
    }

    /// Changes with each change of any route or address. Subscribe before you look.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Asks for the store to be read soon: a route turned out to be wrong.
    pub fn ask_store(&self) {
        self.0.asked.notify_one();
    }

    /// Returns when somebody has called [`ask_store`](Self::ask_store). For one waiter.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId([1; 16]);
    const OTHER: NodeId = NodeId([2; 16]);

    #[test]
    fn the_higher_epoch_wins() {
        let table = RouteTable::new(ME, 4);
        let mine = Route { owner: Some(ME), epoch: Epoch(3) };
        assert!(table.learn(Shard(1), mine));
        assert!(!table.learn(Shard(1), Route { owner: Some(OTHER), epoch: Epoch(2) }));
        assert!(!table.learn(Shard(1), Route { owner: None, epoch: Epoch(3) }));
        assert_eq!(table.route(Shard(1)), mine);
        let free = Route { owner: None, epoch: Epoch(4) };
        assert!(table.learn(Shard(1), free));
        assert!(table.learn(Shard(1), Route { owner: Some(OTHER), epoch: Epoch(4) }));
        assert!(!table.learn(Shard(99), mine));
    }

    #[test]
    fn only_news_is_announced() {
        let table = RouteTable::new(ME, 4);
        let mut watch = table.watch();
        watch.mark_unchanged();
        table.learn_all([]);
        table.set_addresses(HashMap::new());
        assert!(!watch.has_changed().unwrap());
        table.learn_all([(Shard(0), Route { owner: None, epoch: Epoch(1) })]);
        assert!(watch.has_changed().unwrap());
    }
}
