//! Nodes of a cluster in one process: real peers over loopback, one store, and routes set by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::routes::{Route, RouteTable};
use crate::entity::{Consistency, Entities, EntitiesConfig, Origin, Request};
use crate::journal::memory::MemoryStore;
use crate::journal::{AnyStore, Holdings, Journal};
use crate::registry::testing::{component, describe, describing};
use crate::registry::{DeployRequest, Registry};
use crate::router::tls::Identity;
use crate::router::{PeerService, Peers, Router, serve};
use crate::wasm::fixtures::{Guest, engine};
use crate::words::config::{PeerTls, Secret, TlsFiles};
use crate::words::telemetry::Metrics;
use crate::words::{Address, Digest, Epoch, NodeId, Revision, Shard, Status, clock};

pub const SHARDS: u32 = 8;
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

const SERVICE: &str = r#"
    syntax = "proto3";
    package test.v1;
    import "stead/options.proto";
    message Event { string id = 1; }
    message M { string id = 1 [(stead.entity_key) = true]; }
    service Counter {
      rpc Add(M) returns (M);
      rpc Read(M) returns (M);
      rpc Refuse(M) returns (M);
      rpc Metadata(M) returns (M);
      rpc Spinning(M) returns (M);
    }
"#;

const ANOTHER: &str = r#"
    syntax = "proto3";
    package test.v1;
    import "stead/options.proto";
    message M { string id = 1 [(stead.entity_key) = true]; }
    service Another { rpc Add(M) returns (M); }
"#;

/// Told apart by the length of the method's name: Add emits an event, Read does not, Refuse rejects with
/// details, Metadata replies with the first value of the metadata.
const HANDLE: &str = r#"
    (if (i32.eq (local.get $method_len) (i32.const 6))
      (then
        (i32.store8 (i32.const 16) (i32.const 1))
        (i32.store (i32.const 20) (i32.const 9))
        (call $pair (i32.const 24) (i32.const 1120) (i32.const 7))
        (call $pair (i32.const 32) (i32.const 256) (i32.const 1))
        (call $pair (i32.const 256) (i32.const 1088) (i32.const 13))
        (call $pair (i32.const 264) (i32.const 1152) (i32.const 9))
        (return (i32.const 16))))
    (if (i32.and (i32.eq (local.get $method_len) (i32.const 8)) (local.get $metadata_len))
      (then
        (call $pair (i32.const 24)
          (i32.load offset=8 (local.get $metadata)) (i32.load offset=12 (local.get $metadata)))
        (return (i32.const 16))))
    (call $pair (i32.const 24) (local.get $payload) (local.get $payload_len))
    (if (i32.eq (local.get $method_len) (i32.const 3))
      (then
        (call $pair (i32.const 256) (i32.const 1088) (i32.const 13))
        (call $pair (i32.const 264) (local.get $payload) (local.get $payload_len))
        (call $pair (i32.const 64) (i32.const 256) (i32.const 1))))
    (i32.const 16)
"#;

pub struct Cluster {
    pub store: MemoryStore,
}

pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    pub journal: Journal,
    pub registry: Registry,
    pub holdings: Holdings,
    pub routes: RouteTable,
    pub peers: Peers,
    pub router: Router,
    pub metrics: Metrics,
    /// How often it was told to follow a deployment.
    pub followed: Arc<AtomicUsize>,
    /// While somebody holds this, it does not get to it.
    pub following: Arc<Mutex<()>>,
    /// Of its peer port.
    pub shutdown: CancellationToken,
    _guard: DropGuard,
}

pub fn with_key(key: &str) -> Identity {
    Identity::new("cluster", &Secret::new(key), None, None).unwrap()
}

pub fn with_keys(key: &str, previous: &str) -> Identity {
    Identity::new("cluster", &Secret::new(key), Some(&Secret::new(previous)), None).unwrap()
}

pub fn with_certificates() -> Identity {
    let file =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway/testing").join(name);
    let files = TlsFiles { certificate: file("certificate.pem"), key: file("key.pem") };
    let files = PeerTls { files, ca: file("certificate.pem") };
    Identity::new("cluster", &Secret::new(KEY), None, Some(&files)).unwrap()
}

impl Cluster {
    pub fn new() -> Self {
        Self { store: MemoryStore::default() }
    }

    pub async fn node(&self, number: u8) -> Node {
        self.node_with(number, with_key(KEY)).await
    }

