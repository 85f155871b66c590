//! Clients that use the carts of a cluster while it is being broken, and remember what they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cart::{self, SERVICE};
use crate::client::{Answer, Client};
use crate::host::Host;
use crate::linear::models::{Cart, CartAnswer, CartCall};
use crate::linear::{self, History, Operation, Verdict};
use crate::rng::Rng;

const CLIENTS: usize = 16;
const ENTITIES: usize = 200;
/// Entities that get half of all calls, so that calls of one entity meet.
const HOT_ENTITIES: usize = 8;
/// After so many calls a client turns to a new entity in the place of the old one: histories that are
/// short are judged fast.
const CALLS_PER_ENTITY: usize = 200;
const TRY_WITHIN: Duration = Duration::from_secs(3);
/// Tries of a call that has an idempotency key.
const TRIES_MAX: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// What the host says of a command that took no effect.
const TOOK_NO_EFFECT: [&str; 3] = ["nothing was changed", "nothing was stored", "was not run"];
/// Reasons of failed calls that are kept.
const REASONS_MAX: usize = 20;

/// Sixteen clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Vec<Recorded>>,
}

struct Shared {
    start: Instant,
    stop: AtomicBool,
    services: Vec<Client>,
    entities: Vec<AtomicUsize>,
    products: AtomicUsize,
    told: Told,
}

/// How many calls ended how, and what the first that failed were told.
#[derive(Debug, Default)]
pub struct Told {
    pub done: AtomicUsize,
    pub refused: AtomicUsize,
    pub unknown: AtomicUsize,
    reasons: Mutex<Vec<String>>,
}

impl Told {
    pub fn failed(&self) -> usize {
        self.refused.load(Ordering::Relaxed) + self.unknown.load(Ordering::Relaxed)
    }

    fn fail(&self, count: &AtomicUsize, at: Duration, entity: &str, reason: &str) {
        count.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.reasons.lock().expect("no poison");
        if reasons.len() < REASONS_MAX {
            reasons.push(format!("after {at:.1?}, {entity}: {reason}"));
        }
    }
}

struct Recorded {
    entity: String,
    operation: Operation<CartCall, CartAnswer>,
}

/// What one try told.
#[derive(Debug)]
pub enum Outcome {
    Done(Box<Answer>),
    /// It took no effect.
    Refused(String),
    /// It may have taken effect, or still may.
    Unknown(String),
}

