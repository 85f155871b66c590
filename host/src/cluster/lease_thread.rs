//! The thread that keeps this node's lease and watches the others': no guest ever runs on it, so that a
//! busy node is not taken for a dead one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::cluster::handle::{Core, Inner};
use crate::cluster::ownership::lease::{self, Refusal};
use crate::cluster::ownership::observer::Expired;
use crate::cluster::ownership::{Lease, NodeRow, NodeState, Observer, Renewal, ShardRow};
use crate::cluster::truth::{Polled, Tally, Truth};
use crate::journal::StoreError;
use crate::words::clock::{self, BootTime};
use crate::words::limits::{STORE_POLL_PAUSE_MIN, SUSPICION_HEEDED};
use crate::words::{Incarnation, NodeId, Revision};

/// What one look at the store told.
#[derive(Clone)]
pub struct View {
    /// When it was there.
    pub read: BootTime,
    /// All members but those that left.
    pub nodes: Arc<Vec<NodeRow>>,
    /// Every shard, by number. Empty before the first look.
    pub shards: Arc<Vec<ShardRow>>,
    /// Stepped with each time that the shards were read.
    pub shards_read: u64,
    /// The newest deployment; 0 without one.
    pub revision: Revision,
    /// The store did not answer the last time.
    pub is_stale: bool,
    pub(super) observer: Observer,
    pub(super) lease: Lease,
}

impl Default for View {
    fn default() -> Self {
        Self {
            read: BootTime::default(),
            nodes: Arc::default(),
            shards: Arc::default(),
            shards_read: 0,
            revision: Revision(0),
            is_stale: true,
            observer: Observer::new(NodeId([0; 16])),
            lease: Lease::registered(Incarnation(0), BootTime::default()),
        }
    }
}

pub(super) fn start(inner: Arc<Inner>, suspicions: mpsc::Receiver<NodeId>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        runtime.block_on(async {
            let stop = inner.stop.clone();
            let work = async { tokio::join!(renew(&inner), watch(&inner, suspicions)) };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = work => {}
            }
        });
    };
    std::thread::Builder::new().name("stead-lease".into()).spawn(run).map(drop)
}

/// Renews the lease until the node must end.
async fn renew(inner: &Arc<Inner>) {
    let timing = inner.timing;
    let mut truth = Truth::new(inner.place.clone(), "stead lease", timing.statement_max());
    let mut was_failing = false;
    loop {
        let (incarnation, at) = {
            let core = inner.core.lock();
            (core.lease.incarnation(), core.lease.renew_at(&timing))
        };
        tokio::select! {
            () = tokio::time::sleep(at.since(clock::boot_time())) => {}
            () = inner.renew_now.notified() => {}
        }
        let serving = inner.serving.borrow().clone();
        let sent = clock::boot_time();
        let answer = truth.renew(&inner.identity, incarnation, &serving).await;
        let renewal = match &answer {
            Ok(Some(_)) => Renewal::Renewed,
            Ok(None) => Renewal::Refused,
            Err(_) => Renewal::Unknown,
        };
        {
            let mut core = inner.core.lock();
            let Core { lease, observer, .. } = &mut *core;
            lease.renewed(sent, renewal);
            if renewal != Renewal::Renewed {
                observer.troubled(clock::boot_time(), lease, &timing);
            } else {
                inner.holdings.extend_lease(lease.trusted_until(&timing));
            }
        }
        match answer {
            Ok(Some(_)) => {
                if was_failing {
                    tracing::info!("the lease is renewed again");
                }
                was_failing = false;
            }
            Ok(None) => {
                if !begin_again(inner, &mut truth).await {
                    return;
                }
            }
            Err(error) => {
                if !was_failing {
                    tracing::warn!(%error, "the lease cannot be renewed; until it is, this node declares nobody dead");
                }
                was_failing = true;
            }
        }
    }
}

/// The store refused a renewal. False: the node must end.
async fn begin_again(inner: &Arc<Inner>, truth: &mut Truth) -> bool {
    let me = inner.me();
    inner.give_up();
    tracing::warn!(node = %me, "the store refused to renew the lease: all shards are given up");
    loop {
        match register_again(inner, truth).await {
            Ok(goes_on) => return goes_on,
            Err(error) => tracing::warn!(%error, "cannot register again yet"),
        }
    }
}

async fn register_again(inner: &Arc<Inner>, truth: &mut Truth) -> Result<bool, StoreError> {
    let me = inner.me();
    let row = truth.node(me).await?;
    match lease::refusal(inner.identity.process, row.as_ref()) {
        Refusal::Duplicate => {
            inner.fail(format!(
                "another process has started as node {me}: is its data directory a copy of this one's? Remove `node-id` from the copy"
            ));
            Ok(false)
        }
        Refusal::Fenced => {
            let was = inner.row().map(|row| row.state);
            let state = match was {
                Some(NodeState::Draining) => NodeState::Draining,
                _ => NodeState::Active,
            };
            let serving = inner.serving.borrow().clone();
            let sent = clock::boot_time();
            let registered = truth.register(&inner.identity, &inner.about, state, &serving).await?;
            inner.registered(&registered, sent);
            inner.look.notify_one();
            Ok(true)
        }
    }
}

/// What the watching remembers from poll to poll.
struct Watch<'i> {
    inner: &'i Arc<Inner>,
    truth: Truth,
    tally: Option<Tally>,
    shards: Arc<Vec<ShardRow>>,
    shards_read: u64,
    was_failing: bool,
}

