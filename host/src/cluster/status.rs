//! What an operator sees of the cluster, from one node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::handle::Inner;
use crate::cluster::ownership::{NodeState, Timing};
use crate::words::clock;
use crate::words::{Incarnation, NodeId, Revision};

/// What gossip says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    Alive,
    Suspected,
    Down,
}

#[derive(Clone, Debug)]
pub struct ClusterStatus {
    pub me: NodeId,
    pub shards: usize,
    pub shards_free: usize,
    pub shards_halted: usize,
    /// On their way from this node to others.
    pub shards_moving: usize,
    /// The newest deployment.
    pub revision: Revision,
    /// How long this node may still answer from memory if it cannot renew its lease.
    pub lease_remaining: Duration,
    /// How long ago the store was last read.
    pub read_ago: Duration,
    /// The store did not answer the last time.
    pub is_stale: bool,
    /// By id.
    pub members: Vec<MemberStatus>,
    /// Where gossip and the store disagree, and what else should not be: sentences.
    pub disagreements: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct MemberStatus {
    pub node: NodeId,
    pub state: NodeState,
    /// None: gossip does not know the node, or it is this one.
    pub liveness: Option<Liveness>,
    pub incarnation: Incarnation,
    pub peer_addr: Option<SocketAddr>,
    /// How long ago its lease was renewed, as seen from here.
    pub lease_age: Duration,
    pub shards: usize,
    pub zone: Arc<str>,
    pub capacity: u32,
    pub version: Arc<str>,
    pub revision: Revision,
    /// Why it cannot serve the live revision.
    pub broken: Option<Arc<str>>,
    pub started_at_ms: u64,
}

pub(super) fn of(inner: &Inner) -> ClusterStatus {
    let view = inner.view.borrow().clone();
    let liveness = inner.liveness.borrow().clone();
    let now = clock::boot_time();
    let mut owned: HashMap<NodeId, usize> = HashMap::new();
    // Newer than the rows as they were read: hand-overs of this node, and what other nodes told.
    let routes = inner.routes.routes();
    for owner in routes.iter().filter_map(|route| route.owner) {
        *owned.entry(owner).or_default() += 1;
    }
    let members = view.nodes.iter().map(|row| MemberStatus {
        node: row.id,
        state: row.state,
        liveness: liveness.get(&row.id).copied(),
        incarnation: row.incarnation,
        peer_addr: row.peer_addr,
        lease_age: view.observer.age(row.id, now).unwrap_or_default(),
        shards: owned.get(&row.id).copied().unwrap_or_default(),
        zone: row.zone.clone(),
        capacity: row.capacity,
        version: row.version.clone(),
        revision: row.revision,
        broken: row.broken.clone(),
        started_at_ms: row.started_at_ms,
    });
    let mut members: Vec<_> = members.collect();
    members.sort_by_key(|member| member.node);
    let halted = view.shards.iter().filter(|row| row.is_halted).count();
    let ownerless = routes.iter().filter(|route| route.owner.is_none()).count();
    let mut disagreements = disagreements(inner.me(), &members, &liveness, &inner.timing);
    if halted > 0 {
        disagreements.push(format!(
            "{halted} shards are halted: acknowledged events are missing in the store; restore them before anybody may own these shards"
        ));
    }
    ClusterStatus {
        me: inner.me(),
        shards: inner.holdings.shards() as usize,
        shards_free: ownerless.saturating_sub(halted),
        shards_halted: halted,
        shards_moving: inner.grants.moving().len(),
        revision: view.revision,
        lease_remaining: inner.holdings.lease_until().since(now),
        read_ago: now.since(view.read),
        is_stale: view.is_stale,
        members,
        disagreements,
    }
}

fn disagreements(
    me: NodeId,
    members: &[MemberStatus],
    liveness: &HashMap<NodeId, Liveness>,
    timing: &Timing,
) -> Vec<String> {
    let mut told = Vec::new();
    let is_fresh = |member: &MemberStatus| member.lease_age <= timing.renew_every * 2;
    for member in members {
        let node = member.node;
        match (member.liveness, member.state.is_member(), is_fresh(member)) {
            (Some(Liveness::Down | Liveness::Suspected), true, true) if node != me => {
                told.push(format!(
                    "node {node} renews its lease, but does not answer gossip: is its peer port reachable from here (TCP and UDP)?"
                ));
            }
            (Some(Liveness::Alive), true, false) => told.push(format!(
                "node {node} answers gossip, but has not renewed its lease for {:.1} s: can it reach the store?",
                member.lease_age.as_secs_f64()
            )),
            (Some(Liveness::Alive), false, _) => told.push(format!(
                "node {node} answers gossip, but is {} in the store",
                member.state.name()
            )),
            _ => {}
        }
    }
    let known = |node: &NodeId| members.iter().any(|member| member.node == *node);
    let mut strangers: Vec<_> = liveness.keys().filter(|node| !known(node)).collect();
    strangers.sort();
    for node in strangers {
        told.push(format!("node {node} gossips, but the store does not know it"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u8, state: NodeState, liveness: Option<Liveness>, age_ms: u64) -> MemberStatus {
        MemberStatus {
            node: NodeId([node; 16]),
            state,
            liveness,
            incarnation: Incarnation(1),
            peer_addr: None,
            lease_age: Duration::from_millis(age_ms),
            shards: 0,
            zone: "".into(),
            capacity: 100,
            version: "".into(),
            revision: Revision(0),
            broken: None,
            started_at_ms: 0,
        }
    }

    #[test]
    fn gossip_and_the_store_are_compared() {
        let members = [
            member(1, NodeState::Active, None, 100),
            member(2, NodeState::Active, Some(Liveness::Down), 100),
            member(3, NodeState::Active, Some(Liveness::Alive), 5_000),
            member(4, NodeState::Fenced, Some(Liveness::Alive), 100),
            member(5, NodeState::Active, Some(Liveness::Alive), 100),
            member(6, NodeState::Fenced, Some(Liveness::Down), 90_000),
        ];
        let liveness = HashMap::from([(NodeId([9; 16]), Liveness::Alive)]);
        let told = disagreements(NodeId([1; 16]), &members, &liveness, &Timing::normal());
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told[0].starts_with("node 02020202") && told[0].contains("peer port"));
        assert!(told[1].contains("has not renewed its lease for 5.0 s"));
        assert!(told[2].contains("fenced in the store"));
        assert!(told[3].contains("09090909") && told[3].contains("does not know"));
    }
}
