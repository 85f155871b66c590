//! Several hosts on one PostgreSQL, and everything that can happen to them.

pub mod net;

pub mod relay;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::host::{Host, Options, Refused, Stopped};
use crate::postgres::Server;
use net::Net;
use relay::Relay;

pub const KEY: &str = "a cluster key for tests, of no value";
const ADMIN_TOKEN: &str = "token-of-a-test";
const SERVICES_PORT: u16 = 7832;
const ADMIN_PORT: u16 = 7833;
const PEER_PORT: u16 = 7834;
pub const SHARDS: u32 = 64;
/// From the start of the nodes until each shard has an owner. Nothing has to time out for it.
const OWNED_WITHIN: Duration = Duration::from_secs(30);
const SERVED_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// How to start one.
#[derive(Default)]
pub struct Setup {
    nodes: usize,
    is_networked: bool,
    is_relayed: bool,
    has_clock: bool,
    server: Option<Server>,
    arguments: Vec<String>,
}

impl Setup {
    pub fn nodes(nodes: usize) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Each node in a network of its own, so that they can be partitioned.
    pub fn networked(mut self) -> Self {
        self.is_networked = true;
        self
    }

    /// Nodes reach each other by relays.
    pub fn relayed(mut self) -> Self {
        self.is_relayed = true;
        self
    }

    /// Nodes have wall clocks that can be moved.
    pub fn with_clocks(mut self) -> Self {
        self.has_clock = true;
        self
    }

    /// A database server for this cluster alone, that can be stopped.
    pub fn server(mut self, server: Server) -> Self {
        self.server = Some(server);
        self
    }

    /// For every node.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts it, with a guest deployed and every shard owned.
    pub async fn start(self, guest: &str) -> Cluster {
        let mut cluster = self.prepare();
        for _ in 0..cluster.setup.nodes {
            cluster.add().await;
        }
        cluster.host(0).deploy(guest).await;
        cluster.all_owned(OWNED_WITHIN).await;
        cluster.all_serve().await;
        cluster
    }

    /// No node yet.
    pub fn prepare(self) -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = self.server.as_ref().unwrap_or_else(|| Server::shared());
        let url = server.database();
        let database = url.rsplit('/').next().expect("a name").to_owned();
        let dir = tempfile::Builder::new().prefix("stead-cluster-").tempdir().expect("a directory");
        Cluster {
            nodes: Vec::new(),
            net: self.is_networked.then(Net::new),
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            database,
            dir,
            setup: self,
        }
    }
}

/// Its nodes are killed when it is dropped.
pub struct Cluster {
    nodes: Vec<Node>,
    net: Option<Net>,
    number: u32,
    database: String,
    dir: TempDir,
    setup: Setup,
}

pub struct Node {
    state: State,
    /// Its way to the store.
    pub store: Relay,
    /// The others' way to it.
    pub peer: Option<Relay>,
    clock: Option<PathBuf>,
}

enum State {
    Up(Box<Host>),
    Down(Box<Stopped>),
    /// Between the two.
    Moving,
}

impl Cluster {
    pub fn server(&self) -> &Server {
        self.setup.server.as_ref().unwrap_or_else(|| Server::shared())
    }

    /// The name of its database.
    pub fn database(&self) -> &str {
        &self.database
    }

