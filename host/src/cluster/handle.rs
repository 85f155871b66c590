//! A node's membership, as the rest of the host holds it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::grants::GrantedEpochs;
use crate::cluster::identity::Identity;
use crate::cluster::keeper;
use crate::cluster::lease_thread::{self, View};
use crate::cluster::newcomer::{self, Greeting};
use crate::cluster::ownership::{Lease, NodeRow, NodeState, Observer, Timing, lease};
use crate::cluster::routes::RouteTable;
use crate::cluster::status::{self, ClusterStatus, Liveness};
use crate::cluster::truth::{About, Registered, Truth};
use crate::entity::Entities;
use crate::journal::postgres::Place;
use crate::journal::{Holdings, OpenError, StoreError};
use crate::words::clock::{self, BootTime};
use crate::words::config::ClusterConfig;
use crate::words::telemetry::Metrics;
use crate::words::{Address, Epoch, Incarnation, NodeId, Revision, Shard, limits};

/// A shard on its way to its next owner, who owns it already under this epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    pub shard: Shard,
    pub epoch: Epoch,
    /// What was used most recently: to be loaded before commands ask for it. At most
    /// [`HANDOFF_WARM_MAX`](crate::words::limits::HANDOFF_WARM_MAX).
    pub recent: Vec<Address>,
}

/// How to talk to other members.
pub trait Messenger: Send + Sync + 'static {
    /// Tells `to` that it owns these shards; true once its [`Cluster::take`] has answered true. MUST end
    /// by itself. False or nothing at all does no harm: the node finds its shards in the store.
    fn hand_over(&self, to: NodeId, handed: Vec<Handed>) -> BoxFuture<'static, bool>;

    /// Whether a node lets this one in. MUST end by itself.
    fn greet(&self, node: NodeId, at: SocketAddr) -> BoxFuture<'static, Greeting>;
}

/// What a cluster's member is made of.
pub struct Setup {
    pub config: ClusterConfig,
    pub identity: Identity,
    /// Where other nodes reach this one.
    pub peer_addr: SocketAddr,
    /// Of a member, with as many shards as the store has.
    pub holdings: Holdings,
    pub entities: Entities,
    pub routes: RouteTable,
    pub messenger: Arc<dyn Messenger>,
    /// Nodes that gossip suspects: the store is looked at more often for a while.
    pub suspicions: mpsc::Receiver<NodeId>,
    /// What gossip says of other nodes; empty where there is none.
    pub liveness: watch::Receiver<Arc<HashMap<NodeId, Liveness>>>,
    /// What this node serves, and why it cannot serve all of it.
    pub serving: watch::Receiver<(Revision, Option<String>)>,
    pub metrics: Metrics,
}

/// Why a node could not become a member. It owns nothing.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Url(OpenError),
    #[error("the node cannot register: {0}")]
    Store(#[from] StoreError),
    #[error("the store has {found} shards, and this node was made for {expected}")]
    Shards { expected: u32, found: usize },
    #[error("no thread for the lease: {reason}")]
    Thread { reason: String },
    #[error(
        "this is Stead {ours}, and node {node} of the cluster runs {theirs}: only neighbouring minor \
         versions work together, so update one minor version at a time"
    )]
    Version { ours: String, theirs: String, node: NodeId },
    #[error(
        "node {node} of the cluster has a lease of {theirs:?}, and this one would have {ours:?}: \
         --fast-failover must be the same on every node, so stop all of them to change it"
    )]
    Lease { ours: Duration, theirs: Duration, node: NodeId },
    #[error("no member of the cluster lets this node in: {reason}")]
    Stranger { reason: String },
}

/// Cheap to clone. Ends with [`stop`](Self::stop), not by being dropped.
#[derive(Clone)]
pub struct Cluster(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub identity: Identity,
    pub about: About,
    pub timing: Timing,
    pub place: Place,
    pub holdings: Holdings,
    pub entities: Entities,
    pub routes: RouteTable,
    pub messenger: Arc<dyn Messenger>,
    pub liveness: watch::Receiver<Arc<HashMap<NodeId, Liveness>>>,
    pub serving: watch::Receiver<(Revision, Option<String>)>,
    pub metrics: Metrics,
    pub grants: GrantedEpochs,
    /// The rules at work, fed by the thread of the lease.
    pub core: Mutex<Core>,
    pub view: watch::Sender<Arc<View>>,
    pub incarnation: watch::Sender<Incarnation>,
    /// The connection for everything but the lease and the polls.
    pub truth: tokio::sync::Mutex<Truth>,
    /// Wakes the poll before its time.
    pub look: Notify,
    pub failed: watch::Sender<Option<Arc<str>>>,
    /// Whether this process wants to give its shards away, whatever the store says.
    pub leaving: watch::Sender<bool>,
    pub main: tokio::runtime::Handle,
    pub stop: CancellationToken,
    /// Wakes the renewal before its time.
    pub renew_now: Notify,
    /// A shard has left, or did not.
    pub moved: Notify,
}

