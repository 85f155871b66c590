//! Three nodes and customers who never stop: one node is killed, one is added, one is drained, and every
//! item that was acknowledged is in its cart, once.

#[path = "../../../tests/src/postgres.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod postgres;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::host::{Host, Member};
use crate::{http, steps, tools};

const CARTS: usize = 48;
const QUIET_BETWEEN: Duration = Duration::from_secs(2);
const PAUSE_BETWEEN_ITEMS: Duration = Duration::from_millis(10);
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Same secret on every node. A real one is random.
const KEY: &str = "the-key-of-the-demonstration-only";

pub fn run(stead: &Path, component: &Path, dir: &Path) -> anyhow::Result<()> {
    let database = steps::short(
        "postgres",
        |_| Ok(postgres::Server::start(&[])),
        "a private PostgreSQL server, with durable commits",
    )?;
    let mut nodes =
        Nodes { stead: stead.into(), dir: dir.into(), url: database.database(), all: vec![] };
    for _ in 0..3 {
        nodes.start()?;
    }
    steps::short(
        "cluster",
        |_| nodes.settle(3),
        "every shard has an owner, shared by three nodes",
    )?;
    let mut deploy = nodes.client(0);
    deploy.arg("deploy").arg(component).arg("--yes");
    let typed = tools::show(&deploy);
    steps::short("deploy", |_| tools::output(&mut deploy), &typed)?;

    let doors = Arc::new(Doors::default());
    doors.open(&nodes);
    let customers: Vec<Customer> = (0..CARTS).map(|n| Customer::start(n, doors.clone())).collect();
    steps::short(
        "shop",
        |_| {
            sleep(QUIET_BETWEEN);
            Ok(())
        },
        &format!("{CARTS} customers fill their carts"),
    )?;

    let mut phases = Vec::new();
    phases.push(Phase::watch("one node killed", &doors, || {
        let node = nodes.all.remove(2);
        let pid = node.host.pid();
        steps::short(
            "kill",
            |text| {
                *text = format!("kill -9 {pid} ({}): {}", node.name, node.host.kill()?);
                doors.open(&nodes);
                Ok(())
            },
            "",
        )?;
        steps::short("take over", |_| nodes.settle(2), "the others own its shards")
    })?);
    phases.push(Phase::watch("one node added", &doors, || {
        nodes.start()?;
        doors.open(&nodes);
        steps::short("balance", |_| nodes.settle(3), "it has its share of the shards")
    })?);
    phases.push(Phase::watch("one node drained", &doors, || {
        let id = nodes.node_id(0)?;
        let mut drain = nodes.client(1);
        drain.args(["cluster", "drain", &id]);
        let typed = tools::show(&drain);
        steps::short("drain", |_| tools::output(&mut drain), &typed)?;
        let node = nodes.all.remove(0);
        doors.open(&nodes);
        sleep(QUIET_BETWEEN);
        steps::short("stop", |_| node.host.terminate(), &format!("SIGTERM to {}", node.name))
    })?);

    doors.closed.store(true, Ordering::SeqCst);
    let carts = customers.into_iter().map(Customer::stop).collect::<anyhow::Result<Vec<_>>>()?;
    steps::short(
        "check",
        |text| {
            let items: usize = carts.iter().map(|cart| cart.acknowledged.len()).sum();
            for (n, cart) in carts.iter().enumerate() {
                verify(&nodes, n, cart)?;
            }
            *text = format!("{items} acknowledged items are in {CARTS} carts, each once");
            Ok(())
        },
        "every acknowledged item is in its cart, once",
    )?;
    table(&phases, &carts);
    ensure!(phases[2].repeated == 0, "draining a node failed {} calls", phases[2].repeated);
    Ok(())
}

struct Node {
    name: String,
    host: Host,
}

struct Nodes {
    stead: PathBuf,
    dir: PathBuf,
    url: String,
    all: Vec<Node>,
}

impl Nodes {
    fn start(&mut self) -> anyhow::Result<()> {
        let number = (1..).find(|n| !self.dir.join(format!("node-{n}")).exists()).unwrap_or(1);
        let name = format!("node-{number}");
        let dir = self.dir.join(&name);
        std::fs::create_dir_all(&dir)?;
        let join = self.all.first().map(|node| node.host.peer.clone());
        let member = Member { store: &self.url, key: KEY, join: join.as_deref() };
        let host = steps::short(
            "serve",
            |text| {
                let host = Host::start_member(&self.stead, &dir, &member)?;
                *text = format!("{name}: {} (pid {})", host.services, host.pid());
                Ok(host)
            },
            &name,
        )?;
        self.all.push(Node { name, host });
        Ok(())
    }

    /// Waits until every shard has an owner, and each of so many nodes its fair share, more or less.
    fn settle(&self, nodes: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let status = self.status()?;
            let total = number(&status["shards"]["total"]);
            let held: Vec<u64> = self
                .all
                .iter()
                .map(|node| http::json("GET", &node.host.admin, "/v1/node", None))
                .map(|node| Ok(number(&node?["shardsHeld"])))
                .collect::<anyhow::Result<_>>()?;
            let fair = total / nodes as u64;
            if held.iter().sum::<u64>() == total && held.iter().all(|held| held * 10 >= fair * 7) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the cluster did not settle: {held:?} of {total} shards"
            );
            sleep(POLL_EVERY);
        }
    }

    fn status(&self) -> anyhow::Result<Value> {
        http::json("GET", &self.all[0].host.admin, "/v1/cluster", None)
    }

    fn node_id(&self, index: usize) -> anyhow::Result<String> {
        let node = http::json("GET", &self.all[index].host.admin, "/v1/node", None)?;
        Ok(node["nodeId"].as_str().context("the node has no id")?.to_owned())
    }

    fn client(&self, index: usize) -> Command {
        let host = &self.all[index].host;
        let mut command = Command::new(&self.stead);
        command.env("STEAD_URL", &host.services).env("STEAD_ADMIN_URL", &host.admin);
        command
    }
}

