//! What an event changes.

use crate::cluster::ownership::hand_over::Next;
use crate::cluster::ownership::model::{
    Giving, LEASE, Mutant, Node, Renewing, Row, Stored, TIMING, World, at, id,
};
use crate::cluster::ownership::observer::Expired;
use crate::cluster::ownership::observer::tests::row;
use crate::cluster::ownership::{Lease, Local, Mend, NodeRow, NodeState, Renewal, ShardRow, mend};
use crate::words::{Epoch, Incarnation, Shard};

impl Node {
    pub(super) fn renewed(&mut self, sent: u64, renewal: Renewal) {
        self.renewing = Renewing::No;
        self.lease.renewed(at(sent), renewal);
        if renewal != Renewal::Renewed {
            self.observer.troubled(at(self.clock), &self.lease, &TIMING);
        }
        if self.lease.is_over() {
            self.life = None;
            self.held = None;
            self.is_closing = false;
        }
    }
}

impl World {
    pub(super) fn register(&mut self, me: usize) {
        let renewed_at = self.store_clock;
        let row = &mut self.rows[me];
        let incarnation = row.incarnation + 1;
        *row = Row { incarnation, hb: row.hb + 1, is_fenced: false, renewed_at };
        let is_ours = self.shard.owner == Some((me, incarnation - 1));
        if is_ours {
            self.owned_by(Some((me, incarnation)));
        }
        let (epoch, journal) = (self.shard.epoch, self.journal);
        let node = &mut self.nodes[me];
        node.born = epoch;
        node.lease = Lease::registered(Incarnation(incarnation), at(node.clock));
        node.life = Some(incarnation);
        if is_ours {
            node.grant(incarnation, epoch, journal);
        }
    }

    pub(super) fn look(&mut self, mutant: Mutant, me: usize) {
        let theirs = self.rows[1 - me];
        let state = if theirs.is_fenced { NodeState::Fenced } else { NodeState::Active };
        let seen = NodeRow { state, ..row(id(1 - me), theirs.incarnation, theirs.hb) };
        let node = &mut self.nodes[me];
        let now = at(node.clock);
        node.observer.polled(now, [&seen], &TIMING);
        let mut expired = node.observer.expired(now, &node.lease, &TIMING).pop();
        if mutant == Mutant::StoreClock {
            let is_over = self.store_clock >= theirs.renewed_at + LEASE && !theirs.is_fenced;
            let incarnation = Incarnation(theirs.incarnation);
            expired = is_over.then_some(Expired { node: id(1 - me), incarnation, hb: theirs.hb });
        }
        node.fence = expired.or(node.fence);
    }

    pub(super) fn mend(&mut self, me: usize, life: u64, shard: Stored) {
        let node = &mut self.nodes[me];
        let row = ShardRow {
            shard: Shard(0),
            owner: shard.owner.map(|(owner, by)| (id(owner), Incarnation(by))),
            epoch: Epoch(shard.epoch),
            is_halted: false,
        };
        let local = Local {
            held: node.held.map(Epoch),
            granted: Epoch(node.granted),
            known: Epoch(node.known),
            is_closing: node.is_closing,
            is_moving: node.giving != Giving::No,
        };
        match mend::mend(id(me), Incarnation(life), &row, &local) {
            Some(Mend::Grant(epoch)) => node.grant(life, epoch.0, self.journal),
            Some(Mend::Lose(epoch)) => _ = node.revoke(epoch.0),
            Some(Mend::Reopen(_)) => node.is_closing = false,
            Some(Mend::Release(epoch)) => _ = self.release(me, epoch.0),
            // A registration takes its predecessor's shards along, as it knows it to be dead.
            Some(Mend::Adopt) | None => {}
        }
    }

    /// What follows on a statement of a hand-over.
    pub(super) fn after(&mut self, me: usize, epoch: u64, to: u64, next: Next) {
        let node = &mut self.nodes[me];
        node.giving = Giving::No;
        match next {
            Next::Release => {
                node.giving = Giving::Releasing { epoch };
                return;
            }
            Next::Tell(new) => {
                node.known = node.known.max(new.0);
                self.nodes[1 - me].told = Some((new.0, to));
            }
            Next::Free(new) => node.known = node.known.max(new.0),
            Next::Lost => {}
        }
        self.nodes[me].revoke(epoch);
    }

    pub(super) fn handed_over(&mut self, me: usize, epoch: u64, to: u64) -> bool {
        let is = self.is_owned(me, epoch) && self.is_member(1 - me, to);
        if is {
            self.owned_by(Some((1 - me, to)));
        }
        is
    }

    pub(super) fn release(&mut self, me: usize, epoch: u64) -> bool {
        let is = self.is_owned(me, epoch);
        if is {
            self.owned_by(None);
        }
        is
    }

    pub(super) fn is_owned(&self, me: usize, epoch: u64) -> bool {
        self.shard.epoch == epoch && self.shard.owner.is_some_and(|(owner, _)| owner == me)
    }

    pub(super) fn is_member(&self, node: usize, incarnation: u64) -> bool {
        !self.rows[node].is_fenced && self.rows[node].incarnation == incarnation
    }

    pub(super) fn owned_by(&mut self, owner: Option<(usize, u64)>) {
        self.shard = Stored { owner, epoch: self.shard.epoch + 1 };
        self.past.push(owner);
    }
}
