//! Makes this node hold what the store says it owns: claims what is free, takes up what it was given,
//! lets go of what it lost, and gives away what others should have.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cluster::hand_off;
use crate::cluster::handle::Inner;
use crate::cluster::lease_thread::View;
use crate::cluster::ownership::mend::mend;
use crate::cluster::ownership::{Claims, Eligible, Local, Mend, NodeState, ShardRow};
use crate::cluster::placement::{self, Pace};
use crate::cluster::routes::Route;
use crate::journal::StoreError;
use crate::words::clock::{self, BootTime};
use crate::words::limits::{CLAIMED_AT_ONCE_MAX, MOVES_AT_ONCE_MAX, RELEASED_AT_ONCE_MAX};
use crate::words::{Epoch, Incarnation, NodeId, Shard};

pub(super) async fn keep(inner: Arc<Inner>) {
    let stop = inner.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = Keeper::new(inner).run() => {}
    }
}

struct Keeper {
    inner: Arc<Inner>,
    claims: Claims,
    pace: Pace,
    /// Which reading of the shards was taken up last.
    shards_read: u64,
    /// The highest epochs that the store ever told, by number of the shard.
    epochs: Vec<Epoch>,
    /// So that a failure is told once.
    was_failing: bool,
}

impl Keeper {
    fn new(inner: Arc<Inner>) -> Self {
        let shards = inner.holdings.shards();
        Self {
            inner,
            claims: Claims::default(),
            pace: Pace::new(shards),
            shards_read: 0,
            epochs: vec![Epoch(0); shards as usize],
            was_failing: false,
        }
    }

    async fn run(mut self) {
        let inner = self.inner.clone();
        let mut views = inner.view.subscribe();
        let mut lost = inner.holdings.lost();
        let mut leaving = inner.leaving.subscribe();
        loop {
            tokio::select! {
                Ok(()) = views.changed() => {}
                Ok(()) = lost.changed() => {
                    inner.metrics.shards_lost.inc();
                    inner.look.notify_one();
                    continue;
                }
                Ok(()) = leaving.changed() => {}
                () = inner.moved.notified() => {}
            }
            let view = views.borrow_and_update().clone();
            let done = self.step(&view).await;
            match done {
                Ok(()) => self.was_failing = false,
                Err(error) if !self.was_failing => {
                    self.was_failing = true;
                    tracing::warn!(%error, "shards cannot be claimed or given up yet");
                }
                Err(_) => {}
            }
            self.gauge();
        }
    }

    async fn step(&mut self, view: &Arc<View>) -> Result<(), StoreError> {
        if view.shards_read != self.shards_read {
            self.shards_read = view.shards_read;
            self.check(&view.shards);
            let routes = view.shards.iter().map(|row| {
                (row.shard, Route { owner: row.owner.map(|(owner, _)| owner), epoch: row.epoch })
            });
            self.inner.routes.learn_all(routes);
            self.claims.read(view.read, &view.shards);
        }
        // Nobody claims or moves anything on old news, or without a lease of its own.
        let now = clock::boot_time();
        let incarnation = *self.inner.incarnation.borrow();
        if view.is_stale
            || view.lease.incarnation() != incarnation
            || !view.lease.is_in_order(now, &self.inner.timing)
        {
            return Ok(());
        }
        self.mend(view, incarnation).await?;
        let timing = &self.inner.timing;
        let eligible = Eligible::of(view.nodes.iter(), &view.observer, now, timing);
        if self.must_leave(view, &eligible) {
            self.give_all(view, eligible, now);
            return Ok(());
        }
        self.claim(&eligible, incarnation, now).await?;
        self.rebalance(view, &eligible, now);
        Ok(())
    }

    /// The store never takes an epoch back, and no epoch has two owners. A store that was restored from a
    /// backup does, and then it is not this node that may answer.
    fn check(&mut self, rows: &[ShardRow]) {
        for row in rows {
            let Some(seen) = self.epochs.get_mut(row.shard.0 as usize) else { continue };
            let known = self.inner.routes.route(row.shard);
            let owner = row.owner.map(|(owner, _)| owner);
            let went_back = row.epoch < *seen;
            let is_shared = row.epoch == known.epoch
                && owner.is_some_and(|owner| known.owner.is_some_and(|known| known != owner));
            *seen = row.epoch.max(*seen);
            if !went_back && !is_shared {
                continue;
            }
            self.inner.metrics.ownership_faults.inc();
            tracing::error!(
                shard = %row.shard, epoch = %row.epoch, known = %known.epoch,
                "the store contradicts what it said of a shard's owner before; was it restored from a backup? Restart all nodes"
            );
            if let Some(held) = self.inner.holdings.epoch(row.shard) {
                self.inner.lose(row.shard, held);
            }
        }
    }

