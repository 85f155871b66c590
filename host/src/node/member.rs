//! The parts of a node that is a member of a cluster, assembled in reading order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::cluster::members::{MembersSetup, Meta, Timing};
use crate::cluster::routes::RouteTable;
use crate::cluster::{Cluster, Handed, Identity, Setup};
use crate::entity::Entities;
use crate::gateway::admin::{Admin, Membership};
use crate::journal::postgres::{self, ClusterRecord, PgStore};
use crate::journal::{AnyStore, Holdings, Journal};
use crate::node::gossip::{Feeds, Gossip};
use crate::node::ports::PeerPort;
use crate::registry::{DeployError, Live, Registry};
use crate::router::{self, PeerMessenger, PeerService, Peers, Router, tls};
use crate::words::config::{ClusterConfig, Secret};
use crate::words::telemetry::Metrics;
use crate::words::{Revision, Status, limits};

/// What a member stands on before it is one: its identity, and the cluster's store.
pub struct Ground {
    identity: Identity,
    data_dir: PathBuf,
    record: ClusterRecord,
    /// Host and database, for people.
    pub store: String,
}

impl Ground {
    /// Locks the data directory and opens the cluster's journal, creating what a new cluster needs.
    pub async fn open(
        config: &ClusterConfig,
        data_dir: &Path,
        metrics: &Metrics,
    ) -> anyhow::Result<(Self, Journal)> {
        let identity = Identity::open(data_dir)?;
        let record = postgres::prepare(&config.store, config.shards).await?;
        let check = |key: &Secret| key_check(key, &record.cluster_id);
        let previous = config.key_previous.as_ref().map(check);
        postgres::admit(&config.store, &check(&config.key), previous.as_ref()).await?;
        if record.shards != config.shards && config.shards != limits::SHARDS_DEFAULT {
            tracing::warn!(
                "this cluster has {} shards since it was made; --shards {} changes nothing",
                record.shards,
                config.shards
            );
        }
        let holdings = Holdings::of_member(record.shards);
        let store = PgStore::open(&config.store, holdings.clone(), metrics.clone()).await?;
        let name = store.name().to_owned();
        let journal = Journal::start(AnyStore::Postgres(store), holdings, metrics.clone());
        let data_dir = data_dir.to_owned();
        Ok((Self { identity, data_dir, record, store: name }, journal))
    }
}

/// A member at work.
pub struct Member {
    pub cluster: Cluster,
    pub router: Router,
    pub membership: Arc<Membership>,
    gossip: Gossip,
    peers: Peers,
    listener: TcpListener,
}

impl Member {
    /// Registers the node with the cluster. From then on it claims shards. Where it fails, the node is no
    /// member.
    pub async fn join(
        ground: Ground,
        port: PeerPort,
        config: &ClusterConfig,
        registry: &Registry,
        entities: &Entities,
        journal: &Journal,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let cluster_id = hex::encode(ground.record.cluster_id);
        let identity = tls::Identity::new(
            &cluster_id,
            &config.key,
            config.key_previous.as_ref(),
            config.peer_tls.as_ref(),
        )?;
        let PeerPort { listener, gossip, address } = port;

        let me = ground.identity.node;
        let routes = RouteTable::new(me, ground.record.shards);
        let peers = Peers::new(me, identity, metrics.clone());
        let messenger = PeerMessenger { peers: peers.clone(), routes: routes.clone() };
        let (feeds, suspicions, liveness) = Feeds::new();
        let cluster = Cluster::start(Setup {
            config: config.clone(),
            identity: ground.identity,
            peer_addr: address,
            holdings: journal.holdings().clone(),
            entities: entities.clone(),
            routes: routes.clone(),
            messenger: Arc::new(messenger),
            suspicions,
            liveness,
            serving: serving(registry),
            metrics: metrics.clone(),
        })
        .await
        .context("the node cannot join its cluster")?;
        let setup = MembersSetup {
            socket: gossip,
            node: me,
            incarnation: *cluster.incarnation().borrow(),
            addr: address,
            meta: Meta {
                peer: address,
                zone: config.zone.clone(),
                capacity: config.capacity,
                version: config.version.clone(),
                draining: false,
            },
            key: config.key.clone(),
            key_previous: config.key_previous.clone(),
            cluster_id: ground.record.cluster_id,
            seeds: config.join.clone(),
            data_dir: ground.data_dir,
            metrics: metrics.clone(),
            timing: Timing::default(),
        };
        let gossip = match Gossip::start(setup, feeds, &cluster, registry) {
            Ok(gossip) => gossip,
            Err(error) => {
                leave(&cluster).await;
                return Err(error).context("gossip cannot start");
            }
        };
        let router = Router::clustered(
            entities.clone(),
            registry.clone(),
            journal.holdings().clone(),
            routes.clone(),
            peers.clone(),
        );
        let membership = Arc::new(Membership {
            cluster: cluster.clone(),
            cluster_id,
            holdings: journal.holdings().clone(),
            peers: peers.clone(),
        });
        Ok(Self { cluster, router, membership, gossip, peers, listener })
    }