pub(super) struct Core {
    pub lease: Lease,
    pub observer: Observer,
    /// Since when no earlier life of this node can have renewed its lease, wherever its process runs.
    pub renewed_alone_since: BootTime,
}

/// Becomes a member. A store that is busy for a moment, as when many nodes start at once, is asked again.
async fn register(
    truth: &mut Truth,
    setup: &Setup,
    about: &About,
    timing: &Timing,
) -> Result<(Registered, BootTime), StartError> {
    let until = clock::now() + limits::STORE_OPEN_MAX;
    loop {
        match register_once(truth, setup, about, timing).await {
            Err(StartError::Store(StoreError::Unavailable { reason })) if clock::now() < until => {
                tracing::warn!(reason = &*reason, "the store does not answer yet; trying again");
                tokio::time::sleep(limits::LEASE_BACKOFF_MAX).await;
            }
            result => return result,
        }
    }
}

async fn register_once(
    truth: &mut Truth,
    setup: &Setup,
    about: &About,
    timing: &Timing,
) -> Result<(Registered, BootTime), StartError> {
    let rows = truth.shards().await?;
    let expected = setup.holdings.shards();
    if rows.len() != expected as usize {
        return Err(StartError::Shards { expected, found: rows.len() });
    }
    newcomer::check(truth, setup, timing).await?;
    let sent = clock::boot_time();
    let serving = setup.serving.borrow().clone();
    let registered = truth.register(&setup.identity, about, NodeState::Active, &serving).await?;
    Ok((registered, sent))
}