    pub fn net(&self) -> &Net {
        self.net.as_ref().expect("the nodes have networks of their own")
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// A node that runs.
    #[track_caller]
    pub fn host(&self, node: usize) -> &Host {
        match &self.nodes[node].state {
            State::Up(host) => host,
            State::Down(_) | State::Moving => panic!("node {node} is down"),
        }
    }

    pub fn is_up(&self, node: usize) -> bool {
        matches!(self.nodes[node].state, State::Up(_))
    }

    /// Nodes that run, stopped ones included.
    pub fn up(&self) -> Vec<usize> {
        (0..self.len()).filter(|node| self.is_up(*node)).collect()
    }

    /// Where each node that runs serves.
    pub fn services(&self) -> Vec<Client> {
        self.up().into_iter().map(|node| self.host(node).services.clone()).collect()
    }

    /// Starts one node more.
    pub async fn add(&mut self) -> usize {
        let options = self.options().await;
        let node = self.nodes.len() - 1;
        let host = options.start().await;
        self.nodes[node].state = State::Up(Box::new(host));
        node
    }

    /// Starts one node more that may refuse to, with options of its own.
    pub async fn try_add(
        &mut self,
        with: impl FnOnce(Options) -> Options,
    ) -> Result<usize, Refused> {
        let options = with(self.options().await);
        let node = self.nodes.len() - 1;
        let host = options.try_start().await?;
        self.nodes[node].state = State::Up(Box::new(host));
        Ok(node)
    }

    /// What a next node needs.
    async fn options(&mut self) -> Options {
        let node = self.nodes.len();
        let outside: IpAddr = match &mut self.net {
            Some(net) => {
                net.add();
                net.outside().into()
            }
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, self.server().port()));
        let store = Relay::start((outside, 0).into(), server).await;
        let own = self.address(node);
        let peer_address = SocketAddr::from((own, PEER_PORT));
        let peer = match self.setup.is_relayed {
            true => Some(Relay::start((outside, 0).into(), peer_address).await),
            false => None,
        };
        let url = format!("postgres://postgres@{}/{}", store.address(), self.database);
        let mut options = Options::default()
            // The same after a restart: whoever called the node calls it again.
            .listen(&format!("{own}:{SERVICES_PORT}"))
            .admin(&format!("{own}:{ADMIN_PORT}"))
            .data(&self.dir.path().join(format!("data-{node}")))
            .argument("--peer")
            .argument(&peer_address.to_string())
            .argument("--shards")
            .argument(&SHARDS.to_string())
            .env("STEAD_STORE", &url)
            .env("STEAD_CLUSTER_KEY", KEY);
        if let Some(relay) = &peer {
            options = options.argument("--advertise").argument(&relay.address().to_string());
        }
        for seed in 0..node {
            options = options.argument("--join").argument(&self.peer_address(seed).to_string());
        }
        if let Some(net) = &self.net {
            options = options.network(net.namespace(node)).admin_token(ADMIN_TOKEN);
        }
        let clock = self.setup.has_clock.then(|| self.dir.path().join(format!("clock-{node}")));
        if let Some(file) = &clock {
            options = with_clock(options, file);
        }
        for argument in &self.setup.arguments {
            options = options.argument(argument);
        }
        self.nodes.push(Node { state: State::Moving, store, peer, clock });
        options
    }

    fn address(&self, node: usize) -> Ipv4Addr {
        match &self.net {
            Some(net) => net.address(node),
            // All of 127/8 is loopback: an address for each node, so that ports may be fixed.
            None => {
                let process = std::process::id();
                Ipv4Addr::new(
                    127,
                    1 + (process % 251) as u8,
                    (process / 251 + self.number * 16) as u8,
                    10 + node as u8,
                )
            }
        }
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        let state = std::mem::replace(&mut self.nodes[node].state, State::Moving);
        self.nodes[node].state = match state {
            State::Up(host) => State::Down(Box::new(host.kill())),
            other => other,
        };
    }

    /// SIGTERM, and a clean end.
    pub async fn terminate(&mut self, node: usize, within: Duration) {
        let state = std::mem::replace(&mut self.nodes[node].state, State::Moving);
        self.nodes[node].state = match state {
            State::Up(host) => State::Down(Box::new(host.terminate(within).await)),
            other => other,
        };
    }

    /// Waits until it ends by itself, with an error. Returns its log.
    pub async fn ended(&mut self, node: usize, within: Duration) -> String {
        let State::Up(host) = &mut self.nodes[node].state else { panic!("node {node} is down") };
        let status = host.ended(within).await;
        let log = host.log();
        assert_eq!(status.code(), Some(1), "{log}");
        self.nodes[node].state = State::Moving;
        log
    }

    /// Starts it again, on its directory.
    pub async fn restart(&mut self, node: usize) {
        let state = std::mem::replace(&mut self.nodes[node].state, State::Moving);
        self.nodes[node].state = match state {
            State::Down(stopped) => State::Up(Box::new(stopped.start().await)),
            other => other,
        };
    }

    /// Starts it again, which it refuses. It stays down.
    pub async fn refuses(&self, node: usize) -> Refused {
        let State::Down(stopped) = &self.nodes[node].state else {
            panic!("node {node} is not down")
        };
        match Stopped::clone(stopped).try_start().await {
            Ok(_) => panic!("node {node} has started"),
            Err(refused) => refused,
        }
    }

    pub fn host_mut(&mut self, node: usize) -> &mut Host {
        match &mut self.nodes[node].state {
            State::Up(host) => host,
            State::Down(_) | State::Moving => panic!("node {node} is down"),
        }
    }

    /// A node that ended by itself is not expected to come back.
    pub fn bury(&mut self, node: usize) {
        self.nodes[node].state = State::Moving;
    }

    /// Where other nodes reach it.
    pub fn peer_address(&self, node: usize) -> SocketAddr {
        match &self.nodes[node].peer {
            Some(relay) => relay.address(),
            None => (self.address(node), PEER_PORT).into(),
        }
    }

    /// From now on, another server is the cluster's. The nodes' ways must lead there already.
    pub fn is_served_by(&mut self, server: Server) {
        self.setup.server = Some(server);
    }

    /// SIGSTOP: the process stands still, and its connections stay.
    pub fn freeze(&self, node: usize) {
        self.host(node).signal(libc::SIGSTOP);
    }

