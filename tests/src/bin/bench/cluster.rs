//! What a cluster does: calls that are forwarded beside calls that are not, what an idle cluster asks of
//! its store, and for how long carts are away when a node dies or leaves.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use stead_tests::client::Client;
use stead_tests::host::Options;
use stead_tests::postgres::Server;
use stead_tests::{Host, cart};

use crate::Settings;
use crate::load::Until;
use crate::measures::{add, call, get};
use crate::report::{Goal, Result, Unit};

const SHARDS: i64 = 1_024;
const CUSTOMERS: usize = 64;
const BETWEEN_ITEMS: Duration = Duration::from_millis(5);
/// A cart that waited for less was not on the node that died.
const MOVED_AFTER: Duration = Duration::from_millis(700);
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
const IDLE: Duration = Duration::from_secs(20);

pub async fn all(settings: &Settings) -> anyhow::Result<Vec<Result>> {
    let mut rows = forwarding(settings).await?;
    rows.extend(idle_and_drained(settings).await?);
    rows.push(killed("away after kill -9 of one of three", &[], 6_000.0, 8_000.0).await?);
    let fast = ["--fast-failover"];
    rows.push(killed("the same with --fast-failover", &fast, 3_000.0, 3_000.0).await?);
    Ok(rows)
}

/// One PostgreSQL server for everything: it is part of what is measured, so it syncs.
fn server() -> Server {
    let counts = "shared_preload_libraries=pg_stat_statements";
    Server::start(&["shared_buffers=512MB", "max_wal_size=4GB", counts])
}

async fn node(url: &str, arguments: &[&str]) -> Host {
    let options = Options::default()
        .env("STEAD_STORE", url)
        .env("STEAD_CLUSTER_KEY", "a cluster key for benchmarks")
        .env("STEAD_LOG_FILTER", "warn")
        .argument("--peer")
        .argument("127.0.0.1:0");
    arguments.iter().fold(options, |options, argument| options.argument(argument)).start().await
}

/// The same calls to the node that owns everything and to one that owns nothing.
async fn forwarding(settings: &Settings) -> anyhow::Result<Vec<Result>> {
    let server = server();
    let url = server.database();
    let owner = node(&url, &[]).await;
    settle(&[&owner]).await?;
    owner.deploy(cart::GUEST).await;
    let router = node(&url, &[]).await;
    drain(&router).await?;

    let users: Vec<_> = (0..settings.carts).map(|n| format!("cart-{n}")).collect();
    let add: Vec<_> = users.iter().map(|user| add(user, 1)).collect();
    let get: Vec<_> = users.iter().map(|user| get(user)).collect();
    let per_second = |name: &str, goal| Result::new(name, Unit::PerSecond, goal);
    let mut rows = [
        per_second("PostgreSQL: read on the owner, 64", Goal::None),
        per_second(
            "PostgreSQL: read through another node, 64",
            Goal::ShareOf(0, 0.4, "the owner's"),
        ),
        per_second("PostgreSQL: durable on the owner, 64", Goal::None),
        per_second(
            "PostgreSQL: durable through another node, 64",
            Goal::ShareOf(2, 0.8, "the owner's"),
        ),
        per_second("PostgreSQL: durable on the owner, 512", Goal::AtLeast(8_000.0)),
        per_second(
            "PostgreSQL: durable through another node, 512",
            Goal::ShareOf(4, 0.8, "the owner's"),
        ),
    ];
    let (there, here) = (owner.services.address(), router.services.address());
    call(there, &add, CUSTOMERS, Until::Sent).await?;
    let until = Until::Elapsed(settings.time);
    for address in [there, here] {
        call(address, &get, CUSTOMERS, until).await?;
    }
    for round in 0..settings.rounds {
        eprintln!("  forwarding, round {} of {}", round + 1, settings.rounds);
        rows[0].measured(call(there, &get, 64, until).await?);
        rows[1].measured(call(here, &get, 64, until).await?);
        rows[2].measured(call(there, &add, 64, until).await?);
        rows[3].measured(call(here, &add, 64, until).await?);
        rows[4].measured(call(there, &add, 512, until).await?);
        rows[5].measured(call(here, &add, 512, until).await?);
    }
    ensure!(router.metric("stead_activations_total").await == 0.0, "the router owned something");
    Ok(rows.into())
}

