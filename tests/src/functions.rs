//! A load of effects, timers, workflows, consumers and views that goes on while hosts die, and what must be true
//! in the end: every effect happened once, every timer fired once, every workflow came to its end, every view
//! is what its journals say.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::Host;
use crate::client::Client;
use crate::model::{EVENT_SOURCED, EVERY_KIND};
use crate::rng::Rng;

/// The guests that have to be deployed.
pub const GUESTS: [&str; 2] = [EVERY_KIND, "checkout"];
const MODEL: &str = EVENT_SOURCED.model;
const TWO: &str = EVENT_SOURCED.two;
const VIEW: &str = "stead.tck.v1.ModelView";
const WORKERS: usize = 4;
const ENTITIES: u64 = 8;
const SHELVES: u64 = 4;
const TIMER_MS_MAX: u64 = 1_500;
/// Every so many orders, one has a customer who cannot pay.
const POOR_EVERY: usize = 4;
const QUIET_WITHIN: Duration = Duration::from_secs(120);

/// Where the hosts are at the moment.
pub type Places = Arc<RwLock<Vec<Client>>>;

/// One of them, and another one with another number.
fn place(places: &Places, number: usize) -> Client {
    let places = places.read().unwrap_or_else(PoisonError::into_inner);
    places[number % places.len()].clone()
}

/// After hosts have died or come.
pub fn move_to(places: &Places, to: Vec<Client>) {
    *places.write().unwrap_or_else(PoisonError::into_inner) = to;
}

pub struct FunctionLoad {
    places: Places,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<Sent>>,
}