/// Looks at the store, and declares dead whoever may be.
async fn watch(inner: &Arc<Inner>, mut suspicions: mpsc::Receiver<NodeId>) {
    let timing = inner.timing;
    let mut watch = Watch {
        inner,
        truth: Truth::new(inner.place.clone(), "stead watch", timing.statement_max()),
        tally: None,
        shards: Arc::default(),
        shards_read: 0,
        was_failing: false,
    };
    let mut suspecting_until = BootTime::default();
    let mut hears = true;
    let mut again = true;
    loop {
        if !again {
            let now = clock::boot_time();
            let at = inner.core.lock().observer.poll_at(now, now < suspecting_until, &timing);
            // After a failure there is always a next time to wait for.
            let pause = if watch.was_failing { STORE_POLL_PAUSE_MIN } else { Duration::ZERO };
            tokio::select! {
                () = tokio::time::sleep(at.since(now).max(pause)) => {}
                () = inner.look.notified() => {}
                () = inner.routes.asked() => {
                    watch.tally = None;
                    tokio::time::sleep(STORE_POLL_PAUSE_MIN).await;
                }
                suspicion = suspicions.recv(), if hears => {
                    hears = suspicion.is_some();
                    if hears {
                        suspecting_until = clock::boot_time() + SUSPICION_HEEDED;
                    }
                    continue;
                }
            }
        }
        again = match watch.look().await {
            Ok(again) => again,
            Err(error) => {
                watch.fail(&error);
                false
            }
        };
    }
}

impl Watch<'_> {
    /// One look. True: look again at once.
    async fn look(&mut self) -> Result<bool, StoreError> {
        let inner = self.inner;
        let polled = self.truth.poll().await?;
        let received = clock::boot_time();
        let (expired, forgettable) = {
            let mut core = inner.core.lock();
            core.observer.polled(received, &polled.nodes, &inner.timing);
            let expired = core.observer.expired(received, &core.lease, &inner.timing);
            (expired, core.observer.forgettable(received))
        };
        // The dead first: others wait for their shards.
        let mut again = !expired.is_empty();
        for expired in &expired {
            self.fence(expired).await;
        }
        if self.tally != Some(polled.tally) {
            self.shards = Arc::new(self.truth.shards().await?);
            self.shards_read += 1;
            self.tally = Some(polled.tally);
            if has_orphans(&self.shards, &polled.nodes) {
                if let Err(error) = self.truth.free_orphans().await {
                    tracing::warn!(%error, "shards of dead nodes cannot be freed yet");
                    self.tally = None;
                }
                again = true;
            }
        }
        if self.was_failing {
            tracing::info!("the cluster's store answers again");
            self.was_failing = false;
        }
        self.tell(received, polled);
        if let Some(fenced) = forgettable {
            self.forget(&fenced).await;
        }
        Ok(again)
    }

    /// That it fails says nothing of the leases of others: the next look finds the node again.
    async fn fence(&mut self, expired: &Expired) {
        let fencing = match self.truth.fence(expired).await {
            Ok(fencing) => fencing,
            Err(error) => {
                tracing::warn!(node = %expired.node, %error, "cannot declare a node dead yet");
                return;
            }
        };
        if fencing.is_ours {
            self.inner.metrics.nodes_fenced.inc();
            tracing::warn!(
                node = %expired.node,
                incarnation = %expired.incarnation,
                shards = fencing.freed,
                "declared a node dead: it did not renew its lease"
            );
        }
    }

    /// If it fails, the next look finds the node again.
    async fn forget(&mut self, fenced: &Expired) {
        let node = fenced.node;
        match self.truth.forget(fenced).await {
            Ok(true) => tracing::info!(%node, "forgot a node that was declared dead long ago"),
            Ok(false) => {}
            Err(error) => tracing::debug!(%node, %error, "cannot forget a node yet"),
        }
    }

    fn tell(&self, read: BootTime, polled: Polled) {
        let inner = self.inner;
        let addresses: HashMap<_, _> =
            polled.nodes.iter().filter_map(|row| Some((row.id, row.peer_addr?))).collect();
        inner.routes.set_addresses(addresses);
        let (observer, lease) = {
            let core = inner.core.lock();
            (core.observer.clone(), core.lease)
        };
        let own = polled.nodes.iter().find(|row| row.id == inner.me());
        let is_known = own.is_some_and(|row| {
            row.incarnation == lease.incarnation() && row.process == inner.identity.process
        });
        if !is_known {
            inner.renew_now.notify_one();
        }
        inner.view.send_replace(Arc::new(View {
            read,
            nodes: Arc::new(polled.nodes),
            shards: self.shards.clone(),
            shards_read: self.shards_read,
            revision: polled.revision,
            is_stale: false,
            observer,
            lease,
        }));
    }

    fn fail(&mut self, error: &StoreError) {
        if !self.was_failing {
            tracing::warn!(%error, "the cluster's store does not answer");
        }
        self.was_failing = true;
        // What was half read is read again.
        self.tally = None;
        self.inner.view.send_modify(|view| {
            let mut stale = View::clone(view);
            stale.is_stale = true;
            *view = Arc::new(stale);
        });
    }
}

/// Whether anybody owns shards who cannot hold a lease.
fn has_orphans(shards: &[ShardRow], nodes: &[NodeRow]) -> bool {
    let members: HashSet<_> =
        nodes.iter().filter(|row| row.state.is_member()).map(|row| row.id).collect();
    shards.iter().any(|row| row.owner.is_some_and(|(owner, _)| !members.contains(&owner)))
}
