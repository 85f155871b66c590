//! What a shard takes with it when it leaves this node, and how its next owner takes it up.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::entity::house::{Entities, House};
use crate::entity::work;
use crate::words::{Address, Shard, clock, limits};

impl Entities {
    /// Empties a shard that was closed: waits until its commands have been answered (for a while), so
    /// that their writes are durable, and drops its instances. Returns the entities that were used most
    /// recently, for the next owner to load.
    pub async fn empty_shard(&self, shard: Shard) -> Vec<Address> {
        let house = &self.house;
        let emptied = house.holdings.emptied(shard);
        if tokio::time::timeout(limits::HANDOFF_TURNS_MAX, emptied).await.is_err() {
            let inside = house.holdings.inside(shard);
            tracing::warn!(%shard, inside, "commands did not end before their shard left");
        }
        let actors = house.of(shard);
        // Callers may have gone away before their writes were durable.
        let until = clock::now() + limits::HANDOFF_TURNS_MAX;
        for actor in &actors {
            if let Some(write) = actor.pending_write() {
                // Whether it was stored is its caller's news.
                let _ = tokio::time::timeout_at(until, write.ended()).await;
            }
        }
        let mut hot: Vec<_> = actors.into_iter().filter(|actor| actor.is_hot()).collect();
        hot.sort_by_cached_key(|actor| Reverse(*actor.used_at.lock()));
        let recent = hot.iter().take(limits::HANDOFF_WARM_MAX).map(|actor| actor.address.clone());
        let recent = recent.collect();
        self.drop_shard(shard);
        recent
    }

    /// Drops the instances of a shard that is not held any more; busy ones after their turn.
    pub fn drop_shard(&self, shard: Shard) {
        for actor in self.house.of(shard) {
            match actor.evict(None) {
                Some(hot) => self.house.dropped(&actor, *hot),
                None => actor.retire(),
            }
        }
    }

    /// Loads entities for which no command waits yet, of shards that are held. Returns when all are loaded
    /// or cannot be.
    pub async fn warm(&self, addresses: Vec<Address>) {
        let mut loads = tokio::task::JoinSet::new();
        for address in addresses.into_iter().take(limits::HANDOFF_WARM_MAX) {
            if let Some(load) = load(&self.house, &address) {
                loads.spawn(load);
            }
        }
        while loads.join_next().await.is_some() {}
    }
}

fn load(house: &Arc<House>, address: &Address) -> Option<impl Future<Output = ()> + Send + use<>> {
    house.holdings.epoch(house.holdings.shard_of(address))?;
    Some(work::warm(house.actor(address).load(house)?))
}
