//! SIGKILL at random moments under load. Every acknowledged command is there exactly once; every
//! journal is without gap and without duplicate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::client::{Client, Failure};
use stead_tests::rng::Rng;

const ROUNDS: usize = 20;
const WORKERS: usize = 16;
const CARTS: usize = 8;
const ROUND_MS_MAX: u64 = 400;
/// What every round acknowledges at least, so that none of them proves nothing.
const ACKNOWLEDGED_MIN: usize = 20;
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// One client: its commands in order, each with a product and an idempotency key of its own.
struct Worker {
    number: usize,
    sent: usize,
    /// The command whose fate is unknown, to be repeated with its key.
    unanswered: Option<usize>,
    acknowledged: Vec<usize>,
}

impl Worker {
    fn cart(&self) -> String {
        format!("cart-{}", self.number % CARTS)
    }

    fn product(&self, command: usize) -> String {
        format!("w{}-{command}", self.number)
    }

    /// Sends commands until the host is gone.
    async fn run(mut self, services: Client, acknowledged: Arc<AtomicUsize>) -> Self {
        loop {
            let command = self.unanswered.unwrap_or(self.sent);
            let product = self.product(command);
            let item = json!({"productId": product, "name": product, "quantity": 1});
            let keyed = services.with_header("idempotency-key", &product);
            let path = format!("/cart/{}/items/add", self.cart());
            if self.unanswered.is_none() {
                self.sent += 1;
            }
            self.unanswered = Some(command);
            match keyed.try_post(&path, &item).await {
                Ok(_) => {
                    self.acknowledged.push(command);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.unanswered = None;
                }
                Err(Failure::Connection(_)) => return self,
                Err(Failure::Answered(status, text)) => panic!("{status}: {text}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_by_twenty_kills() {
    let mut rng = Rng::from_env();
    let mut host = Host::with_guest(GUEST).await;
    let mut workers: Vec<_> = (0..WORKERS)
        .map(|number| Worker { number, sent: 0, unanswered: None, acknowledged: Vec::new() })
        .collect();
    for round in 0..ROUNDS {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = workers
            .drain(..)
            .map(|worker| tokio::spawn(worker.run(host.services.clone(), acknowledged.clone())))
            .collect();
        let start = Instant::now();
        while acknowledged.load(Ordering::Relaxed) < ACKNOWLEDGED_MIN {
            assert!(start.elapsed() < PROGRESS_WITHIN, "round {round}: no progress");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // From here on, the moment of the kill is what is random.
        tokio::time::sleep(Duration::from_millis(rng.below(ROUND_MS_MAX))).await;
        host = host.kill_and_restart().await;
        for task in tasks {
            workers.push(task.await.expect("a worker"));
        }
        check(&host, &workers, round).await;
    }
    let acknowledged: usize = workers.iter().map(|worker| worker.acknowledged.len()).sum();
    println!("{acknowledged} commands acknowledged over {ROUNDS} kills");
    assert!(acknowledged >= ROUNDS * ACKNOWLEDGED_MIN, "too little load to prove anything");
}

async fn check(host: &Host, workers: &[Worker], round: usize) {
    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    for cart in 0..CARTS {
        // Numbered 1, 2, 3, ..: `events` checks that.
        for event in host.events(SERVICE, &format!("cart-{cart}")).await {
            let product = event["json"]["item"]["productId"].as_str().expect("a product");
            *stored.entry(product.to_owned()).or_default() += 1;
        }
    }
    let mut sent = BTreeSet::new();
    for worker in workers {
        for &command in &worker.acknowledged {
            let product = worker.product(command);
            let times = stored.get(&product).copied().unwrap_or_default();
            assert_eq!(
                times, 1,
                "round {round}: {product} was acknowledged, is there {times} times"
            );
        }
        sent.extend((0..worker.sent).map(|command| worker.product(command)));
    }
    for (product, times) in stored {
        assert_eq!(times, 1, "round {round}: {product} is there {times} times");
        assert!(sent.contains(&product), "round {round}: nobody sent {product}");
    }
}
