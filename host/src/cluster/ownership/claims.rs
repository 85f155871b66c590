//! Who claims which free shard, and who may be given shards at all.

use std::collections::HashMap;

use crate::cluster::ownership::{NodeRow, NodeState, Observer, ShardRow, Timing};
use crate::cluster::placement::{self, Candidate};
use crate::words::clock::BootTime;
use crate::words::limits::{CLAIM_ANY_AFTER, CLAIM_FULL_AFTER, CLAIM_NEW_AFTER};
use crate::words::{Epoch, NodeId, Shard};

/// The nodes that may be given shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eligible {
    pub nodes: Vec<Candidate>,
    /// No node can serve the live revision, so those that cannot are taken.
    pub is_fallback: bool,
}

impl Eligible {
    /// Active nodes that renew their leases and can serve the live revision; if none can, all of them.
    pub fn of<'r>(
        rows: impl IntoIterator<Item = &'r NodeRow>,
        observer: &Observer,
        now: BootTime,
        timing: &Timing,
    ) -> Self {
        let fit = |row: &&NodeRow| {
            row.state == NodeState::Active && !observer.is_late(row.id, now, timing)
        };
        let active: Vec<_> = rows.into_iter().filter(fit).collect();
        let whole = active.iter().filter(|row| row.broken.is_none());
        let nodes: Vec<_> = whole.map(|row| candidate(row)).collect();
        if nodes.is_empty() && !active.is_empty() {
            let nodes = active.into_iter().map(candidate).collect();
            return Self { nodes, is_fallback: true };
        }
        Self { nodes, is_fallback: false }
    }

    pub fn has(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|candidate| candidate.node == node)
    }

    /// Those that have been the same for a while, or own shards already: worth moving shards to.
    pub fn settled(
        &self,
        owners: &[Option<NodeId>],
        observer: &Observer,
        now: BootTime,
        timing: &Timing,
    ) -> Vec<Candidate> {
        let settled = |c: &&Candidate| {
            observer.is_stable(c.node, now, timing) || owners.contains(&Some(c.node))
        };
        self.nodes.iter().filter(settled).copied().collect()
    }
}

fn candidate(row: &NodeRow) -> Candidate {
    Candidate { node: row.id, capacity: row.capacity }
}

/// Since when shards have been free, on this node's clock.
#[derive(Default)]
pub struct Claims {
    free_since: HashMap<Shard, BootTime>,
    /// Nobody has owned any shard yet.
    is_new: bool,
}

impl Claims {
    /// All shards, as read at `read`.
    pub fn read(&mut self, read: BootTime, rows: &[ShardRow]) {
        let before = std::mem::take(&mut self.free_since);
        self.is_new = rows.iter().all(|row| row.epoch == Epoch(0));
        let free = rows.iter().filter(|row| row.owner.is_none() && !row.is_halted);
        self.free_since =
            free.map(|row| (row.shard, before.get(&row.shard).copied().unwrap_or(read))).collect();
    }

    pub fn free(&self) -> usize {
        self.free_since.len()
    }

    /// What this node should claim now: at once what the plan gives it, but for a new cluster, whose nodes
    /// start together; what nobody has claimed for a while, as far as there is room; and in the end anything.
    pub fn due(
        &self,
        me: NodeId,
        owners: &[Option<NodeId>],
        eligible: &Eligible,
        now: BootTime,
    ) -> Vec<Shard> {
        if self.free_since.is_empty() || !eligible.has(me) {
            return Vec::new();
        }
        let first = self.free_since.values().min();
        if self.is_new && first.is_none_or(|first| now.since(*first) < CLAIM_NEW_AFTER) {
            return Vec::new();
        }
        let plan = placement::desired(owners, &eligible.nodes);
        let is_free = |shard: &Shard| self.free_since.contains_key(shard);
        let mut due = placement::claims(owners, &plan, me);
        due.retain(is_free);
        let held = owners.iter().filter(|owner| **owner == Some(me)).count() + due.len();
        let mut room = share_max(owners.len(), me, eligible).saturating_sub(held);
        let mut late: Vec<_> =
            self.free_since.iter().map(|(shard, since)| (*shard, now.since(*since))).collect();
        late.sort_unstable();
        for (shard, free_for) in late {
            if due.contains(&shard) || free_for < CLAIM_ANY_AFTER {
                continue;
            }
            if room > 0 || free_for >= CLAIM_FULL_AFTER {
                room = room.saturating_sub(1);
                due.push(shard);
            }
        }
        due
    }
}

