//! An entity floor of its own for each test.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, SerializeOptions};
use serde_json::Value;
use stead::entity::{CallError, Entities, EntitiesConfig, Request};
use stead::journal::memory::MemoryStore;
use stead::journal::{AnyStore, Holdings, Journal};
use stead::registry::{DeployRequest, Registry};
use stead::wasm::{Engine, EngineConfig};
use stead::words::telemetry::Metrics;
use stead::words::{Address, Epoch, Shard, Status, clock};

pub const CART: &str = "com.example.shoppingcart.ShoppingCart";
pub const MODEL: &str = "stead.tck.v1.EventSourcedModel";
pub const TWO: &str = "stead.tck.v1.EventSourcedTwo";
/// A guest with functions of every kind.
pub const EVERY_KIND: &str = "tck-every-kind";
pub const MISBEHAVING: &str = "misbehaving.v1.Misbehaving";

pub struct House {
    pub store: MemoryStore,
    pub journal: Journal,
    pub registry: Registry,
    pub entities: Entities,
    pub metrics: Metrics,
}

impl House {
    /// With these guests deployed.
    pub async fn with(guests: &[&str]) -> Self {
        Self::sized(guests, 1_000).await
    }

    pub async fn sized(guests: &[&str], hot_entities_max: usize) -> Self {
        Self::holding(guests, hot_entities_max, Holdings::alone()).await
    }

    /// Of a member of a cluster that holds no shard yet.
    pub async fn member(guests: &[&str]) -> Self {
        Self::holding(guests, 1_000, Holdings::of_member(8)).await
    }

    async fn holding(guests: &[&str], hot_entities_max: usize, holdings: Holdings) -> Self {
        let house = Self::over(MemoryStore::default(), hot_entities_max, holdings).await;
        for guest in guests {
            house.deploy(guest, &[]).await;
        }
        house
    }

    /// As a process that starts over what another one left.
    pub async fn again(store: &MemoryStore) -> Self {
        Self::over(store.clone(), 1_000, Holdings::alone()).await
    }

    async fn over(store: MemoryStore, hot_entities_max: usize, holdings: Holdings) -> Self {
        Self::bounded(store, hot_entities_max, holdings, EntitiesConfig::default()).await
    }

    /// With so little room in memory for what waits.
    pub async fn with_room_for(effects: usize, timers: usize, store: &MemoryStore) -> Self {
        let bounds = EntitiesConfig {
            effects_in_memory_max: effects,
            timers_in_memory_max: timers,
            ..EntitiesConfig::default()
        };
        Self::bounded(store.clone(), 1_000, Holdings::alone(), bounds).await
    }

    async fn bounded(
        store: MemoryStore,
        hot_entities_max: usize,
        holdings: Holdings,
        bounds: EntitiesConfig,
    ) -> Self {
        let metrics = Metrics::default();
        let journal = Journal::start(AnyStore::Memory(store.clone()), holdings, metrics.clone());
        let config = EngineConfig { instances_max: 1_000, ..EngineConfig::default() };
        let engine = Engine::new(config).expect("an engine");
        let registry = Registry::open(engine, journal.clone()).await.expect("a registry");
        let config = EntitiesConfig {
            hot_entities_max,
            hot_bytes_max: 1 << 30,
            effect_tries_max: 3,
            ..bounds
        };
        let entities = Entities::new(registry.clone(), journal.clone(), metrics.clone(), config);
        Self { store, journal, registry, entities, metrics }
    }

    /// Deploys a guest. `salt` makes another module of the same code (a custom section at its end).
    pub async fn deploy(&self, guest: &str, salt: &[u8]) {
        let mut bytes = std::fs::read(stead_tests::files::guest(guest)).expect("a guest");
        if !salt.is_empty() {
            let name = b"salt";
            bytes.push(0);
            bytes.push(u8::try_from(1 + name.len() + salt.len()).expect("a short salt"));
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(salt);
        }
        let upload = self.registry.upload(guest, bytes.into()).await.expect("an upload");
        let request = DeployRequest {
            modules: vec![upload.record.digest],
            plan: false,
            force: false,
            note: String::new(),
            allow: Vec::new(),
        };
        self.registry.deploy(request).await.expect("a deployment");
    }

