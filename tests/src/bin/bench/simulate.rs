//! Clusters of many nodes in simulated time: the host's own membership and placement, over a network that
//! is a queue. The same seed gives the same numbers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use stead::cluster::members::Timing;
use stead::cluster::members::identity::Identity;
use stead::cluster::members::packet::MESSAGE_BYTES;
use stead::cluster::members::swim::Swim;
use stead::cluster::placement::{self, Candidate};
use stead::words::NodeId;
use stead::words::clock::BootTime;

use stead_tests::rng::Rng;

const SHARDS: usize = 1_024;
const SIZES: [usize; 4] = [10, 50, 100, 200];
const LOSSES: [u64; 2] = [0, 10];
/// A clock this coarse makes 200 nodes affordable; SWIM's own times are 50 ms and more.
const TURN: Duration = Duration::from_millis(1);
const GIVE_UP: Duration = Duration::from_secs(120);

/// One size at one loss.
pub struct Row {
    pub nodes: usize,
    pub loss_percent: u64,
    pub moved_by_join: usize,
    pub moved_by_leave: usize,
    /// Shards that one node has on average after the join, and had before the leave.
    pub fair_join: f64,
    pub fair_leave: f64,
    /// From a kill until the first and until the last survivor calls it down, a kill each; sorted.
    pub first_down: Vec<Duration>,
    pub last_down: Vec<Duration>,
    /// From a start until the last node sees the newcomer alive; sorted.
    pub joins: Vec<Duration>,
    pub messages_per_second: f64,
}

pub fn all(rounds: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for loss in LOSSES {
        for nodes in SIZES {
            rows.push(row(nodes, loss, rounds));
        }
    }
    rows
}

fn row(nodes: usize, loss_percent: u64, rounds: usize) -> Row {
    let mut cluster = Cluster::new(nodes, loss_percent);
    let settled = cluster.until(|c| c.all_see_all());
    assert!(settled.is_some(), "{nodes} nodes do not find each other");
    let from = (cluster.now, cluster.messages);
    cluster.pass(Duration::from_secs(5));
    let seconds = cluster.now.since(from.0).as_secs_f64();
    let messages_per_second = (cluster.messages - from.1) as f64 / seconds / nodes as f64;
    let (mut first_down, mut last_down, mut joins) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let dead = cluster.kill();
        let first = cluster.until(|c| c.who_see_down(dead) > 0);
        let rest = cluster.until(|c| c.who_see_down(dead) == c.running.len());
        let (Some(first), Some(rest)) = (first, rest) else { panic!("a kill was missed") };
        first_down.push(first);
        last_down.push(first + rest);
        let new = cluster.add();
        let seen = cluster.until(|c| c.who_see(new) + 1 == c.running.len());
        joins.push(seen.expect("a newcomer was missed"));
        cluster.pass(Duration::from_secs(2));
    }
    first_down.sort();
    last_down.sort();
    joins.sort();
    let (moved_by_join, moved_by_leave) = moved(nodes);
    Row {
        nodes,
        loss_percent,
        moved_by_join,
        moved_by_leave,
        fair_join: SHARDS as f64 / (nodes + 1) as f64,
        fair_leave: SHARDS as f64 / nodes as f64,
        first_down,
        last_down,
        joins,
        messages_per_second,
    }
}

/// What changes hands when a node joins `nodes` others, and when one of `nodes` leaves.
fn moved(nodes: usize) -> (usize, usize) {
    let candidate = |n| Candidate { node: node_id(n), capacity: 100 };
    let all: Vec<_> = (0..=nodes).map(candidate).collect();
    let before = placement::desired(&vec![None; SHARDS], &all[..nodes]);
    let joined = placement::desired(&before, &all);
    let left = placement::desired(&before, &all[1..nodes]);
    let differ =
        |after: &[Option<NodeId>]| before.iter().zip(after).filter(|(b, a)| b != a).count();
    (differ(&joined), differ(&left))
}

