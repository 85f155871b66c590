//! What this node sees of the others, and whom it may declare dead.

use std::collections::HashMap;
use std::time::Duration;

use crate::cluster::ownership::{Lease, NodeRow, NodeState, Timing};
use crate::words::clock::BootTime;
use crate::words::limits::FENCED_NODE_KEPT;
use crate::words::{Incarnation, NodeId};

/// One node as seen by this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub incarnation: Incarnation,
    pub hb: u64,
    state: NodeState,
    is_broken: bool,
    /// When (incarnation, hb) was received for the first time.
    pub changed: BootTime,
    /// Since when the node has been a member of the same kind.
    pub stable_since: BootTime,
}

/// The node of the row may be fenced, or forgotten if it was, as long as the row has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub hb: u64,
}

#[derive(Clone)]
pub struct Observer {
    me: NodeId,
    nodes: HashMap<NodeId, Seen>,
    pub(super) polled: Option<BootTime>,
    /// Since when this node has looked without a long gap, and renewed its own lease without one.
    pub(super) in_order_since: Option<BootTime>,
}

impl Observer {
    pub fn new(me: NodeId) -> Self {
        Self { me, nodes: HashMap::new(), polled: None, in_order_since: None }
    }

    /// The answer to a poll. `received`: when it was there.
    pub fn polled<'r>(
        &mut self,
        received: BootTime,
        rows: impl IntoIterator<Item = &'r NodeRow>,
        timing: &Timing,
    ) {
        let gap = self.polled.map(|polled| received.since(polled));
        if gap.is_none_or(|gap| gap > timing.poll_gap_max) || self.in_order_since.is_none() {
            self.in_order_since = Some(received);
        }
        self.polled = Some(received);
        let mut nodes = HashMap::with_capacity(self.nodes.len());
        for row in rows {
            let seen = see(self.nodes.get(&row.id), row, received);
            nodes.insert(row.id, seen);
        }
        self.nodes = nodes;
    }

    /// An own renewal had no answer. If none has succeeded for long, whoever could not renew either gets a
    /// whole lease of time once the store answers again: otherwise an outage would end with everybody
    /// fencing everybody. After a short trouble others have the time to renew all the same.
    pub fn troubled(&mut self, now: BootTime, own: &Lease, timing: &Timing) {
        if own.age(now) > timing.trouble_max() {
            self.in_order_since = None;
        }
    }

    pub fn seen(&self, node: NodeId) -> Option<&Seen> {
        self.nodes.get(&node)
    }

    /// When a node may be fenced if its row does not change. None: never, as things are.
    pub fn expires_at(&self, node: NodeId, timing: &Timing) -> Option<BootTime> {
        let seen = self.nodes.get(&node)?;
        if node == self.me || !seen.state.is_member() {
            return None;
        }
        Some(seen.changed.max(self.in_order_since?) + timing.lease)
    }

    /// Who may be fenced now: their rows have not changed for the length of a lease, by this node's own
    /// clock, and this node has looked and renewed without a long gap all that time.
    pub fn expired(&self, now: BootTime, own: &Lease, timing: &Timing) -> Vec<Expired> {
        let is_blind = self.polled.is_none_or(|polled| now.since(polled) > timing.poll_gap_max);
        if is_blind || !own.is_in_order(now, timing) {
            return Vec::new();
        }
        let mut expired: Vec<_> = self
            .nodes
            .iter()
            .filter(|(id, _)| self.expires_at(**id, timing).is_some_and(|at| now >= at))
            .map(|(id, seen)| Expired { node: *id, incarnation: seen.incarnation, hb: seen.hb })
            .collect();
        expired.sort_by_key(|expired| expired.node);
        expired
    }

    /// A node that was declared dead long ago, and has not registered again since this one looks.
    pub fn forgettable(&self, now: BootTime) -> Option<Expired> {
        self.nodes
            .iter()
            .filter(|(_, seen)| seen.state == NodeState::Fenced)
            .filter(|(_, seen)| now.since(seen.changed) >= FENCED_NODE_KEPT)
            .map(|(id, seen)| Expired { node: *id, incarnation: seen.incarnation, hb: seen.hb })
            .min_by_key(|fenced| fenced.node)
    }

    /// Whether a node has missed a renewal or more: it is alive in the store, and perhaps nowhere else.
    pub fn is_late(&self, node: NodeId, now: BootTime, timing: &Timing) -> bool {
        self.nodes.get(&node).is_some_and(|seen| now.since(seen.changed) > timing.renew_every * 2)
    }

    /// Whether a node has been the same for long enough to move shards to it or from it.
    pub fn is_stable(&self, node: NodeId, now: BootTime, timing: &Timing) -> bool {
        let since = self.nodes.get(&node).map(|seen| seen.stable_since);
        since.is_some_and(|since| now.since(since) >= timing.stable_after())
    }

    /// When to look next: in time to fence who is late at the first moment that allows it.
    pub fn poll_at(&self, now: BootTime, is_suspecting: bool, timing: &Timing) -> BootTime {
        let every = if is_suspecting { timing.poll_every_suspected } else { timing.poll_every };
        let next = self.polled.map_or(now, |polled| polled + every);
        let expiries = self.nodes.keys().filter_map(|node| self.expires_at(*node, timing));
        match expiries.filter(|at| *at > now).min() {
            Some(expiry) => next.min(expiry),
            None => next,
        }
    }

    /// How long ago the node's lease was seen to be renewed.
    pub fn age(&self, node: NodeId, now: BootTime) -> Option<Duration> {
        self.nodes.get(&node).map(|seen| now.since(seen.changed))
    }
}