    pub fn request(&self, service: &str, method: &str, json: Value) -> Request {
        let live = self.registry.live();
        let (service, method) = live.method(service, method).expect("a method");
        let message = DynamicMessage::deserialize_with_options(
            method.descriptor.input(),
            json,
            &DeserializeOptions::new(),
        )
        .expect("a request");
        Request {
            service: service.clone(),
            method: method.clone(),
            payload: message.encode_to_vec().into(),
            metadata: Vec::new(),
            idempotency_key: None,
            deadline: clock::now() + Duration::from_secs(20),
            request_id: "test".into(),
            consistency: stead::entity::Consistency::default(),
            trail: Default::default(),
            origin: stead::entity::Origin::Client,
            fresh: None,
        }
    }

    pub async fn call(&self, service: &str, method: &str, json: Value) -> Result<Value, Status> {
        let request = self.request(service, method, json);
        self.send(request).await
    }

    pub async fn send(&self, request: Request) -> Result<Value, Status> {
        let output = request.method.descriptor.output();
        let reply: Bytes = self.entities.call(request).await.map_err(CallError::into_status)?;
        let message = DynamicMessage::decode(output, reply).expect("a reply");
        let options = SerializeOptions::new().skip_default_fields(false);
        Ok(message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .expect("a reply in JSON"))
    }

    pub async fn add(&self, user: &str, product: &str) -> Result<Value, Status> {
        self.send(self.adding(user, product)).await
    }

    pub fn adding(&self, user: &str, product: &str) -> Request {
        let json = serde_json::json!({"userId": user, "productId": product, "quantity": 1});
        self.request(CART, "AddItem", json)
    }

    /// The cart as `product x quantity`, sorted.
    pub async fn cart(&self, user: &str) -> Result<Vec<String>, Status> {
        let cart = self.call(CART, "GetCart", serde_json::json!({"userId": user})).await?;
        let items = cart["items"].as_array().expect("items");
        Ok(items
            .iter()
            .map(|item| format!("{} x {}", item["productId"].as_str().unwrap(), item["quantity"]))
            .collect())
    }

    /// Tells the event-sourced model what to do.
    pub fn telling(&self, id: &str, actions: Value) -> Request {
        self.request(MODEL, "Process", serde_json::json!({"id": id, "actions": actions}))
    }

    /// The model's state after it did that.
    pub async fn tell(&self, id: &str, actions: Value) -> Result<String, Status> {
        let reply = self.send(self.telling(id, actions)).await?;
        Ok(reply["message"].as_str().expect("a message").to_owned())
    }

    /// The state of the entity that the model calls.
    pub async fn two(&self, id: &str) -> String {
        let reply = self.call(TWO, "Call", serde_json::json!({"id": id})).await.expect("a reply");
        reply["message"].as_str().expect("a message").to_owned()
    }

    pub async fn stored_events(&self, address: &Address) -> usize {
        self.journal.load(address, None).await.expect("a journal").seq.0 as usize
    }

    /// The value of a metric's line that starts with `name`, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.render();
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Holds all shards of the house under this epoch.
pub fn grant_all(house: &House, epoch: u64) {
    let holdings = house.journal.holdings();
    for shard in (0..holdings.shards()).map(Shard) {
        assert!(holdings.grant(shard, Epoch(epoch)));
    }
    holdings.extend_lease(clock::boot_time() + Duration::from_secs(600));
}

pub fn cart(user: &str) -> Address {
    Address::new("shopping-cart", user)
}

/// Returns once `condition` holds; fails the test if that takes 10 s.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let patience = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), patience).await.is_err() {
        panic!("{what}: not within 10 s");
    }
}

/// As [`eventually`], of something that has to be asked for.
pub async fn becomes<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let patience = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), patience).await.is_err() {
        panic!("{what}: not within 10 s");
    }
}

/// A call that runs by itself.
pub fn spawn<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(call)
}

pub fn shared(house: House) -> Arc<House> {
    Arc::new(house)
}