impl Load {
    /// Each client calls all of the nodes, now one, then another.
    pub fn start(services: Vec<Client>, rng: &mut Rng) -> Self {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            services,
            entities: (0..ENTITIES).map(|_| AtomicUsize::new(0)).collect(),
            products: AtomicUsize::new(0),
            told: Told::default(),
        });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(run(client, shared.clone(), Rng::new(rng.number())));
        }
        Self { shared, clients }
    }

    pub fn told(&self) -> &Told {
        &self.shared.told
    }

    /// Waits until some more calls were answered.
    pub async fn progress(&self, calls: usize, within: Duration) {
        let start = Instant::now();
        let wanted = self.shared.told.done.load(Ordering::Relaxed) + calls;
        while self.shared.told.done.load(Ordering::Relaxed) < wanted {
            assert!(start.elapsed() < within, "no progress in {within:?}: {:?}", self.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it, and sorts what was recorded by entity.
    pub async fn stop(mut self) -> Histories {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut entities: BTreeMap<String, History<Cart>> = BTreeMap::new();
        while let Some(recorded) = self.clients.join_next().await {
            for Recorded { entity, operation } in recorded.expect("a client") {
                entities.entry(entity).or_default().push(operation);
            }
        }
        println!("calls: {:?}, of {} entities", self.shared.told, entities.len());
        Histories { entities }
    }
}

async fn run(client: usize, shared: Arc<Shared>, mut rng: Rng) -> Vec<Recorded> {
    let mut recorded = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let entity = shared.entity(&mut rng);
        let invoked = shared.start.elapsed();
        let (call, answer) = match rng.below(2) {
            0 => {
                let product = format!("p{}", shared.products.fetch_add(1, Ordering::Relaxed));
                let is_keyed = rng.below(2) == 0;
                let outcome = shared.add(&entity, &product, is_keyed, &mut rng).await;
                (CartCall::Add(product), outcome)
            }
            _ => (CartCall::Get, shared.get(&entity, &mut rng).await),
        };
        let returned = shared.start.elapsed();
        let told = &shared.told;
        let returned = match answer {
            Outcome::Done(answer) => {
                told.done.fetch_add(1, Ordering::Relaxed);
                let answer = match call {
                    CartCall::Add(_) => CartAnswer::Added,
                    CartCall::Get => CartAnswer::Items(cart::items(&answer.json())),
                };
                Some((returned, answer))
            }
            Outcome::Refused(reason) => {
                told.fail(&told.refused, returned, &entity, &reason);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Outcome::Unknown(reason) => {
                told.fail(&told.unknown, returned, &entity, &reason);
                None
            }
        };
        recorded
            .push(Recorded { entity, operation: Operation { client, call, invoked, returned } });
        tokio::time::sleep(PAUSE).await;
    }
    recorded
}

impl Shared {
    fn entity(&self, rng: &mut Rng) -> String {
        let bound = if rng.below(2) == 0 { HOT_ENTITIES } else { ENTITIES };
        let place = rng.below(bound as u64) as usize;
        let life = self.entities[place].fetch_add(1, Ordering::Relaxed) / CALLS_PER_ENTITY;
        format!("cart-{place}-{life}")
    }

    fn service(&self, rng: &mut Rng) -> &Client {
        &self.services[rng.below(self.services.len() as u64) as usize]
    }

    async fn get(&self, entity: &str, rng: &mut Rng) -> Outcome {
        try_once(self.service(rng), "GET", &format!("/carts/{entity}"), None, "").await
    }

    /// With a key, it is tried again until its fate is known; without one, never after its fate was not.
    async fn add(&self, entity: &str, product: &str, is_keyed: bool, rng: &mut Rng) -> Outcome {
        let item = json!({"productId": product, "name": product, "quantity": 1}).to_string();
        let path = format!("/cart/{entity}/items/add");
        let key = is_keyed.then_some(product);
        let mut was_unknown = None;
        for _ in 0..TRIES_MAX {
            match try_once(self.service(rng), "POST", &path, key, &item).await {
                Outcome::Done(answer) => return Outcome::Done(answer),
                Outcome::Unknown(reason) if is_keyed => was_unknown = Some(reason),
                Outcome::Unknown(reason) => return Outcome::Unknown(reason),
                Outcome::Refused(reason) => {
                    if !is_keyed || self.stop.load(Ordering::Relaxed) {
                        return was_unknown.map_or(Outcome::Refused(reason), Outcome::Unknown);
                    }
                }
            }
            tokio::time::sleep(PAUSE * 5).await;
        }
        match was_unknown {
            Some(reason) => Outcome::Unknown(reason),
            None => Outcome::Refused("it was refused each time".into()),
        }
    }
}

/// Sends a call, and says what is known of it afterwards.
pub async fn try_once(
    services: &Client,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: &str,
) -> Outcome {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", services.base()))
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    match tokio::time::timeout(TRY_WITHIN, services.try_send(request)).await {
        Ok(Ok(answer)) => judge(answer),
        Ok(Err(error)) if error.contains("Connect") => Outcome::Refused(error),
        Ok(Err(error)) => Outcome::Unknown(error),
        Err(_) => Outcome::Unknown(format!("no answer within {TRY_WITHIN:?}")),
    }
}

/// What the host promises with a status and a sentence.
fn judge(answer: Answer) -> Outcome {
    let text = answer.text();
    match answer.status {
        StatusCode::OK => Outcome::Done(Box::new(answer)),
        status if status.as_u16() == 499 || status == StatusCode::REQUEST_TIMEOUT => {
            Outcome::Unknown(text)
        }
        status if status.is_client_error() => Outcome::Refused(text),
        _ if TOOK_NO_EFFECT.iter().any(|words| text.contains(words)) => Outcome::Refused(text),
        _ => Outcome::Unknown(text),
    }
}

/// What clients saw, by entity.
pub struct Histories {
    entities: BTreeMap<String, History<Cart>>,
}

impl Histories {
    /// Everything was as if each entity existed once: by the checker for what was answered, by the journals
    /// for what was acknowledged.
    pub async fn check(&self, host: &Host) {
        self.check_answers();
        self.check_journals(host).await;
    }

    pub fn check_answers(&self) {
        let mut undecided = 0;
        for (entity, history) in &self.entities {
            match linear::check::<Cart>(history) {
                Verdict::Linearizable => {}
                Verdict::Violated => panic!("{entity}: {}", linear::explain::<Cart>(history)),
                Verdict::Undecided => undecided += 1,
            }
        }
        assert_eq!(undecided, 0, "the histories of so many entities are too hard to judge");
    }

    /// Every acknowledged command is there exactly once, and nothing that nobody sent.
    pub async fn check_journals(&self, host: &Host) {
        let mut acknowledged = 0;
        for (entity, history) in &self.entities {
            let mut stored: BTreeMap<String, usize> = BTreeMap::new();
            for event in host.events(SERVICE, entity).await {
                let product = event["json"]["item"]["productId"].as_str().expect("a product");
                *stored.entry(product.to_owned()).or_default() += 1;
            }
            for operation in history {
                let CartCall::Add(product) = &operation.call else { continue };
                let times = stored.remove(product).unwrap_or_default();
                let known = operation.returned.is_some();
                acknowledged += usize::from(known);
                let is_fine = times == 1 || times == 0 && !known;
                assert!(
                    is_fine,
                    "{entity}: {product} is there {times} times, acknowledged: {known}"
                );
            }
            assert!(stored.is_empty(), "{entity}: nobody is known to have added {stored:?}");
        }
        println!("{acknowledged} acknowledged commands are there exactly once");
    }

    pub fn calls(&self) -> usize {
        self.entities.values().map(Vec::len).sum()
    }
}