/// Three nodes that nobody calls; then one of them is drained while customers shop.
async fn idle_and_drained(settings: &Settings) -> anyhow::Result<Vec<Result>> {
    let server = server();
    let url = server.database();
    let database = url.rsplit('/').next().unwrap_or_default();
    let nodes = [node(&url, &[]).await, node(&url, &[]).await, node(&url, &[]).await];
    nodes[0].deploy(cart::GUEST).await;
    settle(&nodes.each_ref()).await?;
    eprintln!("  an idle cluster");
    let mut statements =
        Result::new("statements of an idle node", Unit::PerSecond, Goal::AtMost(3.0));
    server.sql("postgres", "CREATE EXTENSION pg_stat_statements");
    let calls = || {
        let sql = format!(
            "SELECT sum(calls) FROM pg_stat_statements \
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = '{database}')"
        );
        server.sql("postgres", &sql).parse::<f64>()
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = calls()?;
    tokio::time::sleep(IDLE).await;
    statements.value((calls()? - before) / IDLE.as_secs_f64() / nodes.len() as f64);

    eprintln!("  draining");
    let mut pause =
        Result::new("pause of a cart while its node drains", Unit::Ms, Goal::P99(250.0));
    let shop = Shop::open(nodes.each_ref().map(|node| node.services.clone()).into());
    tokio::time::sleep(settings.time).await;
    let from = Instant::now();
    drain(&nodes[0]).await?;
    tokio::time::sleep(settings.time).await;
    let closed = shop.close().await?;
    let failed = closed.failed.len();
    if failed > 0 {
        nodes.iter().for_each(|node| eprintln!("{}", node.log()));
    }
    ensure!(failed == 0, "{failed} calls failed while a node drained: {:#?}", closed.reasons());
    let mut gaps = closed.gaps(from);
    gaps.sort_by(f64::total_cmp);
    pause.spread(gaps);
    Ok(vec![statements, pause])
}

/// How long each cart of a killed node is away.
async fn killed(
    name: &str,
    arguments: &[&str],
    half_max: f64,
    most: f64,
) -> anyhow::Result<Result> {
    eprintln!("  kill -9{}", if arguments.is_empty() { "" } else { ", fast failover" });
    let server = server();
    let url = server.database();
    let mut nodes = vec![node(&url, arguments).await, node(&url, arguments).await];
    nodes.push(node(&url, arguments).await);
    nodes[0].deploy(cart::GUEST).await;
    settle(&nodes.iter().collect::<Vec<_>>()).await?;
    let survivors = nodes[..2].iter().map(|node| node.services.clone()).collect();
    let shop = Shop::open(survivors);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let from = Instant::now();
    drop(nodes.pop());
    tokio::time::sleep(Duration::from_secs(15)).await;
    let mut gaps = shop.close().await?.gaps(from);
    gaps.retain(|gap| *gap >= MOVED_AFTER.as_secs_f64() * 1_000.0);
    gaps.sort_by(f64::total_cmp);
    ensure!(!gaps.is_empty(), "no cart was on the node that was killed");
    let mut row = Result::new(name, Unit::Ms, Goal::HalfAndAll(half_max, most));
    row.note = Some(format!("{} of {CUSTOMERS} carts", gaps.len()));
    row.spread(gaps);
    Ok(row)
}

async fn drain(node: &Host) -> anyhow::Result<()> {
    let id =
        node.admin.get("/v1/node").await.ok()["nodeId"].as_str().unwrap_or_default().to_owned();
    let path = format!("/v1/cluster/nodes/{id}:drain");
    let start = Instant::now();
    // A node that has just registered does not know itself yet.
    while node.admin.post(&path, &json!({})).await.status != 200 {
        ensure!(start.elapsed() < SETTLED_WITHIN, "the node cannot be drained");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while held(node).await > 0 || !is_draining(node, &id).await {
        ensure!(start.elapsed() < SETTLED_WITHIN, "the node does not drain");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn is_draining(node: &Host, id: &str) -> bool {
    let cluster = node.admin.get("/v1/cluster").await.ok();
    let members = cluster["members"].as_array().cloned().unwrap_or_default();
    members.iter().any(|member| member["nodeId"] == id && member["state"] == "draining")
}

async fn held(node: &Host) -> i64 {
    number(&node.admin.get("/v1/node").await.ok()["shardsHeld"])
}

/// Waits until each of these holds a fair share of all shards, more or less.
async fn settle(nodes: &[&Host]) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let mut all = Vec::new();
        for node in nodes {
            all.push(held(node).await);
        }
        let fair = SHARDS / nodes.len() as i64;
        if all.iter().sum::<i64>() == SHARDS && all.iter().all(|held| *held * 10 >= fair * 8) {
            return Ok(());
        }
        ensure!(start.elapsed() < SETTLED_WITHIN, "the cluster does not settle: {all:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A number or, as protobuf's JSON has 64-bit ones, a text.
fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

/// Customers who add one item after the other.
struct Shop {
    is_open: Arc<AtomicBool>,
    failed: Arc<Mutex<Vec<String>>>,
    customers: Vec<tokio::task::JoinHandle<Vec<Instant>>>,
}

struct Closed {
    /// When each cart's items were acknowledged.
    times: Vec<Vec<Instant>>,
    /// Why calls failed.
    failed: Vec<String>,
}

impl Shop {
    fn open(doors: Vec<Client>) -> Self {
        let is_open = Arc::new(AtomicBool::new(true));
        let failed: Arc<Mutex<Vec<String>>> = Arc::default();
        let doors = Arc::new(doors);
        let customers = (0..CUSTOMERS).map(|number| {
            let (is_open, failed, doors) = (is_open.clone(), failed.clone(), doors.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                let path = format!("/cart/customer-{number}/items/add");
                let item = json!({"productId": "kettle", "name": "Kettle", "quantity": 1});
                while is_open.load(Ordering::SeqCst) {
                    let door = &doors[(number + times.len()) % doors.len()];
                    match door.try_post(&path, &item).await {
                        Ok(_) => times.push(Instant::now()),
                        Err(reason) => {
                            failed.lock().expect("no poison").push(format!("{reason:?}"));
                        }
                    }
                    tokio::time::sleep(BETWEEN_ITEMS).await;
                }
                times
            })
        });
        Self { customers: customers.collect(), is_open, failed }
    }

    async fn close(self) -> anyhow::Result<Closed> {
        self.is_open.store(false, Ordering::SeqCst);
        let mut times = Vec::new();
        for customer in self.customers {
            times.push(customer.await?);
        }
        let failed = std::mem::take(&mut *self.failed.lock().expect("no poison"));
        Ok(Closed { times, failed })
    }
}

impl Closed {
    /// Each once.
    fn reasons(&self) -> BTreeSet<&String> {
        self.failed.iter().collect()
    }

    /// The longest time between two acknowledgements of each cart after `from`, in milliseconds.
    fn gaps(&self, from: Instant) -> Vec<f64> {
        let longest = |times: &Vec<Instant>| {
            let gaps = times.windows(2).filter(|gap| gap[1] >= from);
            let longest = gaps.map(|gap| gap[1] - gap[0]).max().unwrap_or_default();
            longest.as_secs_f64() * 1_000.0
        };
        self.times.iter().map(longest).collect()
    }
}