fn node_id(number: usize) -> NodeId {
    let mut id = [0x5a; 16];
    id[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    NodeId(id)
}

struct Cluster {
    now: BootTime,
    rng: Rng,
    loss_percent: u64,
    started: usize,
    running: BTreeMap<SocketAddr, Swim>,
    /// When, in which order, to whom.
    network: BinaryHeap<Reverse<(BootTime, u64, SocketAddr, Vec<u8>)>>,
    wakes: BTreeMap<SocketAddr, BootTime>,
    announces: BTreeMap<SocketAddr, BootTime>,
    messages: u64,
}

impl Cluster {
    fn new(nodes: usize, loss_percent: u64) -> Self {
        let seed = nodes as u64 * 1_000 + loss_percent + 1;
        let mut cluster = Self {
            now: BootTime::from_nanos(1_000_000_000),
            rng: Rng::new(seed),
            loss_percent,
            started: 0,
            running: BTreeMap::new(),
            network: BinaryHeap::new(),
            wakes: BTreeMap::new(),
            announces: BTreeMap::new(),
            messages: 0,
        };
        for _ in 0..nodes {
            cluster.add();
            cluster.pass(Duration::from_millis(10));
        }
        cluster
    }

    fn add(&mut self) -> SocketAddr {
        let number = self.started;
        self.started += 1;
        let addr = SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 7_834));
        let me = Identity { addr, node: node_id(number), incarnation: 1, bump: 1 };
        let swim = Swim::new(me, &Timing::default(), MESSAGE_BYTES - 1, self.rng.number());
        self.running.insert(addr, swim);
        self.announces.insert(addr, self.now);
        addr
    }

    fn kill(&mut self) -> SocketAddr {
        let at = self.rng.below(self.running.len() as u64) as usize;
        let addr = *self.running.keys().nth(at).expect("somebody runs");
        self.running.remove(&addr);
        self.announces.remove(&addr);
        self.wakes.remove(&addr);
        addr
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    /// How long it took, or None if it did not happen.
    fn until(&mut self, condition: impl Fn(&Self) -> bool) -> Option<Duration> {
        let began = self.now;
        while !condition(self) {
            if self.now.since(began) > GIVE_UP {
                return None;
            }
            // Looking at everybody's view is what takes the time here: a look every 20 ms.
            self.pass(Duration::from_millis(20));
        }
        Some(self.now.since(began))
    }

    fn turn(&mut self) {
        self.now = self.now + TURN;
        while self.network.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((_, _, to, message))) = self.network.pop() else { break };
            if let Some(swim) = self.running.get_mut(&to) {
                swim.receive(self.now, &message).expect("what members say is understood");
                self.settle(to);
            }
        }
        let due: Vec<_> =
            self.wakes.iter().filter(|(_, at)| **at <= self.now).map(|(addr, _)| *addr).collect();
        for addr in due {
            if let Some(swim) = self.running.get_mut(&addr) {
                swim.tick(self.now);
                self.settle(addr);
            }
        }
        let due: Vec<_> = self
            .announces
            .iter()
            .filter(|(_, at)| **at <= self.now)
            .map(|(addr, _)| *addr)
            .collect();
        for addr in due {
            let every = Timing::default().announce;
            self.announces.insert(addr, self.now + every);
            // Two others are the seeds.
            let seeds: Vec<_> =
                self.running.keys().filter(|a| **a != addr).take(2).copied().collect();
            if let Some(swim) = self.running.get_mut(&addr) {
                for seed in seeds {
                    swim.announce(self.now, seed);
                }
                self.settle(addr);
            }
        }
    }

    /// Sends what a node wants sent, each after 0.2 to 2 ms, unless it is lost.
    fn settle(&mut self, addr: SocketAddr) {
        let Some(swim) = self.running.get_mut(&addr) else { return };
        swim.resize();
        let _notes_are_not_simulated = swim.joined();
        match swim.next_timer() {
            Some(at) => self.wakes.insert(addr, at),
            None => self.wakes.remove(&addr),
        };
        for (to, message) in swim.outgoing() {
            self.messages += 1;
            let delay = Duration::from_micros(200 + self.rng.below(1_800));
            if self.rng.below(100) >= self.loss_percent {
                let at = self.now + delay;
                self.network.push(Reverse((at, self.messages, to, message.to_vec())));
            }
        }
    }

    fn all_see_all(&self) -> bool {
        self.running.values().all(|swim| swim.active().count() + 1 == self.running.len())
    }

    fn who_see(&self, addr: SocketAddr) -> usize {
        self.running.values().filter(|swim| swim.active().any(|id| id.addr == addr)).count()
    }

    fn who_see_down(&self, addr: SocketAddr) -> usize {
        self.running.len() - self.who_see(addr)
    }
}

fn at(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len()) - 1;
    sorted[place].as_secs_f64()
}