/// `ceil(1.1 x)` this node's share of all shards, by capacity.
fn share_max(shards: usize, me: NodeId, eligible: &Eligible) -> usize {
    let capacity = |c: &Candidate| u128::from(c.capacity);
    let all: u128 = eligible.nodes.iter().map(capacity).sum();
    let mine: u128 = eligible.nodes.iter().filter(|c| c.node == me).map(capacity).sum();
    let share = (shards as u128 * mine * 11).div_ceil((all * 10).max(1));
    usize::try_from(share).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::ownership::observer::tests::row;

    const TIMING: Timing = Timing::EXAMPLE;
    const ME: NodeId = NodeId([1; 16]);
    const OTHER: NodeId = NodeId([2; 16]);

    fn at(ms: u64) -> BootTime {
        BootTime::default() + Duration::from_millis(ms)
    }

    fn free(shards: u32) -> Vec<ShardRow> {
        let row = |shard| ShardRow {
            shard: Shard(shard),
            owner: None,
            epoch: Epoch(1),
            is_halted: shard == 0,
        };
        (0..shards).map(row).collect()
    }

    fn both() -> Eligible {
        let mut observer = Observer::new(ME);
        let rows = [row(ME, 1, 1), row(OTHER, 1, 1)];
        observer.polled(at(0), &rows, &TIMING);
        Eligible::of(&rows, &observer, at(0), &TIMING)
    }

    #[test]
    fn what_the_plan_gives_is_claimed_at_once_and_the_rest_by_anyone_later() {
        let mut claims = Claims::default();
        claims.read(at(0), &free(16));
        assert_eq!(claims.free(), 15);
        let owners = vec![None; 16];
        let due = |me, ms| claims.due(me, &owners, &both(), at(ms));
        let (mine, others) = (due(ME, 0), due(OTHER, 0));
        assert!(!mine.contains(&Shard(0)) && !others.contains(&Shard(0)));
        assert_eq!(mine.len() + others.len(), 15);
        assert!(mine.iter().all(|shard| !others.contains(shard)));
        // ceil(1.1 x 8), one of them perhaps halted.
        assert!((8..=9).contains(&due(ME, 2_000).len()));
        assert_eq!(due(ME, 5_000).len(), 15);
    }

    #[test]
    fn who_drains_or_cannot_serve_claims_nothing_unless_nobody_can() {
        let mut observer = Observer::new(ME);
        let broken = NodeRow { broken: Some("no".into()), ..row(ME, 1, 1) };
        let draining = NodeRow { state: NodeState::Draining, ..row(OTHER, 1, 1) };
        let rows = [broken.clone(), row(OTHER, 1, 1)];
        observer.polled(at(0), &rows, &TIMING);
        let eligible = Eligible::of(&rows, &observer, at(0), &TIMING);
        assert!(!eligible.has(ME) && eligible.has(OTHER) && !eligible.is_fallback);
        let eligible = Eligible::of(&[broken, draining], &observer, at(0), &TIMING);
        assert!(eligible.has(ME) && !eligible.has(OTHER) && eligible.is_fallback);
    }

    #[test]
    fn the_shards_of_a_new_cluster_wait_for_nodes_that_start_together() {
        let mut claims = Claims::default();
        let rows: Vec<_> =
            free(16).iter().map(|row| ShardRow { epoch: Epoch(0), ..*row }).collect();
        claims.read(at(0), &rows);
        assert!(claims.due(ME, &[None; 16], &both(), at(999)).is_empty());
        assert!(!claims.due(ME, &[None; 16], &both(), at(1_000)).is_empty());
    }

    #[test]
    fn late_nodes_are_given_nothing() {
        let mut observer = Observer::new(ME);
        let rows = [row(ME, 1, 1), row(OTHER, 1, 1)];
        observer.polled(at(0), &rows, &TIMING);
        observer.polled(at(3_001), &[row(ME, 1, 2), row(OTHER, 1, 1)], &TIMING);
        let eligible = Eligible::of(&rows, &observer, at(3_001), &TIMING);
        assert!(eligible.has(ME) && !eligible.has(OTHER));
    }

    #[test]
    fn only_settled_nodes_are_worth_a_move() {
        let mut observer = Observer::new(ME);
        observer.polled(at(0), &[row(ME, 1, 1)], &TIMING);
        let rows = [row(ME, 1, 2), row(OTHER, 1, 1)];
        observer.polled(at(11_000), &rows, &TIMING);
        let eligible = Eligible::of(&rows, &observer, at(12_000), &TIMING);
        let settled = |owners: &[_]| eligible.settled(owners, &observer, at(12_000), &TIMING).len();
        assert_eq!(settled(&[Some(ME)]), 1);
        assert_eq!(settled(&[Some(ME), Some(OTHER)]), 2);
        assert_eq!(eligible.settled(&[], &observer, at(23_000), &TIMING).len(), 2);
    }
}