fn see(before: Option<&Seen>, row: &NodeRow, received: BootTime) -> Seen {
    let is_broken = row.broken.is_some();
    let changed = before
        .filter(|seen| (seen.incarnation, seen.hb) == (row.incarnation, row.hb))
        .map_or(received, |seen| seen.changed);
    let stable_since = before
        .filter(|seen| {
            (seen.incarnation, seen.state, seen.is_broken)
                == (row.incarnation, row.state, is_broken)
        })
        .map_or(received, |seen| seen.stable_since);
    Seen {
        incarnation: row.incarnation,
        hb: row.hb,
        state: row.state,
        is_broken,
        changed,
        stable_since,
    }
}

#[cfg(test)]
pub(in crate::cluster) mod tests {
    use super::*;
    use crate::cluster::ownership::{Process, Renewal};
    use crate::words::Revision;

    const TIMING: Timing = Timing::EXAMPLE;
    const ME: NodeId = NodeId([1; 16]);
    const OTHER: NodeId = NodeId([2; 16]);

    pub(in crate::cluster) fn row(id: NodeId, incarnation: u64, hb: u64) -> NodeRow {
        NodeRow {
            id,
            incarnation: Incarnation(incarnation),
            hb,
            state: NodeState::Active,
            process: Process(id.0),
            peer_addr: None,
            zone: "".into(),
            capacity: 100,
            version: "".into(),
            revision: Revision(0),
            broken: None,
            started_at_ms: 0,
            lease: None,
        }
    }

    fn at(ms: u64) -> BootTime {
        BootTime::default() + Duration::from_millis(ms)
    }

    /// Polls every 500 ms, and renews; the other's row never changes.
    fn watch(observer: &mut Observer, own: &mut Lease, from: u64, to: u64) -> Option<u64> {
        for ms in (from..=to).step_by(500) {
            own.renewed(at(ms), Renewal::Renewed);
            observer.polled(at(ms), &[row(ME, 1, ms), row(OTHER, 1, 7)], &TIMING);
            if let [expired] = observer.expired(at(ms), own, &TIMING)[..] {
                assert_eq!(expired, Expired { node: OTHER, incarnation: Incarnation(1), hb: 7 });
                return Some(ms);
            }
        }
        None
    }

    #[test]
    fn a_node_expires_a_lease_after_its_last_change_was_received() {
        let (mut observer, mut own) = (Observer::new(ME), Lease::registered(Incarnation(1), at(0)));
        assert_eq!(watch(&mut observer, &mut own, 1_000, 20_000), Some(7_000));
    }

    #[test]
    fn a_gap_between_polls_starts_the_count_again() {
        let (mut observer, mut own) = (Observer::new(ME), Lease::registered(Incarnation(1), at(0)));
        assert_eq!(watch(&mut observer, &mut own, 0, 5_500), None);
        assert_eq!(watch(&mut observer, &mut own, 9_000, 30_000), Some(15_000));
    }