    pub fn thaw(&self, node: usize) {
        self.host(node).signal(libc::SIGCONT);
    }

    /// Moves a node's wall clock to `seconds` from the true time.
    pub fn move_clock(&self, node: usize, seconds: i64) {
        let file = self.nodes[node].clock.as_ref().expect("the nodes have clocks of their own");
        write_clock(file, seconds);
    }

    /// Runs SQL on the cluster's database.
    pub fn sql(&self, sql: &str) -> String {
        self.server().sql(&self.database, sql)
    }

    pub fn number(&self, sql: &str) -> i64 {
        let text = self.sql(sql);
        text.parse().unwrap_or_else(|_| panic!("{sql}: {text:?} is not a number"))
    }

    /// Waits until each shard belongs to a node that runs.
    pub async fn all_owned(&self, within: Duration) {
        let ids: Vec<_> = self.up().into_iter().map(|node| self.node_id(node)).collect();
        let ids = ids.join("', '");
        let orphans = format!(
            "SELECT (SELECT count(*) FROM shard WHERE owner IS NULL OR encode(owner, 'hex') NOT IN ('{ids}'))
             + CASE WHEN (SELECT count(*) FROM shard) = {SHARDS} THEN 0 ELSE 1000 END"
        );
        let start = Instant::now();
        loop {
            let left = self.number(&orphans);
            if left == 0 {
                return;
            }
            assert!(start.elapsed() < within, "{left} shards without owner after {within:?}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// 32 hexadecimal digits.
    pub fn node_id(&self, node: usize) -> String {
        let file = self.host(node).data().join("node-id");
        let text = std::fs::read_to_string(&file).expect("the node has an identity");
        text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_lowercase()
    }

    /// How many shards a node owns, as the store has it.
    pub fn owned(&self, node: usize) -> i64 {
        let id = self.node_id(node);
        self.number(&format!("SELECT count(*) FROM shard WHERE owner = '\\x{id}'"))
    }

    /// How often each node that runs was registered or declared dead. Planned moves of shards, which go on
    /// for a while after a start, do not change it.
    pub fn lives(&self) -> Vec<i64> {
        let life = |node| {
            let id = self.node_id(node);
            self.number(&format!("SELECT incarnation FROM node WHERE node_id = '\\x{id}'"))
        };
        self.up().into_iter().map(life).collect()
    }

    /// Waits until every node answers a call of the cart.
    async fn all_serve(&self) {
        let start = Instant::now();
        for services in self.services() {
            while !services.try_get("/carts/nobody").await.is_ok_and(|status| status == 200) {
                assert!(start.elapsed() < SERVED_WITHIN, "{} does not serve", services.base());
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
    }

    /// What must be true of the rows at any time. Of value entities old states are gone, so their shards may
    /// lack offsets, but never the newest.
    pub fn check_rows(&self) {
        let gaps = "SELECT count(*) FROM (SELECT shard_id, count(*) n, min(off) low, max(off) high
                    FROM journal GROUP BY shard_id) j JOIN shard USING (shard_id)
                    WHERE next_off <> high + 1 OR n <> high - low + 1 AND shard_id NOT IN
                        (SELECT shard_id FROM journal GROUP BY shard_id, journal, id HAVING min(seq) > 1)";
        assert_eq!(
            self.number(gaps),
            0,
            "offsets of a shard have a gap, or do not end at next_off"
        );
        let gaps =
            "SELECT count(*) FROM (SELECT count(*) n, min(seq) low, max(seq) high FROM journal
                    GROUP BY shard_id, journal, id) e WHERE n <> high - low + 1";
        assert_eq!(self.number(gaps), 0, "the events of an entity have a gap");
        let back = "SELECT count(*) FROM (SELECT epoch, lag(epoch) OVER (PARTITION BY shard_id ORDER BY off)
                    AS before FROM journal) e WHERE epoch < before";
        assert_eq!(
            self.number(back),
            0,
            "an event was written under an older epoch than its predecessor"
        );
        assert_eq!(self.number("SELECT count(*) FROM shard WHERE halted IS NOT NULL"), 0);
    }
}

fn with_clock(options: Options, file: &PathBuf) -> Options {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    assert!(
        std::path::Path::new(LIBRARY).exists(),
        "{LIBRARY} is missing: `apt-get install faketime`"
    );
    write_clock(file, 0);
    options
        .env("LD_PRELOAD", LIBRARY)
        .env("FAKETIME_TIMESTAMP_FILE", &file.display().to_string())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

fn write_clock(file: &PathBuf, seconds: i64) {
    let partial = file.with_extension("partial");
    std::fs::write(&partial, format!("{seconds:+}\n")).expect("the clock can be written");
    std::fs::rename(&partial, file).expect("the clock can be set");
}