    /// Deploys the service if it is the first.
    pub async fn node_with(&self, number: u8, identity: Identity) -> Node {
        let id = NodeId([number; 16]);
        let metrics = Metrics::default();
        let holdings = Holdings::of_member(SHARDS);
        holdings.extend_lease(clock::boot_time() + Duration::from_secs(600));
        let store = AnyStore::Memory(self.store.clone());
        let journal = Journal::start(store, holdings.clone(), metrics.clone());
        let registry = Registry::open(engine(), journal.clone()).await.unwrap();
        if registry.live().services.is_empty() {
            deploy(&registry, counter("")).await;
        }
        let config = EntitiesConfig { hot_entities_max: 100, ..EntitiesConfig::default() };
        let entities = Entities::new(registry.clone(), journal.clone(), metrics.clone(), config);
        let routes = RouteTable::new(id, SHARDS);
        let peers = Peers::new(id, identity, metrics.clone());
        let router = Router::clustered(
            entities,
            registry.clone(),
            holdings.clone(),
            routes.clone(),
            peers.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (followed, following) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
        let service = PeerService {
            router: router.clone(),
            peers: peers.clone(),
            follow: Arc::new({
                let (followed, following) = (followed.clone(), following.clone());
                let registry = registry.clone();
                move |wanted: Revision| {
                    followed.fetch_add(1, Ordering::SeqCst);
                    let (following, registry) = (following.clone(), registry.clone());
                    Box::pin(async move {
                        let _turn = following.lock().await;
                        registry.reach(wanted).await.unwrap();
                        Ok(())
                    })
                }
            }),
            take: Arc::new(|shards| Box::pin(async move { shards.len() == 1 })),
            admin: Arc::new(|method, payload| {
                Box::pin(async move {
                    match &*method {
                        "Echo" => Ok(payload),
                        _ => Err(Status::unimplemented(method)),
                    }
                })
            }),
        };
        tokio::spawn(serve(listener, service, stop.clone()));
        let _guard = stop.clone().drop_guard();
        Node {
            id,
            address,
            journal,
            registry,
            holdings,
            routes,
            peers,
            router,
            metrics,
            followed,
            following,
            shutdown: stop,
            _guard,
        }
    }
}

fn counter(salt: &str) -> Bytes {
    let description = describe(SERVICE, &[("test.v1.Counter", "counters")]);
    let salt = format!("(;items;)(global i32 (i32.const {}))", salt.len());
    let guest = Guest::new().with("handle", HANDLE).replacing("(;items;)", &salt);
    describing(guest, &description)
}

async fn deploy(registry: &Registry, module: Bytes) {
    let upload = registry.upload("module.wasm", module).await.unwrap();
    let modules = vec![upload.record.digest];
    let request = DeployRequest {
        modules,
        plan: false,
        force: false,
        note: String::new(),
        allow: Vec::new(),
    };
    registry.deploy(request).await.unwrap();
}

pub fn address(id: &str) -> Address {
    Address::new("counters", id)
}

/// Of entity `ada`.
pub fn shard() -> Shard {
    address("ada").shard(SHARDS)
}

/// Everybody knows where everybody is.
pub fn acquaint(nodes: &[&Node]) {
    let all: HashMap<_, _> = nodes.iter().map(|node| (node.id, node.address)).collect();
    for node in nodes {
        node.routes.set_addresses(all.clone());
    }
}

pub fn route(owner: &Node, epoch: u64) -> Route {
    Route { owner: Some(owner.id), epoch: Epoch(epoch) }
}

impl Node {
    /// Another module of the same code.
    pub async fn redeploy(&self) {
        deploy(&self.registry, counter("more")).await;
    }

    /// A module of another service, beside the one that is there.
    pub async fn deploy_another(&self) {
        let description = describe(ANOTHER, &[("test.v1.Another", "others")]);
        deploy(&self.registry, component(&description)).await;
    }

    /// The module that serves the counters here.
    pub fn module(&self) -> Option<Digest> {
        self.registry.live().module_of("test.v1.Counter")
    }

    pub fn entities(&self) -> &Entities {
        &self.router.entities
    }

    /// The store's row says so, and this node has read it.
    pub fn learn(&self, owner: &Node, epoch: u64) {
        self.routes.learn(shard(), route(owner, epoch));
    }

    pub fn own(&self, epoch: u64) {
        self.holdings.grant(shard(), Epoch(epoch));
        self.learn(self, epoch);
        self.routes.announce();
    }

    pub fn request(&self, method: &str) -> Request {
        let live = self.registry.live();
        let (service, method) = live.method("test.v1.Counter", method).unwrap();
        Request {
            service: service.clone(),
            method: method.clone(),
            payload: Bytes::from_static(b"\n\x03ada"),
            metadata: Vec::new(),
            idempotency_key: None,
            deadline: clock::now() + Duration::from_secs(20),
            request_id: "test".into(),
            consistency: Consistency::default(),
            trail: Default::default(),
            origin: Origin::Client,
            fresh: None,
        }
    }

    pub async fn call(&self, method: &str) -> Result<Bytes, Status> {
        self.router.call(self.request(method)).await
    }

    pub async fn stored(&self) -> u64 {
        self.journal.load(&address("ada"), None).await.unwrap().seq.0
    }

    /// How often its forwards ended so.
    pub fn forwards(&self, result: &str) -> u64 {
        let text = self.metrics.render();
        let name = format!("stead_forwards_total{{result=\"{result}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&name))
            .map_or(0, |count| count.parse().unwrap())
    }
}

/// Returns once `condition` holds; fails the test if that takes 10 s.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let patience = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), patience).await;
    assert!(waited.is_ok(), "{what}: not within 10 s");
}
