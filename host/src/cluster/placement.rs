//! Which node should own which shard: weighted rendezvous hashing with bounded loads.
//!
//! Every pair of shard and node has a score, `capacity / -ln(u)`, where `u` in (0, 1) is a hash of the
//! pair; a shard prefers nodes by falling score, so that each node is preferred in proportion to its
//! capacity, and a node that comes or goes changes nothing between the others (Thaler and Ravishankar 1998;
//! weights: Schindler and Schomaker 2005). As in *Consistent Hashing with Bounded Loads* (Mirrokni, Thorup
//! and Zadimoghaddam 2018) no node gets more than `ceil(1.1 x its fair share)`.
//!
//! Bounds make shards spill from node to node, and recomputing all spills whenever a node comes or goes
//! would move shards that nobody needs to move. So the plan starts from who owns what now:
//!
//! 1. an owner keeps its shards, except the lowest-scored ones above its upper bound;
//! 2. each shard without an owner goes to its first preference that is below its upper bound, but to nodes
//!    below their lower bound, `floor(0.9 x fair share)`, once only as many shards are left as those lack;
//! 3. nodes still below their lower bound are filled up to it, with the shards that score highest with
//!    them, from nodes that have more than their fair share.
//!
//! Then all loads are within their bounds, and planning again from there changes nothing: a leave moves what
//! the leaver had, a join at most about what the newcomer gets. The bounds are whole shards. Where a change
//! of the number of nodes steps one, each node that is exactly at the old one may move one shard.
//!
//! Nothing is written or sent here. All nodes that see the same owners and candidates compute the same, in
//! whatever order they list them; where views differ, the compare-and-set in the store decides.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use crate::words::clock::BootTime;
use crate::words::limits::{
    MOVES_AT_ONCE_MAX, MOVES_PERCENT_MAX, MOVES_WINDOW, PLACEMENT_TOLERANCE_PERCENT,
};
use crate::words::{NodeId, Shard};

/// A node that may own shards. Who must not (draining, not seen for long enough, unfit) is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    /// How much it takes compared with the others. With 0 it takes nothing.
    pub capacity: u32,
}

/// Who should own each shard, given who does: index is the shard's number. `None` only without candidates.
/// From a `current` without owners it is the plan of a new cluster.
///
/// Takes time in the order of free shards x candidates: some milliseconds for 1,024 shards that 200 nodes
/// have not claimed yet, microseconds when nothing changes.
pub fn desired(current: &[Option<NodeId>], candidates: &[Candidate]) -> Vec<Option<NodeId>> {
    let mut plan = Plan::new(current, candidates);
    if plan.nodes.is_empty() {
        return vec![None; current.len()];
    }
    plan.release_above_high();
    plan.place_free();
    plan.fill_up_to_low();
    plan.owners.iter().map(|owner| owner.map(|at| plan.nodes[at].id)).collect()
}

/// The free shards that `me` should claim, in order.
pub fn claims(current: &[Option<NodeId>], desired: &[Option<NodeId>], me: NodeId) -> Vec<Shard> {
    pairs(current, desired)
        .filter(|(_, owner, to)| owner.is_none() && *to == Some(me))
        .map(|(shard, ..)| shard)
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub shard: Shard,
    pub to: NodeId,
}

/// What `me` should hand to whom now, at most `at_most` of it: see [`Pace`]. The rest follows when the plan
/// is made again from the owners that this leads to.
pub fn moves(
    current: &[Option<NodeId>],
    desired: &[Option<NodeId>],
    me: NodeId,
    at_most: usize,
) -> Vec<Move> {
    pairs(current, desired)
        .filter(|(_, owner, _)| *owner == Some(me))
        .filter_map(|(shard, _, to)| Some(Move { shard, to: to.filter(|to| *to != me)? }))
        .take(at_most)
        .collect()
}

fn pairs<'a>(
    current: &'a [Option<NodeId>],
    desired: &'a [Option<NodeId>],
) -> impl Iterator<Item = (Shard, Option<NodeId>, Option<NodeId>)> + 'a {
    (0..).map(Shard).zip(current).zip(desired).map(|((shard, owner), to)| (shard, *owner, *to))
}

/// How fast one node gives shards away: at most [`MOVES_PERCENT_MAX`] of all shards of the cluster (but one
/// at least) begun within [`MOVES_WINDOW`], and at most [`MOVES_AT_ONCE_MAX`] under way.
#[derive(Debug)]
pub struct Pace {
    moves_max: usize,
    /// When each move of the last window began; never more than `moves_max`.
    begun: VecDeque<BootTime>,
}

impl Pace {
    pub fn new(shards: u32) -> Self {
        let moves_max = (shards as usize * MOVES_PERCENT_MAX / 100).max(1);
        Self { moves_max, begun: VecDeque::new() }
    }

    /// How many moves may begin now.
    pub fn allows(&mut self, now: BootTime, under_way: usize) -> usize {
        while self.begun.front().is_some_and(|begun| now.since(*begun) >= MOVES_WINDOW) {
            self.begun.pop_front();
        }
        let in_window = self.moves_max.saturating_sub(self.begun.len());
        in_window.min(MOVES_AT_ONCE_MAX.saturating_sub(under_way))
    }