    /// Serves other nodes, and follows what they deploy.
    pub fn serve(self, admin: &Admin) -> Serving {
        let registry = admin.registry.clone();
        let follow = Arc::new({
            let registry = registry.clone();
            move |wanted: Revision| -> BoxFuture<'static, Result<(), Status>> {
                let registry = registry.clone();
                Box::pin(async move {
                    registry.reach(wanted).await.map(drop).map_err(|error| not_followed(&error))
                })
            }
        });
        let take = Arc::new({
            let cluster = self.cluster.clone();
            move |handed: Vec<Handed>| -> BoxFuture<'static, bool> {
                let cluster = cluster.clone();
                Box::pin(async move { cluster.take(handed).await })
            }
        });
        let answer = Arc::new({
            let admin = admin.clone();
            move |method: String, payload: Bytes| -> BoxFuture<'static, _> {
                let admin = admin.clone();
                Box::pin(async move { admin.answer(&method, payload).await })
            }
        });
        let stop = CancellationToken::new();
        let following =
            tokio::spawn(follow_the_store(self.cluster.clone(), registry, self.peers.clone()));
        let service =
            PeerService { router: self.router, peers: self.peers, follow, take, admin: answer };
        let serving = tokio::spawn(router::serve(self.listener, service, stop.clone()));
        Serving {
            cluster: self.cluster,
            gossip: self.gossip,
            stop,
            serving,
            following: following.abort_handle(),
        }
    }
}

/// What must be ended when the node stops.
pub struct Serving {
    pub cluster: Cluster,
    gossip: Gossip,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    following: AbortHandle,
}

impl Serving {
    /// Gives every shard away while everything is still served.
    pub async fn drain(&self) {
        self.gossip.drain();
        let drained = tokio::time::timeout(limits::CLUSTER_DRAIN_MAX, self.cluster.drain()).await;
        match drained {
            Ok(Ok(())) => tracing::info!("every shard has another owner"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "shards could not be handed over; others take them when this node's lease has run out");
            }
            Err(_) => tracing::warn!(
                left = self.cluster.held(),
                "not every shard was handed over within {:?}",
                limits::CLUSTER_DRAIN_MAX
            ),
        }
    }

    /// Leaves the cluster. Nothing is served any more.
    pub async fn leave(self) {
        self.following.abort();
        leave(&self.cluster).await;
        self.gossip.leave().await;
        self.stop.cancel();
        if tokio::time::timeout(limits::ADMIN_DRAIN_MAX, self.serving).await.is_err() {
            tracing::warn!("some nodes' calls did not end within {:?}", limits::ADMIN_DRAIN_MAX);
        }
    }

    /// Nothing can be saved any more.
    pub fn abandon(&self) {
        self.following.abort();
        self.cluster.stop();
        self.stop.cancel();
    }
}

/// Frees what the node owns, so that nobody has to wait until its lease has run out.
pub async fn leave(cluster: &Cluster) {
    if let Err(error) = cluster.leave().await {
        tracing::warn!(%error, "the store could not be told that this node is gone");
    }
}

/// What the store keeps of a key, to know it again: SHA-256 over what HKDF-SHA256 extracts from it for this
/// purpose, and the cluster's id.
fn key_check(key: &Secret, cluster_id: &[u8; 16]) -> [u8; 32] {
    let (check, _) = Hkdf::<Sha256>::extract(Some(b"stead key check"), key.expose().as_bytes());
    let mut digest = Sha256::new();
    digest.update(check);
    digest.update(cluster_id);
    digest.finalize().into()
}

/// The live revision, and what of it this node cannot serve.
fn serving(registry: &Registry) -> watch::Receiver<(Revision, Option<String>)> {
    fn of(live: &Live) -> (Revision, Option<String>) {
        let broken: Vec<String> = live
            .broken
            .iter()
            .map(|(digest, reason)| format!("module {}: {reason}", digest.short()))
            .collect();
        (live.revision, (!broken.is_empty()).then(|| broken.join("; ")))
    }
    let mut revision = registry.watch();
    let (sender, receiver) = watch::channel(of(&registry.live()));
    let registry = registry.clone();
    tokio::spawn(async move {
        while revision.changed().await.is_ok() && !sender.is_closed() {
            sender.send_replace(of(&registry.live()));
        }
    });
    receiver
}

/// Makes what other nodes deployed live here, and forgets the connections to nodes that are gone.
async fn follow_the_store(cluster: Cluster, registry: Registry, peers: Peers) {
    let mut view = cluster.view();
    loop {
        let seen = view.borrow_and_update().clone();
        if !seen.is_stale {
            peers.retain(|node| seen.nodes.iter().any(|row| row.id == node));
        }
        follow(&registry, seen.revision).await;
        if view.changed().await.is_err() {
            return;
        }
    }
}

pub async fn follow(registry: &Registry, wanted: Revision) {
    if let Err(error) = registry.reach(wanted).await {
        tracing::warn!(%error, "cannot follow the deployments of other nodes; trying again");
    }
}

/// What callers are told. Why is in the log, of the one who follows the store.
fn not_followed(error: &DeployError) -> Status {
    tracing::debug!(%error, "a call needs a deployment that cannot be followed");
    Status::unavailable(
        "the entity's node cannot load the newest deployment yet; the command was not run, and a retry \
         is safe",
    )
}
