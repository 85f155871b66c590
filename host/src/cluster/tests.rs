//! Several members in one process, on one PostgreSQL server.

mod ownership;

mod truth;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use crate::cluster::handle::{Cluster, Handed, Messenger, Setup, StartError};
use crate::cluster::identity::Identity;
use crate::cluster::newcomer::Greeting;
use crate::cluster::routes::RouteTable;
use crate::entity::{Entities, EntitiesConfig};
use crate::journal::memory::MemoryStore;
use crate::journal::postgres;
use crate::journal::postgres::server::Server;
use crate::journal::{AnyStore, Holdings, Journal};
use crate::registry::Registry;
use crate::wasm::{Engine, EngineConfig};
use crate::words::config::{ClusterConfig, Secret};
use crate::words::telemetry::Metrics;
use crate::words::{Epoch, NodeId, Revision, Shard, clock};

const SHARDS: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// A new cluster's database, and its name.
async fn database(server: &Server) -> (String, String) {
    let url = server.database();
    let name = url.rsplit('/').next().unwrap().to_owned();
    postgres::prepare(&Secret::new(url.as_str()), SHARDS).await.unwrap();
    (url, name)
}

/// Delivers at once what members have to say to each other.
#[derive(Clone, Default)]
struct Net {
    members: Arc<Mutex<HashMap<NodeId, Cluster>>>,
    /// Where they are, or were, nobody is let in.
    closed: Arc<Mutex<HashSet<NodeId>>>,
}

impl Messenger for Net {
    fn hand_over(&self, to: NodeId, handed: Vec<Handed>) -> BoxFuture<'static, bool> {
        let cluster = self.members.lock().get(&to).cloned();
        Box::pin(async move {
            match cluster {
                Some(cluster) => cluster.take(handed).await,
                None => false,
            }
        })
    }

    fn greet(&self, node: NodeId, _at: SocketAddr) -> BoxFuture<'static, Greeting> {
        let greeting = match self.closed.lock().contains(&node) {
            true => Greeting::Refused("it has another key".into()),
            false => Greeting::Met,
        };
        Box::pin(std::future::ready(greeting))
    }
}

struct Member {
    cluster: Cluster,
    holdings: Holdings,
    metrics: Metrics,
    suspicions: mpsc::Sender<NodeId>,
    serving: watch::Sender<(Revision, Option<String>)>,
}

impl Member {
    async fn start(url: &str, dir: &Path, net: &Net) -> Self {
        Self::try_start(url, Identity::open(dir).unwrap(), net, true).await.unwrap()
    }

    /// Without `--fast-failover`.
    async fn start_slow(url: &str, dir: &Path, net: &Net) -> Self {
        Self::try_start(url, Identity::open(dir).unwrap(), net, false).await.unwrap()
    }

    async fn try_start(
        url: &str,
        identity: Identity,
        net: &Net,
        fast_failover: bool,
    ) -> Result<Self, StartError> {
        let holdings = Holdings::of_member(SHARDS);
        let metrics = Metrics::default();
        let store = AnyStore::Memory(MemoryStore::default());
        let journal = Journal::start(store, holdings.clone(), metrics.clone());
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let registry = Registry::open(engine, journal.clone()).await.unwrap();
        let config = EntitiesConfig { hot_entities_max: 100, ..EntitiesConfig::default() };
        let entities = Entities::new(registry, journal, metrics.clone(), config);
        let (suspicions, suspected) = mpsc::channel(8);
        let (serving, served) = watch::channel((Revision(0), None));
        let node = identity.node;
        let peer = "127.0.0.1:7834".parse().unwrap();
        let cluster = Cluster::start(Setup {
            config: ClusterConfig {
                store: Secret::new(url),
                peer,
                advertise: None,
                join: Vec::new(),
                key: Secret::new("0123456789abcdef"),
                key_previous: None,
                zone: "a".into(),
                capacity: 100,
                shards: SHARDS,
                fast_failover,
                peer_tls: None,
                version: "1".into(),
            },
            routes: RouteTable::new(identity.node, SHARDS),
            identity,
            peer_addr: peer,
            holdings: holdings.clone(),
            entities,
            messenger: Arc::new(net.clone()),
            suspicions: suspected,
            liveness: watch::channel(Arc::default()).1,
            serving: served,
            metrics: metrics.clone(),
        })
        .await?;
        net.members.lock().insert(node, cluster.clone());
        Ok(Self { cluster, holdings, metrics, suspicions, serving })
    }

    fn node(&self) -> NodeId {
        self.cluster.node()
    }

    /// Nothing of it runs any more, but for what answers from memory while the lease lasts.
    fn crash(&self, net: &Net) {
        net.members.lock().remove(&self.node());
        self.cluster.0.stop.cancel();
    }

    /// Shards that could be answered from memory now.
    fn serves(&self) -> Vec<(Shard, Epoch)> {
        let held = self.holdings.held();
        if self.holdings.lease_holds() { held } else { Vec::new() }
    }
}

/// No shard is served by two members. Sampled, so that a fault shows with luck only; but never wrongly.
fn assert_one_server(members: &[&Member]) {
    let mut servers: HashMap<Shard, (NodeId, Epoch)> = HashMap::new();
    // Who was asked first may have lost the shard since, so each is asked again.
    for member in members {
        for (shard, epoch) in member.serves() {
            let Some((other, at)) = servers.insert(shard, (member.node(), epoch)) else { continue };
            let still = members
                .iter()
                .find(|member| member.node() == other)
                .is_some_and(|member| member.serves().contains(&(shard, at)));
            let closing = members
                .iter()
                .any(|member| member.node() == other && member.holdings.is_closing(shard));
            assert!(!still || closing, "shard {shard} is served by two: epochs {at} and {epoch}");
        }
    }
}

/// However busy the machine is: how long it takes is measured elsewhere.
async fn until(what: &str, members: &[&Member], is_so: impl Fn() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !is_so() {
        assert_one_server(members);
        assert!(clock::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn held(members: &[&Member]) -> usize {
    members.iter().map(|member| member.serves().len()).sum()
}

async fn until_all_held(members: &[&Member]) {
    let all = SHARDS as usize;
    until("every shard to be held", members, || held(members) == all).await;
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}
