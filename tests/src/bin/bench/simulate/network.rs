//! The host's membership over a network that is a queue. Time jumps from one event to the next.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use stead::cluster::members::Timing;
use stead::cluster::members::identity::Identity;
use stead::cluster::members::packet::MESSAGE_BYTES;
use stead::cluster::members::swim::Swim;
use stead::words::clock::BootTime;
use stead_tests::rng::Rng;

use crate::simulate::node_id;

/// Of simulated time. SWIM needs some seconds.
const GIVE_UP: Duration = Duration::from_secs(120);
const START_EVERY: Duration = Duration::from_millis(10);
/// A message takes from 0.2 to 2 ms.
const DELAY_US: (u64, u64) = (200, 2_000);
/// Nodes that each node tells of itself at its start, and then now and again.
const SEEDS: usize = 2;
const PORT: u16 = 7_834;
const BUMP: u64 = 1;

pub struct Network {
    seed: u64,
    rng: Rng,
    loss_percent: u64,
    now: BootTime,
    /// By number, in the order of their start. None: killed.
    nodes: Vec<Option<Node>>,
    /// When, in which order, at which node, what.
    events: BinaryHeap<Reverse<(BootTime, u64, usize, Event)>>,
    scheduled: u64,
    sent: u64,
    /// Of nodes that were killed since.
    wrongly_down: u64,
}

struct Node {
    swim: Swim,
    /// The earliest of its timer events.
    wakes: Option<BootTime>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Message(Bytes),
    Timers,
    Announce,
}

/// What a node may know of another one.
#[derive(Clone, Copy, Debug)]
pub enum Fact {
    Member(usize),
    Down(usize),
}

/// How long it took until one knew, and until all did.
pub struct Known {
    pub first: Duration,
    pub last: Duration,
}

impl Network {
    /// With all nodes started, one after the other.
    pub fn new(nodes: usize, loss_percent: u64) -> Self {
        let seed = nodes as u64 * 1_000 + loss_percent;
        let mut network = Self {
            seed,
            rng: Rng::new(seed),
            loss_percent,
            now: BootTime::from_nanos(1_000_000_000),
            nodes: Vec::new(),
            events: BinaryHeap::new(),
            scheduled: 0,
            sent: 0,
            wrongly_down: 0,
        };
        for number in 0..nodes {
            network.start_at(network.now + START_EVERY * number as u32);
        }
        network
    }

    pub fn now(&self) -> BootTime {
        self.now
    }

    /// Messages, lost ones too.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How often a node that runs found that it was called down.
    pub fn wrongly_down(&self) -> u64 {
        self.wrongly_down + self.nodes.iter().flatten().map(Node::renewals).sum::<u64>()
    }

    pub fn start(&mut self) -> usize {
        self.start_at(self.now)
    }

    fn start_at(&mut self, at: BootTime) -> usize {
        let number = self.nodes.len();
        let me =
            Identity { addr: address(number), node: node_id(number), incarnation: 1, bump: BUMP };
        let swim = Swim::new(me, &Timing::default(), MESSAGE_BYTES - 1, self.rng.number());
        self.nodes.push(Some(Node { swim, wakes: None }));
        self.schedule(at, number, Event::Announce);
        number
    }

    /// A random one of those that run, without a word to the others.
    pub fn kill(&mut self) -> usize {
        let running: Vec<_> = self.running().collect();
        let number = running[self.rng.below(running.len() as u64) as usize];
        if let Some(node) = self.nodes[number].take() {
            self.wrongly_down += node.renewals();
        }
        number
    }