/// A Markdown table, which is readable as it is.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| nodes | loss | moved by a join (fair) | moved by a leave (had) | first down p50 / p99 | \
         last down p50 / p99 | join seen p50 / p99 | messages/s a node |\n\
         |------:|-----:|-----------------------:|-----------------------:|---------------------:|\
         --------------------:|--------------------:|------------------:|\n",
    );
    for row in rows {
        let pair = |times: &[Duration]| format!("{:.1} / {:.1} s", at(times, 50), at(times, 99));
        text += &format!(
            "| {:>5} | {:>3}% | {:>22} | {:>22} | {:>20} | {:>19} | {:>19} | {:>17.1} |\n",
            row.nodes,
            row.loss_percent,
            format!("{} ({:.1})", row.moved_by_join, row.fair_join),
            format!("{} ({:.1})", row.moved_by_leave, row.fair_leave),
            pair(&row.first_down),
            pair(&row.last_down),
            pair(&row.joins),
            row.messages_per_second,
        );
    }
    text
}

/// How long it takes until the last survivor knows of a death, by size. Greys that show on light and dark.
pub fn plot(rows: &[Row]) -> String {
    let x = |nodes: usize| 60.0 + nodes as f64 * 2.4;
    let top = rows.iter().map(|row| at(&row.last_down, 99)).fold(1.0, f64::max).ceil();
    let y = |seconds: f64| 270.0 - seconds / top * 230.0;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 330\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#888\">\n<title>From a kill until the last survivor calls it down</title>\n\
         <text x=\"60\" y=\"22\">seconds from a kill until the last survivor calls the node down</text>\n",
    );
    let step = (top / 6.0).ceil().max(1.0);
    let mut seconds = 0.0;
    while seconds <= top {
        svg += &format!(
            "<line x1=\"60\" x2=\"552\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#888\" stroke-opacity=\"0.3\"/>\n\
             <text x=\"52\" y=\"{1:.1}\" text-anchor=\"end\">{seconds}</text>\n",
            y(seconds),
            y(seconds) + 4.0,
        );
        seconds += step;
    }
    for nodes in SIZES {
        svg += &format!(
            "<text x=\"{:.1}\" y=\"290\" text-anchor=\"middle\">{nodes}</text>\n",
            x(nodes)
        );
    }
    svg += "<text x=\"306\" y=\"312\" text-anchor=\"middle\">nodes</text>\n";
    for (loss, color) in LOSSES.iter().zip(["#2a8fbd", "#d9822b"]) {
        for (percent, dash) in [(50, "none"), (99, "5 4")] {
            let of: Vec<_> = rows.iter().filter(|row| row.loss_percent == *loss).collect();
            let points: Vec<_> = of
                .iter()
                .map(|row| format!("{:.1},{:.1}", x(row.nodes), y(at(&row.last_down, percent))))
                .collect();
            svg += &format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" \
                 stroke-dasharray=\"{dash}\"/>\n",
                points.join(" "),
            );
            if let Some(last) = of.last() {
                svg += &format!(
                    "<text x=\"560\" y=\"{:.1}\" fill=\"{color}\">p{percent}, {loss} % loss</text>\n",
                    y(at(&last.last_down, percent)) + 4.0,
                );
            }
        }
    }
    svg + "</svg>\n"
}

pub const HEADING: &str = "## Membership and placement, simulated\n";

pub fn markdown(rows: &[Row], rounds: usize) -> String {
    format!(
        "{HEADING}
Written by `cargo xtask bench --simulate`. No machine was measured: these are the numbers of the protocol.

{}
![Seconds from a kill until the last survivor calls the node down](membership.svg)

The host's own code for membership (foca with the host's parameters, see [cluster.md](cluster.md)) and for
placement runs under a simulated clock, over a network that delays each message by 0.2 to 2 ms and loses none
or 10 % of them. Sealing, sockets and the notes of members are left out. All nodes are started 10 ms after
each other, with the first two as seeds that are told of each node every 5 s, and run until all see all. Then
a random node is killed and a new one started, {rounds} times. *First* and *last down* are the times from the
kill until one, and until every survivor does not take the node for a member any more; *join seen* is the time
from a start until every other node takes it for one. Looked at every 20 ms of simulated time; of {rounds}
kills the 99th percentile is the longest. Messages are those of 5 s in which nothing happens.

Shards: 1,024, nodes of the same capacity; *fair* is what each node has on average with the newcomer, *had*
what each has on average before the leave. The same seed gives the same numbers.
",
        table(rows),
    )
}