/// 64-bit numbers are texts in protobuf's JSON.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

/// Where customers may shop now, and how it goes.
#[derive(Default)]
struct Doors {
    open: RwLock<Vec<String>>,
    closed: AtomicBool,
    repeated: AtomicU64,
    next: AtomicUsize,
}

impl Doors {
    fn open(&self, nodes: &Nodes) {
        let doors = nodes.all.iter().map(|node| node.host.services.clone()).collect();
        *self.open.write().expect("no customer panics") = doors;
    }

    /// One after the other.
    fn pick(&self) -> String {
        let open = self.open.read().expect("no customer panics");
        open[self.next.fetch_add(1, Ordering::Relaxed) % open.len()].clone()
    }
}

struct Cart {
    acknowledged: BTreeSet<String>,
    /// When each item was acknowledged.
    times: Vec<Instant>,
}

struct Customer(JoinHandle<anyhow::Result<Cart>>);

impl Customer {
    fn start(number: usize, doors: Arc<Doors>) -> Self {
        Self(std::thread::spawn(move || shop(number, &doors)))
    }

    fn stop(self) -> anyhow::Result<Cart> {
        self.0.join().unwrap_or_else(|_| bail!("a customer panicked"))
    }
}

/// Adds one item after the other. What fails is asked again, with the same idempotency key.
fn shop(number: usize, doors: &Doors) -> anyhow::Result<Cart> {
    let mut cart = Cart { acknowledged: BTreeSet::new(), times: Vec::new() };
    let path = format!("/cart/{}/items/add", customer(number));
    while !doors.closed.load(Ordering::SeqCst) {
        let product = format!("item-{}", cart.times.len());
        let item = json!({"productId": product, "name": product, "quantity": 1});
        let key = format!("{}-{product}", customer(number));
        let begun = Instant::now();
        while let Err(error) = http::json_once("POST", &doors.pick(), &path, Some(&item), &key) {
            doors.repeated.fetch_add(1, Ordering::Relaxed);
            ensure!(begun.elapsed() < SETTLED_WITHIN, "{key} is refused for ever: {error:#}");
            sleep(PAUSE_BETWEEN_ITEMS);
        }
        cart.acknowledged.insert(product);
        cart.times.push(Instant::now());
        sleep(PAUSE_BETWEEN_ITEMS);
    }
    Ok(cart)
}

fn customer(number: usize) -> String {
    format!("customer-{number}")
}

fn verify(nodes: &Nodes, number: usize, cart: &Cart) -> anyhow::Result<()> {
    let path = format!("/carts/{}", customer(number));
    let answer = http::json("GET", &nodes.all[0].host.services, &path, None)?;
    let items = answer["items"].as_array().context("the cart is empty")?;
    for item in items {
        ensure!(item["quantity"] == 1, "{} has {item}: taken twice", customer(number));
    }
    let found: BTreeSet<String> =
        items.iter().filter_map(|item| Some(item["productId"].as_str()?.to_owned())).collect();
    let missing: Vec<_> = cart.acknowledged.difference(&found).collect();
    ensure!(missing.is_empty(), "{} lost {missing:?}", customer(number));
    ensure!(
        items.len() == cart.acknowledged.len(),
        "{} has more than it asked for",
        customer(number)
    );
    Ok(())
}

struct Phase {
    name: &'static str,
    from: Instant,
    to: Instant,
    repeated: u64,
}

impl Phase {
    fn watch(
        name: &'static str,
        doors: &Doors,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let before = doors.repeated.load(Ordering::Relaxed);
        let from = Instant::now();
        work()?;
        sleep(QUIET_BETWEEN);
        let repeated = doors.repeated.load(Ordering::Relaxed) - before;
        Ok(Self { name, from, to: Instant::now(), repeated })
    }

    /// The longest time between two acknowledgements of each cart, shortest first.
    fn away(&self, carts: &[Cart]) -> Vec<Duration> {
        let longest = |cart: &Cart| {
            let gaps = cart.times.windows(2).filter(|gap| gap[1] >= self.from && gap[0] <= self.to);
            gaps.map(|gap| gap[1] - gap[0]).max().unwrap_or_default()
        };
        let mut away: Vec<Duration> = carts.iter().map(longest).collect();
        away.sort();
        away
    }
}

fn table(phases: &[Phase], carts: &[Cart]) {
    eprintln!("\n  How long the carts were away: the longest wait of each for its next item\n");
    eprintln!(
        "  {:<18} {:>9} {:>9} {:>9} {:>15}",
        "", "half", "99 of 100", "longest", "calls repeated"
    );
    for phase in phases {
        let away = phase.away(carts);
        let at = |percent: usize| away[(away.len() * percent / 100).min(away.len() - 1)];
        eprintln!(
            "  {:<18} {:>9} {:>9} {:>9} {:>15}",
            phase.name,
            millis(at(50)),
            millis(at(99)),
            millis(at(100)),
            phase.repeated
        );
    }
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