    #[test]
    fn who_could_not_renew_for_long_starts_the_count_again() {
        let (mut observer, mut own) = (Observer::new(ME), Lease::registered(Incarnation(1), at(0)));
        assert_eq!(watch(&mut observer, &mut own, 0, 2_000), None);
        for ms in (2_500..=6_000).step_by(500) {
            own.renewed(at(ms), Renewal::Unknown);
            observer.troubled(at(ms), &own, &TIMING);
            observer.polled(at(ms), &[row(ME, 1, 2_000), row(OTHER, 1, 7)], &TIMING);
        }
        assert_eq!(watch(&mut observer, &mut own, 6_500, 30_000), Some(12_000));
    }

    #[test]
    fn a_renewal_that_failed_once_only_waits_for_the_next() {
        let (mut observer, mut own) = (Observer::new(ME), Lease::registered(Incarnation(1), at(0)));
        assert_eq!(watch(&mut observer, &mut own, 0, 5_500), None);
        own.renewed(at(5_600), Renewal::Unknown);
        observer.troubled(at(5_600), &own, &TIMING);
        observer.polled(at(6_100), &[row(OTHER, 1, 7)], &TIMING);
        assert!(observer.expired(at(6_100), &own, &TIMING).is_empty());
        assert_eq!(watch(&mut observer, &mut own, 6_200, 30_000), Some(6_200));
    }

    #[test]
    fn who_has_no_lease_fences_nobody() {
        let (mut observer, own) = (Observer::new(ME), Lease::registered(Incarnation(1), at(0)));
        for ms in (0..=10_000).step_by(500) {
            observer.polled(at(ms), &[row(OTHER, 1, 7)], &TIMING);
            assert!(observer.expired(at(ms), &own, &TIMING).is_empty());
        }
    }

    #[test]
    fn fenced_nodes_and_oneself_are_not_fenced() {
        let (mut observer, mut own) = (Observer::new(ME), Lease::registered(Incarnation(1), at(0)));
        let fenced = NodeRow { state: NodeState::Fenced, ..row(OTHER, 1, 7) };
        for ms in (0..=10_000).step_by(500) {
            own.renewed(at(ms), Renewal::Renewed);
            observer.polled(at(ms), &[row(ME, 1, 1), fenced.clone()], &TIMING);
            assert!(observer.expired(at(ms), &own, &TIMING).is_empty());
        }
    }

    #[test]
    fn who_was_declared_dead_long_ago_is_forgotten_unless_it_comes_back() {
        let mut observer = Observer::new(ME);
        let kept = FENCED_NODE_KEPT.as_millis() as u64;
        let fenced = NodeRow { state: NodeState::Fenced, ..row(OTHER, 2, 7) };
        let rows = [row(ME, 1, 1), fenced];
        observer.polled(at(0), &rows, &TIMING);
        observer.polled(at(kept), &rows, &TIMING);
        assert_eq!(observer.forgettable(at(kept - 1)), None);
        let seen = Expired { node: OTHER, incarnation: Incarnation(2), hb: 7 };
        assert_eq!(observer.forgettable(at(kept)), Some(seen));
        observer.polled(at(kept), &[row(ME, 1, 1), row(OTHER, 3, 8)], &TIMING);
        assert_eq!(observer.forgettable(at(kept * 3)), None);
    }

    #[test]
    fn the_next_poll_is_in_time_for_the_next_expiry() {
        let mut observer = Observer::new(ME);
        observer.polled(at(100), &[row(OTHER, 1, 7)], &TIMING);
        assert_eq!(observer.poll_at(at(100), false, &TIMING), at(600));
        assert_eq!(observer.poll_at(at(100), true, &TIMING), at(200));
        for ms in (600..=5_900).step_by(500) {
            observer.polled(at(ms), &[row(OTHER, 1, 7)], &TIMING);
        }
        observer.polled(at(5_800), &[row(OTHER, 1, 7)], &TIMING);
        assert_eq!(observer.poll_at(at(5_800), false, &TIMING), at(6_100));
    }
}