    pub fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = self.now + time;
        while self.step(end)?.is_some() {}
        self.now = end;
        Ok(())
    }

    /// Until each node that runs has known it once, from now on.
    ///
    /// # Errors
    ///
    /// If some do not within [`GIVE_UP`]; names them, the seed, and what was `doing`.
    pub fn until_all(&mut self, fact: Fact, doing: &str) -> anyhow::Result<Known> {
        let (began, end) = (self.now, self.now + GIVE_UP);
        let mut waiting: BTreeSet<_> =
            self.running().filter(|number| !self.knows(*number, fact)).collect();
        let mut first = None;
        while !waiting.is_empty() {
            let number = self.step(end).with_context(|| self.place(doing))?;
            let Some(number) = number else {
                let waited = GIVE_UP.as_secs();
                bail!("{}: after {waited} s nodes {waiting:?} lack {fact:?}", self.place(doing));
            };
            if waiting.contains(&number) && self.knows(number, fact) {
                waiting.remove(&number);
                first.get_or_insert(self.now.since(began));
            }
        }
        let last = self.now.since(began);
        Ok(Known { first: first.unwrap_or(last), last })
    }

    fn place(&self, doing: &str) -> String {
        let running = self.running().count();
        format!("{running} nodes, {} % loss, seed {}, {doing}", self.loss_percent, self.seed)
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|number| self.nodes[*number].is_some())
    }

    fn knows(&self, number: usize, fact: Fact) -> bool {
        let Some(node) = &self.nodes[number] else { return true };
        let takes_for_member = |other| {
            let address = address(other);
            number == other || node.swim.active().any(|id| id.addr == address)
        };
        match fact {
            Fact::Member(other) => takes_for_member(other),
            Fact::Down(other) => !takes_for_member(other),
        }
    }

    /// The next event, and at which node it was. None if there is none before `end`.
    fn step(&mut self, end: BootTime) -> anyhow::Result<Option<usize>> {
        if self.events.peek().is_none_or(|Reverse((at, ..))| *at >= end) {
            return Ok(None);
        }
        let Some(Reverse((at, _, number, event))) = self.events.pop() else { return Ok(None) };
        self.now = at;
        let Some(node) = &mut self.nodes[number] else { return Ok(Some(number)) };
        match event {
            Event::Message(message) => {
                let understood = node.swim.receive(at, &message);
                understood.ok().context("what a member says is not understood")?;
            }
            Event::Timers => {
                // A later one that an earlier one has made superfluous.
                if node.wakes != Some(at) {
                    return Ok(Some(number));
                }
                node.wakes = None;
                node.swim.tick(at);
            }
            Event::Announce => self.announce(number),
        }
        self.settle(number);
        Ok(Some(number))
    }

    fn announce(&mut self, number: usize) {
        let seeds: Vec<_> = self.running().filter(|seed| *seed != number).take(SEEDS).collect();
        if let Some(node) = &mut self.nodes[number] {
            for seed in seeds {
                node.swim.announce(self.now, address(seed));
            }
        }
        self.schedule(self.now + Timing::default().announce, number, Event::Announce);
    }

    /// Sends what a node wants sent, and wakes it when it wants to be.
    fn settle(&mut self, number: usize) {
        let Some(node) = &mut self.nodes[number] else { return };
        node.swim.resize();
        let _answered_with_notes = node.swim.joined();
        let outgoing = node.swim.outgoing();
        let next = node.swim.next_timer().map(|at| at.max(self.now));
        if let Some(at) = next
            && node.wakes.is_none_or(|wakes| at < wakes)
        {
            node.wakes = Some(at);
            self.schedule(at, number, Event::Timers);
        }
        for (to, message) in outgoing {
            self.sent += 1;
            let delay = DELAY_US.0 + self.rng.below(DELAY_US.1 - DELAY_US.0);
            if self.rng.below(100) >= self.loss_percent {
                let at = self.now + Duration::from_micros(delay);
                self.schedule(at, number_of(to), Event::Message(message));
            }
        }
    }

    fn schedule(&mut self, at: BootTime, number: usize, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, number, event)));
    }
}

impl Node {
    fn renewals(&self) -> u64 {
        self.swim.me().bump - BUMP
    }
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], PORT))
}

fn number_of(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => {
            let [_, _, high, low] = address.ip().octets();
            usize::from(u16::from_be_bytes([high, low]))
        }
        SocketAddr::V6(_) => unreachable!("all nodes have IPv4 addresses"),
    }
}