    async fn mend(&mut self, view: &View, incarnation: Incarnation) -> Result<(), StoreError> {
        let inner = &self.inner;
        let mut grants = Vec::new();
        let mut releases = Vec::new();
        let mut adopts = false;
        for row in view.shards.iter() {
            let shard = row.shard;
            let local = Local {
                held: inner.holdings.epoch(shard),
                granted: inner.grants.granted(shard),
                known: inner.routes.route(shard).epoch,
                is_closing: inner.holdings.is_closing(shard),
                is_moving: inner.grants.is_moving(shard),
            };
            match mend(inner.me(), incarnation, row, &local) {
                None => {}
                Some(Mend::Grant(epoch)) => grants.push((shard, epoch)),
                Some(Mend::Lose(epoch)) => inner.lose(shard, epoch),
                Some(Mend::Reopen(epoch)) => {
                    inner.holdings.reopen(shard, epoch);
                }
                Some(Mend::Release(epoch)) => releases.push((shard, epoch)),
                Some(Mend::Adopt) => adopts = true,
            }
        }
        inner.granted(incarnation, &grants);
        if adopts && inner.earlier_lives_are_over() {
            let adopted = inner.truth.lock().await.adopt(inner.me(), incarnation).await?;
            inner.granted(incarnation, &adopted);
            inner.look.notify_one();
        }
        for (shard, epoch) in releases.into_iter().take(RELEASED_AT_ONCE_MAX) {
            tracing::warn!(%shard, %epoch, "giving up a shard that this node owns and cannot serve");
            let released = inner.truth.lock().await.release(inner.me(), shard, epoch).await?;
            if let Some(epoch) = released {
                inner.routes.learn(shard, Route { owner: None, epoch });
                inner.look.notify_one();
            }
        }
        Ok(())
    }

    fn must_leave(&self, view: &View, eligible: &Eligible) -> bool {
        let me = self.inner.me();
        let row = view.nodes.iter().find(|row| row.id == me);
        let is_broken = row.is_some_and(|row| row.broken.is_some())
            && !eligible.nodes.is_empty()
            && !eligible.has(me);
        *self.inner.leaving.borrow()
            || row.is_some_and(|row| row.state == NodeState::Draining)
            || is_broken
    }

    async fn claim(
        &mut self,
        eligible: &Eligible,
        incarnation: Incarnation,
        now: BootTime,
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        let me = inner.me();
        let mut due = self.claims.due(me, &owners(inner), eligible, now);
        // Taken since the rows were read.
        due.retain(|shard| inner.routes.route(*shard).owner.is_none());
        for shards in due.chunks(CLAIMED_AT_ONCE_MAX) {
            let claimed = inner.truth.lock().await.claim(me, incarnation, shards).await?;
            inner.metrics.shards_claimed.inc_by(claimed.len() as u64);
            inner.granted(incarnation, &claimed);
            inner.look.notify_one();
        }
        Ok(())
    }

    /// Everything goes, as fast as hand-overs go.
    fn give_all(&mut self, view: &View, mut eligible: Eligible, now: BootTime) {
        let inner = &self.inner;
        let me = inner.me();
        eligible.nodes.retain(|candidate| candidate.node != me);
        if eligible.nodes.is_empty() || inner.holdings.held_count() == 0 {
            return;
        }
        let owners = owners(inner);
        let plan = placement::desired(&owners, &eligible.nodes);
        let at_most = MOVES_AT_ONCE_MAX.saturating_sub(inner.grants.moving().len());
        self.begin_moves(view, &owners, &plan, at_most, now);
    }