    pub fn begin(&mut self, now: BootTime, moves: usize) {
        self.begun.extend(std::iter::repeat_n(now, moves.min(self.moves_max)));
        while self.begun.len() > self.moves_max {
            self.begun.pop_front();
        }
    }
}

struct Plan {
    nodes: Vec<Node>,
    /// Places in `nodes`.
    owners: Vec<Option<usize>>,
    /// What all shards and all capacities come to, for shares.
    shards: u128,
    capacity: u128,
}

struct Node {
    id: NodeId,
    hash: u64,
    capacity: u32,
    load: u64,
    low: u64,
    high: u64,
}

impl Plan {
    fn new(current: &[Option<NodeId>], candidates: &[Candidate]) -> Self {
        let mut fit: Vec<_> = candidates.iter().filter(|c| c.capacity > 0).copied().collect();
        fit.sort_by_key(|candidate| (candidate.node, candidate.capacity));
        fit.dedup_by_key(|candidate| candidate.node);
        let shards = current.len() as u128;
        let capacity: u128 = fit.iter().map(|c| u128::from(c.capacity)).sum();
        let mut nodes: Vec<_> = fit
            .iter()
            .map(|candidate| {
                let share = shards * u128::from(candidate.capacity);
                let tolerance = u128::from(PLACEMENT_TOLERANCE_PERCENT);
                Node {
                    id: candidate.node,
                    hash: xxhash_rust::xxh3::xxh3_64(&candidate.node.0),
                    capacity: candidate.capacity,
                    load: 0,
                    low: (share * (100 - tolerance) / (100 * capacity)) as u64,
                    high: (share * (100 + tolerance)).div_ceil(100 * capacity) as u64,
                }
            })
            .collect();
        let places: HashMap<_, _> = fit.iter().enumerate().map(|(at, c)| (c.node, at)).collect();
        let owners: Vec<_> =
            current.iter().map(|owner| places.get(owner.as_ref()?).copied()).collect();
        for at in owners.iter().flatten() {
            nodes[*at].load += 1;
        }
        Self { nodes, owners, shards, capacity }
    }

    fn release_above_high(&mut self) {
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            let above = node.load.saturating_sub(node.high) as usize;
            if above == 0 {
                continue;
            }
            let owned = (0..self.owners.len()).filter(|shard| self.owners[*shard] == Some(at));
            let mut owned: Vec<_> = owned.map(|shard| (node.score(shard), shard)).collect();
            owned.sort_by(by_score);
            for (_, shard) in owned.into_iter().take(above) {
                self.owners[shard] = None;
            }
            self.nodes[at].load = self.nodes[at].high;
        }
    }

    fn place_free(&mut self) {
        let mut free = self.owners.iter().filter(|owner| owner.is_none()).count() as u64;
        let mut lacking: u64 = self.nodes.iter().map(Node::lacks).sum();
        for shard in 0..self.owners.len() {
            if self.owners[shard].is_some() {
                continue;
            }
            let only_lacking = free <= lacking;
            let open = self.nodes.iter().enumerate().filter(|(_, node)| match only_lacking {
                true => node.load < node.low,
                false => node.load < node.high,
            });
            let best = open.map(|(at, node)| (node.score(shard), at)).max_by(by_score);
            // There always is one: the upper bounds add up to more than all shards.
            let Some((_, at)) = best else { continue };
            lacking -= u64::from(self.nodes[at].lacks() > 0);
            free -= 1;
            self.nodes[at].load += 1;
            self.owners[shard] = Some(at);
        }
    }

    fn fill_up_to_low(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].lacks() == 0 {
                continue;
            }
            let node = &self.nodes[at];
            let mut all: Vec<_> =
                (0..self.owners.len()).map(|shard| (node.score(shard), shard)).collect();
            all.sort_by(|a, b| by_score(b, a));
            for (_, shard) in all {
                if self.nodes[at].lacks() == 0 {
                    break;
                }
                let Some(donor) = self.owners[shard] else { continue };
                if self.has_more_than_fair(donor) {
                    self.nodes[donor].load -= 1;
                    self.nodes[at].load += 1;
                    self.owners[shard] = Some(at);
                }
            }
        }
    }

    fn has_more_than_fair(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        u128::from(node.load) * self.capacity > self.shards * u128::from(node.capacity)
    }
}

impl Node {
    fn lacks(&self) -> u64 {
        self.low.saturating_sub(self.load)
    }

    fn score(&self, shard: usize) -> f64 {
        let hash = mix(self.hash ^ mix(shard as u64));
        // 52 bits, and a half, so that it is neither 0 nor 1.
        let u = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        f64::from(self.capacity) / -ln(u)
    }
}

/// Scores are never NaN. Between equal scores the place decides.
fn by_score(a: &(f64, usize), b: &(f64, usize)) -> Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// The finalizer of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The natural logarithm of a positive normal number, from operations that every machine rounds the same
/// way; a C library's is not the same everywhere, and all nodes must agree.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    // ln m = 2 artanh((m - 1) / (m + 1)), where the fraction is below 1/3.
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let zz = z * z;
    let mut sum = 0.0;
    for k in (0..14).rev() {
        sum = sum * zz + 1.0 / f64::from(2 * k + 1);
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * z * sum
}

#[cfg(test)]
mod tests;