/// What was acknowledged: which marks must be in which journals, and which orders there must be.
#[derive(Default)]
pub struct Sent {
    /// By service and entity.
    marks: HashMap<(&'static str, String), Vec<String>>,
    orders: Vec<Order>,
}

struct Order {
    id: String,
    is_poor: bool,
}

impl FunctionLoad {
    /// Stocks the shelves, and begins.
    pub async fn start(places: Places, rng: &mut Rng) -> Self {
        for shelf in 0..SHELVES {
            let body = json!({"quantity": 1_000_000});
            until_done(&places, &format!("/stock/s{shelf}"), &body, "stock", shelf as usize).await;
            let body = json!({"cents": "1000000000"});
            until_done(&places, &format!("/accounts/rich{shelf}"), &body, "rich", shelf as usize)
                .await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let workers = (0..WORKERS).map(|number| {
            let worker = Worker {
                number,
                places: places.clone(),
                stop: stop.clone(),
                acknowledged: acknowledged.clone(),
                rng: Rng::new(rng.number()),
                sent: Sent::default(),
            };
            tokio::spawn(worker.run())
        });
        let workers = workers.collect();
        Self { places, stop, acknowledged, workers }
    }

    /// Waits until so many more commands have been acknowledged.
    pub async fn progress(&self, more: usize, within: Duration) {
        let (start, until) = (Instant::now(), self.acknowledged.load(Ordering::Relaxed) + more);
        while self.acknowledged.load(Ordering::Relaxed) < until {
            assert!(start.elapsed() < within, "no progress");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the load, waits until all that it began has come to its end, and checks it.
    pub async fn stop_and_check(self, host: &Host) {
        self.stop.store(true, Ordering::Relaxed);
        let mut marks: HashMap<(&'static str, String), Vec<String>> = HashMap::new();
        let mut orders = Vec::new();
        for worker in self.workers {
            let sent = worker.await.expect("a worker");
            for (at, more) in sent.marks {
                marks.entry(at).or_default().extend(more);
            }
            orders.extend(sent.orders);
        }
        let services = place(&self.places, 0);
        for ((service, id), expected) in &marks {
            quiet(&format!("{service} {id}"), async || {
                let found = found(host, service, id).await;
                let missing: Vec<_> =
                    expected.iter().filter(|mark| !found.contains_key(*mark)).collect();
                if let Some((mark, times)) = found.iter().find(|(_, times)| **times != 1) {
                    panic!("{mark} is in the journal of {service} {id} {times} times");
                }
                match missing.first() {
                    None => Ok(()),
                    Some(mark) => Err(format!("{mark} and {} more are missing", missing.len() - 1)),
                }
            })
            .await;
        }
        let mut completed = BTreeMap::new();
        for order in &orders {
            let path = format!("/orders/{}", order.id);
            quiet(&path, async || {
                let status = services.get(&path).await.ok();
                let state = status["state"].as_str().unwrap_or_default().to_owned();
                if state != "COMPLETED" && state != "FAILED" {
                    return Err(status.to_string());
                }
                assert!(!order.is_poor || state == "FAILED", "{path}: {status}");
                completed.insert(order.id.clone(), state == "COMPLETED");
                Ok(())
            })
            .await;
        }
        accounts_are_right(&services, &completed).await;
        views_are_right(host, &services).await;
        println!("{} marks", marks.values().map(Vec::len).sum::<usize>());
    }
}

/// An order that was completed has reserved and charged, once each; one that failed has undone what it did.
async fn accounts_are_right(services: &Client, completed: &BTreeMap<String, bool>) {
    let (mut reserved, mut charged) = (BTreeMap::new(), BTreeMap::new());
    let collect = |into: &mut BTreeMap<String, usize>, by_order: &Value| {
        for order in by_order.as_object().expect("a map").keys() {
            *into.entry(order.clone()).or_default() += 1;
        }
    };
    for number in 0..SHELVES {
        let stock = services.get(&format!("/stock/s{number}")).await.ok();
        collect(&mut reserved, &stock["reserved"]);
        let account = services.get(&format!("/accounts/rich{number}")).await.ok();
        collect(&mut charged, &account["charged"]);
    }
    for (order, is_completed) in completed {
        let expected = is_completed.then_some(&1);
        assert_eq!(reserved.get(order), expected, "reserved by {order}");
        assert_eq!(charged.get(order), expected, "charged by {order}");
    }
    let (all, done) = (completed.len(), completed.values().filter(|done| **done).count());
    println!("{done} of {all} orders were completed, the others undone");
    assert!(done > 0, "no order was completed");
}

/// Every row is the fold of its entity's journal.
async fn views_are_right(host: &Host, services: &Client) {
    for entity in 0..ENTITIES {
        let id = format!("e{entity}");
        quiet(&format!("the row of {id}"), async || {
            let values = values(host, MODEL, &id).await;
            if values.is_empty() {
                return Ok(());
            }
            let row = services.post(&format!("/{VIEW}/Get"), &json!({"id": id})).await;
            let row = if row.status.is_success() { row.json() } else { Value::Null };
            let expected = (json!(values.concat()), json!(values.len().to_string()));
            match (row["text"].clone(), row["events"].clone()) == expected {
                true => Ok(()),
                false => Err(format!("{} events, and the row is {row}", values.len())),
            }
        })
        .await;
    }
}

async fn values(host: &Host, service: &str, id: &str) -> Vec<String> {
    if host.admin.try_get(&format!("/v1/entities/{service}/{id}")).await != Ok(http::StatusCode::OK)
    {
        return Vec::new();
    }
    let events = host.events(service, id).await;
    events.iter().map(|e| e["json"]["value"].as_str().expect("a value").to_owned()).collect()
}

/// How often each mark is in a journal.
async fn found(host: &Host, service: &str, id: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for value in values(host, service, id).await {
        *found.entry(value).or_insert(0) += 1;
    }
    found
}

async fn quiet(what: &str, mut check: impl AsyncFnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(reason) = check().await {
        assert!(start.elapsed() < QUIET_WITHIN, "{what}: {reason}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a command until it is acknowledged, with the same key each time, now here, now there.
async fn until_done(places: &Places, path: &str, body: &Value, key: &str, first: usize) {
    let start = Instant::now();
    for place in first.. {
        let client = self::place(places, place).with_header("idempotency-key", key);
        if client.try_post(path, body).await.is_ok() {
            return;
        }
        assert!(start.elapsed() < QUIET_WITHIN, "{path} is not acknowledged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Worker {
    number: usize,
    places: Places,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    rng: Rng,
    sent: Sent,
}

impl Worker {
    async fn run(mut self) -> Sent {
        for turn in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            match turn % 3 {
                0 => self.effect(turn).await,
                1 => self.timer(turn).await,
                _ => self.order(turn).await,
            }
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.sent
    }

    fn mark(&self, kind: &str, turn: usize) -> String {
        format!("{kind}{}-{turn};", self.number)
    }

    fn sent(&mut self, service: &'static str, id: String, mark: String) {
        self.sent.marks.entry((service, id)).or_default().push(mark);
    }

    /// An event of one entity, and an effect that makes one of another.
    async fn effect(&mut self, turn: usize) {
        let (own, other) = (self.mark("own", turn), self.mark("effect", turn));
        let (from, to) = (self.rng.below(ENTITIES), self.rng.below(ENTITIES));
        let synchronous = self.rng.below(2) == 0;
        let body = json!({"id": format!("e{from}"), "actions": [
            {"emit": {"value": own}},
            {"effect": {"id": format!("t{to}"), "synchronous": synchronous,
                "actions": [{"emit": {"value": other}}]}},
        ]});
        until_done(&self.places, &format!("/{MODEL}/Process"), &body, &own, turn).await;
        self.sent(MODEL, format!("e{from}"), own);
        self.sent(TWO, format!("t{to}"), other);
    }

    /// A timer that makes an event when it is due.
    async fn timer(&mut self, turn: usize) {
        let mark = self.mark("timer", turn);
        let entity = self.rng.below(ENTITIES);
        let after_ms = self.rng.below(TIMER_MS_MAX);
        let body = json!({"id": format!("e{entity}"), "actions": [
            {"emit": {"value": self.mark("set", turn)}},
            {"setTimer": {"name": mark, "afterMs": after_ms.to_string(),
                "actions": [{"emit": {"value": mark}}]}},
        ]});
        until_done(&self.places, &format!("/{MODEL}/Process"), &body, &mark, turn).await;
        self.sent(MODEL, format!("e{entity}"), mark);
    }

    /// A workflow of three steps; some fail at the second and undo the first.
    async fn order(&mut self, turn: usize) {
        let id = format!("o{}-{turn}", self.number);
        let is_poor = (turn / 3).is_multiple_of(POOR_EVERY);
        let shelf = self.rng.below(SHELVES);
        let customer = match is_poor {
            true => format!("poor{}-{turn}", self.number),
            false => format!("rich{shelf}"),
        };
        let body = json!({"sku": format!("s{shelf}"), "customer": customer, "quantity": 1,
            "cents": "100", "address": "somewhere"});
        until_done(&self.places, &format!("/orders/{id}"), &body, &id, turn).await;
        self.sent.orders.push(Order { id, is_poor });
    }
}