    fn rebalance(&mut self, view: &View, eligible: &Eligible, now: BootTime) {
        let inner = &self.inner;
        let me = inner.me();
        let timing = &inner.timing;
        let is_stable = view.observer.is_stable(me, now, timing);
        if !is_stable || !eligible.has(me) || inner.holdings.held_count() == 0 {
            return;
        }
        let at_most = self.pace.allows(now, inner.grants.moving().len());
        if at_most == 0 {
            return;
        }
        let owners = owners(inner);
        let settled = eligible.settled(&owners, &view.observer, now, timing);
        let plan = placement::desired(&owners, &settled);
        let begun = self.begin_moves(view, &owners, &plan, at_most, now);
        self.pace.begin(now, begun);
    }

    fn begin_moves(
        &self,
        view: &View,
        owners: &[Option<NodeId>],
        plan: &[Option<NodeId>],
        at_most: usize,
        now: BootTime,
    ) -> usize {
        let inner = &self.inner;
        let incarnations: HashMap<_, _> =
            view.nodes.iter().map(|row| (row.id, row.incarnation)).collect();
        let moves = placement::moves(owners, plan, inner.me(), owners.len());
        let mut begun = 0;
        for next in moves {
            if begun == at_most {
                break;
            }
            let Some(to) = incarnations.get(&next.to) else { continue };
            let is_late = view.observer.is_late(next.to, now, &inner.timing);
            let Some(epoch) = inner.holdings.epoch(next.shard).filter(|_| !is_late) else {
                continue;
            };
            if inner.grants.begin_move(next.shard) {
                begun += 1;
                tokio::spawn(hand_off::hand_off(inner.clone(), next.shard, epoch, (next.to, *to)));
            }
        }
        begun
    }

    fn gauge(&self) {
        let inner = &self.inner;
        let remaining = inner.holdings.lease_until().since(clock::boot_time());
        inner.metrics.lease_remaining_seconds.set(remaining.as_secs_f64());
        inner.metrics.shards_held.set(inner.holdings.held_count() as i64);
    }
}

fn owners(inner: &Inner) -> Vec<Option<NodeId>> {
    inner.routes.routes().into_iter().map(|route| route.owner).collect()
}

impl Inner {
    /// The store says that these shards are this node's: serves them.
    pub fn granted(&self, incarnation: Incarnation, shards: &[(Shard, Epoch)]) {
        let mut routes = Vec::with_capacity(shards.len());
        for (shard, epoch) in shards {
            let known = self.routes.route(*shard);
            if known.epoch == *epoch && known.owner.is_some_and(|owner| owner != self.me()) {
                self.metrics.ownership_faults.inc();
                tracing::error!(%shard, %epoch, "a shard has two owners under one epoch; it is not served");
                continue;
            }
            if self.grants.grant(&self.holdings, incarnation, *shard, *epoch) {
                routes.push((*shard, Route { owner: Some(self.me()), epoch: *epoch }));
            }
        }
        self.routes.learn_all(routes);
    }

    /// The shard is not this node's any more.
    pub fn lose(&self, shard: Shard, epoch: Epoch) {
        if self.holdings.revoke(shard, epoch) {
            // On its way: the store has told of its new owner before the hand-over did.
            if !self.grants.is_moving(shard) {
                self.metrics.shards_lost.inc();
            }
            self.routes.announce();
            let entities = self.entities.clone();
            self.main.spawn(async move { entities.drop_shard(shard) });
        }
    }

    /// Whether anybody else may be given shards.
    pub fn has_takers(&self) -> bool {
        let view = self.view.borrow().clone();
        let now = clock::boot_time();
        let eligible = Eligible::of(view.nodes.iter(), &view.observer, now, &self.timing);
        eligible.nodes.iter().any(|candidate| candidate.node != self.me())
    }

    pub async fn drain(&self) -> Result<(), StoreError> {
        let mut views = self.view.subscribe();
        self.leaving.send_replace(true);
        self.truth.lock().await.set_draining(self.me(), true).await?;
        self.look.notify_one();
        // The next look shows who can take shards.
        views.mark_unchanged();
        while self.holdings.held_count() > 0 {
            if views.changed().await.is_err() {
                break;
            }
            if !views.borrow_and_update().is_stale && !self.has_takers() {
                let held = self.holdings.held_count();
                tracing::warn!(held, "no other node can take this node's shards");
                break;
            }
        }
        Ok(())
    }
}
