//! What the tests of this binary share.

use std::time::{Duration, Instant};

use stead_tests::Client;
use stead_tests::cart::{self, GUEST};
use stead_tests::cluster::net::Net;
use stead_tests::cluster::{Cluster, Setup};
use stead_tests::load::{Outcome, try_once};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;

pub const LEASE: Duration = Duration::from_secs(5);
/// From the death of a node until each of its entities answers again, on a machine that may have other things
/// to do. How long it takes on one that has not is a figure of `cargo xtask bench`.
pub const TAKE_OVER_MAX: Duration = Duration::from_secs(20);
pub const ENTITIES: usize = 200;
pub const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
pub const SHUTDOWN: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// One test at a time.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// Whether there can be networks; says so where not. `cargo xtask faults` insists on them.
pub fn has_networks() -> bool {
    let Some(reason) = Net::missing() else { return true };
    assert!(std::env::var_os("STEAD_TEST_NETWORKS").is_none(), "{reason}");
    eprintln!("SKIPPED: {reason}");
    false
}

/// Three nodes with a cart each for every entity.
pub async fn three(setup: impl FnOnce(Setup) -> Setup) -> Cluster {
    setup(Setup::nodes(3)).start(GUEST).await
}

pub fn entity(number: usize) -> String {
    format!("steady-{number}")
}

/// Adds a product to every entity, by one node.
pub async fn fill(services: &Client, product: &str) {
    let mut calls = JoinSet::new();
    for number in 0..ENTITIES {
        let (services, product) = (services.clone(), product.to_owned());
        calls.spawn(async move { until_added(&services, &entity(number), &product).await });
    }
    calls.join_all().await;
}

/// Adds a product once, however long it takes.
pub async fn until_added(services: &Client, entity: &str, product: &str) {
    let item = format!(r#"{{"productId":"{product}","name":"{product}","quantity":1}}"#);
    let path = format!("/cart/{entity}/items/add");
    let start = Instant::now();
    loop {
        match try_once(services, "POST", &path, Some(product), &item).await {
            Outcome::Done(_) => return,
            Outcome::Refused(reason) | Outcome::Unknown(reason) => {
                assert!(start.elapsed() < PROGRESS_WITHIN, "{entity} takes nothing: {reason}");
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// How long each entity takes from `since` until it answers a read by one of the nodes, shortest first.
/// Whatever it answers has the product.
pub async fn away(services: &[Client], product: &str, since: Instant) -> Vec<Duration> {
    let mut calls = JoinSet::new();
    for number in 0..ENTITIES {
        let services = services[number % services.len()].clone();
        let product = product.to_owned();
        calls.spawn(async move {
            let path = format!("/carts/{}", entity(number));
            loop {
                match try_once(&services, "GET", &path, None, "").await {
                    Outcome::Done(answer) => {
                        let items = cart::items(&answer.json());
                        assert_eq!(items.get(&product), Some(&1), "{path}: {items:?}");
                        return since.elapsed();
                    }
                    Outcome::Refused(reason) | Outcome::Unknown(reason) => {
                        assert!(since.elapsed() < PROGRESS_WITHIN, "{path}: {reason}");
                    }
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        });
    }
    let mut away = calls.join_all().await;
    away.sort_unstable();
    away
}

pub fn tell(what: &str, away: &[Duration]) {
    let at = |part: usize| away[(away.len() - 1) * part / 100];
    println!("{what}: away p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
}

/// Sleeps, for faults that last.
pub async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