impl Cluster {
    /// Registers with the store, whose schema exists, and starts the thread that renews the lease. Shards
    /// are claimed from then on. Call it on the runtime that serves.
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        let timing = match setup.config.fast_failover {
            true => Timing::fast(),
            false => Timing::normal(),
        };
        let place = Place::parse(&setup.config.store).map_err(StartError::Url)?;
        let about = About {
            peer_addr: setup.peer_addr.to_string(),
            zone: setup.config.zone.clone(),
            capacity: setup.config.capacity,
            version: setup.config.version.clone(),
            started_at_ms: clock::unix_ms(),
            lease: timing.lease,
        };
        let mut truth = Truth::new(place.clone(), "stead ownership", timing.statement_max());
        let expected = setup.holdings.shards();
        let (registered, sent) = register(&mut truth, &setup, &about, &timing).await?;
        let me = setup.identity.node;
        let inner = Arc::new(Inner {
            timing,
            place,
            about,
            grants: GrantedEpochs::new(expected),
            core: Mutex::new(Core {
                lease: Lease::registered(registered.incarnation, sent),
                observer: Observer::new(me),
                renewed_alone_since: clock::boot_time(),
            }),
            view: watch::Sender::new(Arc::default()),
            incarnation: watch::Sender::new(registered.incarnation),
            truth: tokio::sync::Mutex::new(truth),
            look: Notify::new(),
            failed: watch::Sender::new(None),
            leaving: watch::Sender::new(false),
            main: tokio::runtime::Handle::current(),
            stop: CancellationToken::new(),
            renew_now: Notify::new(),
            moved: Notify::new(),
            identity: setup.identity,
            holdings: setup.holdings,
            entities: setup.entities,
            routes: setup.routes,
            messenger: setup.messenger,
            liveness: setup.liveness,
            serving: setup.serving,
            metrics: setup.metrics,
        });
        inner.registered(&registered, sent);
        let cluster = Self(inner.clone());
        if let Err(error) = lease_thread::start(inner.clone(), setup.suspicions) {
            // If the store cannot be told, the others wait for the lease.
            let _told = cluster.leave().await;
            return Err(StartError::Thread { reason: error.to_string() });
        }
        tokio::spawn(keeper::keep(inner));
        Ok(cluster)
    }

    pub fn node(&self) -> NodeId {
        self.0.identity.node
    }

    /// Changes each time this node had to register again.
    pub fn incarnation(&self) -> watch::Receiver<Incarnation> {
        self.0.incarnation.subscribe()
    }

    pub fn routes(&self) -> &RouteTable {
        &self.0.routes
    }

    /// The nodes that the store knows, but for those that left. Changes with each poll.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.subscribe()
    }

    pub fn status(&self) -> ClusterStatus {
        status::of(&self.0)
    }

    /// Another node says that these shards are ours now. True if the store agrees; then they are served.
    /// What was used recently is loaded in the background.
    pub async fn take(&self, handed: Vec<Handed>) -> bool {
        self.0.take(handed).await
    }

    /// Gives every shard away, and takes no more. Returns once this node holds none, or nobody can take
    /// what is left. Progress: [`held`](Self::held). Dropping the future does not undo it.
    pub async fn drain(&self) -> Result<(), StoreError> {
        self.0.drain().await
    }

    /// Makes any node drain, or stop draining. False: the store knows no such member.
    pub async fn set_draining(&self, node: NodeId, is: bool) -> Result<bool, StoreError> {
        let set = self.0.truth.lock().await.set_draining(node, is).await?;
        if node == self.node() && !is {
            self.0.leaving.send_replace(false);
        }
        self.0.look.notify_one();
        Ok(set)
    }

    /// Shards that this node holds.
    pub fn held(&self) -> usize {
        self.0.holdings.held_count()
    }

    /// Gives up what is left, and tells the store that the node is gone, unless an earlier life of it may
    /// still answer for shards. Then stops. The node serves nothing any more, also if the store could not be
    /// told.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let left = self.0.leave().await;
        self.stop();
        left
    }

    /// Stops renewing the lease and claiming shards. Whatever is held is given up here and, once the lease
    /// has run out, taken by others.
    pub fn stop(&self) {
        self.0.stop.cancel();
        self.0.give_up();
    }

    /// Returns when this node must end: another process has its identity.
    pub async fn failed(&self) -> Arc<str> {
        let mut failed = self.0.failed.subscribe();
        loop {
            if let Some(reason) = failed.borrow_and_update().clone() {
                return reason;
            }
            if failed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Inner {
    pub fn me(&self) -> NodeId {
        self.identity.node
    }

    /// A new life begins, with these shards. `sent`: when the registration was.
    pub fn registered(&self, registered: &Registered, sent: BootTime) {
        let lease = Lease::registered(registered.incarnation, sent);
        {
            let mut core = self.core.lock();
            core.lease = lease;
            core.renewed_alone_since = clock::boot_time();
        }
        self.metrics.registrations.inc();
        // Also if the life before has not ended yet, and its lease not run out.
        self.give_up();
        self.grants.begin(registered.incarnation);
        self.incarnation.send_replace(registered.incarnation);
        self.holdings.extend_lease(lease.trusted_until(&self.timing));
        self.granted(registered.incarnation, &registered.shards);
        tracing::info!(
            node = %self.me(),
            incarnation = %registered.incarnation,
            shards = registered.shards.len(),
            "registered with the cluster's store"
        );
    }

    /// Whether what earlier lives of this node own may be taken from them.
    pub fn earlier_lives_are_over(&self) -> bool {
        let since = self.core.lock().renewed_alone_since;
        lease::predecessor_is_over(since, clock::boot_time(), &self.timing)
    }

    /// Nothing is held any more, and no lease runs. What is in memory goes in the background.
    pub fn give_up(&self) {
        self.holdings.end_lease();
        let lost = self.grants.end(&self.holdings);
        if lost.is_empty() {
            return;
        }
        self.metrics.shards_lost.inc_by(lost.len() as u64);
        self.routes.announce();
        let entities = self.entities.clone();
        self.main.spawn(async move {
            for (shard, _) in lost {
                entities.drop_shard(shard);
                tokio::task::yield_now().await;
            }
        });
    }

    /// This node must end.
    pub fn fail(&self, reason: String) {
        tracing::error!(reason, "this node cannot stay a member");
        self.give_up();
        self.stop.cancel();
        self.failed.send_replace(Some(reason.into()));
    }

    pub fn row(&self) -> Option<NodeRow> {
        self.view.borrow().nodes.iter().find(|row| row.id == self.me()).cloned()
    }
}
