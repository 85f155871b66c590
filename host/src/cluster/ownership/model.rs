//! Every order of events in a small cluster, on the rules that run: two nodes and one shard.
//!
//! What is modelled here is what is around the rules: the store's statements, each of which takes effect at
//! once but may be late, unanswered or never arrive; clocks that run unevenly; a node that is suspended; and
//! an entity whose state is the set of commands that it has seen. Time is in ticks and has no end: states
//! that differ in nothing but ages that no rule can tell apart are one state. What else could go on for
//! ever is bounded by [`Bounds`]. The search goes breadth first, so that what it finds is short.
//!
//! Each mutant leaves out one safeguard. A search that does not find what that breaks proves nothing.

mod effects;
mod search;

use std::time::Duration;

use crate::cluster::ownership::hand_over::{self, Outcome};
use crate::cluster::ownership::observer::Expired;
use crate::cluster::ownership::{Lease, Observer, Renewal, Timing};
use crate::words::clock::BootTime;
use crate::words::{Epoch, Incarnation, NodeId};

const TICK: Duration = Duration::from_secs(1);
const LEASE: u64 = 3;
const POLL_GAP_MAX: u64 = 2;

/// The margin is one tick, as much as one clock may lose on the other.
const TIMING: Timing = Timing {
    renew_every: TICK,
    lease: Duration::from_secs(LEASE),
    trusted: Duration::from_secs(LEASE - 1),
    poll_every: TICK,
    poll_every_suspected: TICK,
    poll_gap_max: Duration::from_secs(POLL_GAP_MAX),
};

/// Which safeguard is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    None,
    /// A lease is trusted for as long as others respect it, though clocks run unevenly.
    NoMargin,
    /// A lease counts from when the answer to its renewal came.
    LeaseFromReceipt,
    /// Whoever gossip says is dead may be fenced.
    FencedByGossip,
    /// An append asks only whether its sequence number is free.
    NoEpochInAppend,
    /// The clock of leases stands still while the node is suspended.
    FrozenClock,
    /// A lease runs out by the database's wall clock, which may jump.
    StoreClock,
    /// The journal goes on under the epoch that it stepped, and `cluster::grants` does not know of it.
    SteppedPastGrants,
}

/// How often, in all, may happen what could happen without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    /// The highest epoch, and the highest incarnation of a node; both begin with 1.
    epoch: u64,
    incarnation: u64,
    commands: u8,
    lost_answers: u8,
    hand_overs: u8,
    suspensions: u8,
    /// Ticks that a node's clock misses.
    late_ticks: u8,
    /// How many nodes watch the other. A node that nobody watches is never late.
    watchers: usize,
}

impl Bounds {
    /// Node 1 watches first: node 0 is the one that owns the shard.
    fn watches(&self, node: usize) -> bool {
        node + self.watchers >= 2
    }
}

#[derive(Clone, Copy, Default)]
struct Used {
    commands: u8,
    lost_answers: u8,
    hand_overs: u8,
    suspensions: u8,
    late_ticks: u8,
    jumps: u8,
}

#[derive(Clone, Copy)]
struct Row {
    incarnation: u64,
    hb: u64,
    is_fenced: bool,
    /// By the store's clock. For [`Mutant::StoreClock`] alone.
    renewed_at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stored {
    /// The node and its incarnation.
    owner: Option<(usize, u64)>,
    epoch: u64,
}

#[derive(Clone, Copy)]
enum Renewing {
    No,
    Sent(u64),
    Answered { sent: u64, is_renewed: bool },
}

/// A write of the entity's next event.
#[derive(Clone, Copy)]
struct Write {
    epoch: u64,
    seq: u32,
    /// The command's bit.
    command: u8,
}

#[derive(Clone, Copy)]
enum Append {
    No,
    Sent(Write),
    Answered {
        write: Write,
        is_stored: bool,
    },
    /// The answer was lost, and the store was asked what became of it.
    LookedUp {
        write: Write,
        is_stepped: bool,
        is_stored: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Giving {
    No,
    /// To the other node's incarnation.
    Asked {
        epoch: u64,
        to: u64,
    },
    Releasing {
        epoch: u64,
    },
}

#[derive(Clone)]
struct Node {
    clock: u64,
    is_suspended: bool,
    /// The incarnation under which shards may be granted.
    life: Option<u64>,
    lease: Lease,
    observer: Observer,
    held: Option<u64>,
    is_closing: bool,
    granted: u64,
    known: u64,
    /// The commands whose events the entity has seen.
    memory: u8,
    renewing: Renewing,
    append: Append,
    giving: Giving,
    /// The epoch at the last registration: what was read before then is not acted upon.
    born: u64,
    /// The answer to a claim, or the news of a hand-over: an epoch and whose it is.
    told: Option<(u64, u64)>,
    /// Statements that nobody waits for, on their way.
    fence: Option<Expired>,
    late_append: Option<Write>,
    late_hand_over: Option<(u64, u64)>,
}

#[derive(Clone)]
struct World {
    used: Used,
    store_clock: u64,
    rows: [Row; 2],
    shard: Stored,
    /// Owners by epoch, less one.
    past: Vec<Option<(usize, u64)>>,
    /// Commands whose events are stored; and those whose callers know it.
    journal: u8,
    acknowledged: u8,
    nodes: [Node; 2],
}

type Violation = &'static str;
type Found = (&'static str, Result<World, Violation>);

const TWO_SERVE: Violation = "P5: two nodes answer from memory";
const STALE: Violation = "P5: an answer from memory lacks what was acknowledged";
const NOT_DURABLE: Violation = "P4, P7: what was acknowledged is not stored";
const TWO_HOLD: Violation = "P2: two nodes hold one epoch";
const EPOCH: Violation = "P1, P2: an owner changed and the epoch was not stepped";
const COLLISION: Violation = "P3, P8: the owner's append does not follow the journal";
const NO_LIFE: Violation = "a node without a life holds a shard";

fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 16])
}

fn at(ticks: u64) -> BootTime {
    BootTime::default() + TICK * ticks as u32
}

fn trusted(mutant: Mutant) -> Timing {
    match mutant {
        Mutant::NoMargin => Timing { trusted: TIMING.lease, ..TIMING },
        _ => TIMING,
    }
}

impl Node {
    fn serves(&self, mutant: Mutant) -> bool {
        !self.is_suspended
            && self.held.is_some()
            && !self.is_closing
            && self.lease.holds(at(self.clock), &trusted(mutant))
    }

    /// As `cluster::grants`. An entity that was loaded under another epoch is loaded again.
    fn grant(&mut self, incarnation: u64, epoch: u64, journal: u8) {
        if self.life == Some(incarnation) && epoch > self.granted {
            self.granted = epoch;
            self.known = self.known.max(epoch);
            self.hold(epoch, journal);
        }
    }

    fn hold(&mut self, epoch: u64, journal: u8) {
        if self.held.is_none_or(|held| held <= epoch) {
            self.held = Some(epoch);
            self.is_closing = false;
            self.memory = journal;
        }
    }

    fn revoke(&mut self, epoch: u64) -> bool {
        let is = self.held == Some(epoch);
        if is {
            self.held = None;
            self.is_closing = false;
        }
        is
    }
}

impl World {
    /// Both have just registered; node 0 owns the shard.
    fn first() -> Self {
        let node = |number: usize| Node {
            clock: 0,
            is_suspended: false,
            life: Some(1),
            lease: Lease::registered(Incarnation(1), at(0)),
            observer: Observer::new(id(number)),
            held: (number == 0).then_some(1),
            is_closing: false,
            granted: u64::from(number == 0),
            known: 1,
            memory: 0,
            renewing: Renewing::No,
            append: Append::No,
            giving: Giving::No,
            born: 1,
            told: None,
            fence: None,
            late_append: None,
            late_hand_over: None,
        };
        let row = Row { incarnation: 1, hb: 1, is_fenced: false, renewed_at: 0 };
        Self {
            used: Used::default(),
            store_clock: 0,
            rows: [row; 2],
            shard: Stored { owner: Some((0, 1)), epoch: 1 },
            past: vec![Some((0, 1))],
            journal: 0,
            acknowledged: 0,
            nodes: [node(0), node(1)],
        }
    }

    /// What must be true in every state, and of every step from `before`.
    fn check(&self, before: &World, mutant: Mutant) -> Option<Violation> {
        let [a, b] = &self.nodes;
        let lacks = |node: &Node| self.acknowledged & !node.memory != 0;
        let is_stepped = self.shard.epoch > before.shard.epoch;
        if a.serves(mutant) && b.serves(mutant) {
            return Some(TWO_SERVE);
        }
        if self.nodes.iter().any(|node| node.serves(mutant) && lacks(node)) {
            return Some(STALE);
        }
        if self.acknowledged & !self.journal != 0 {
            return Some(NOT_DURABLE);
        }
        if a.held.is_some() && a.held == b.held {
            return Some(TWO_HOLD);
        }
        if self.shard != before.shard && !is_stepped {
            return Some(EPOCH);
        }
        let is_undead = |node: &Node| node.life.is_none() && node.held.is_some();
        self.nodes.iter().any(is_undead).then_some(NO_LIFE)
    }

    /// Every state that one event leads to, with the name of the event.
    fn next(&self, mutant: Mutant, bounds: &Bounds) -> Vec<Found> {
        let mut found = Vec::with_capacity(16);
        self.time_passes(mutant, bounds, &mut found);
        for node in 0..2 {
            self.store_works(mutant, node, &mut found);
            if !self.nodes[node].is_suspended {
                self.lives(mutant, bounds, node, &mut found);
                if bounds.watches(node) {
                    self.watches(mutant, node, &mut found);
                }
                self.reads(node, &mut found);
                self.owns(bounds, node, &mut found);
                self.writes(mutant, bounds, node, &mut found);
            }
        }
        found
    }

    fn with(&self, change: impl FnOnce(&mut World)) -> Result<World, Violation> {
        let mut world = self.clone();
        change(&mut world);
        Ok(world)
    }

    fn time_passes(&self, mutant: Mutant, bounds: &Bounds, found: &mut Vec<Found>) {
        let tick = |late: Option<usize>| {
            self.with(|world| {
                world.store_clock += 1;
                world.used.late_ticks += u8::from(late.is_some());
                for (number, node) in world.nodes.iter_mut().enumerate() {
                    let is_frozen = node.is_suspended && mutant == Mutant::FrozenClock;
                    node.clock += u64::from(late != Some(number) && !is_frozen);
                    if !bounds.watches(1 - number) {
                        node.lease.renewed(at(node.clock), Renewal::Renewed);
                    }
                }
            })
        };
        if bounds.watchers == 0 {
            return;
        }
        found.push(("a tick", tick(None)));
        if self.used.late_ticks < bounds.late_ticks {
            found.push(("a tick that the clock of 0 misses", tick(Some(0))));
            found.push(("a tick that the clock of 1 misses", tick(Some(1))));
        }
        if mutant == Mutant::StoreClock && self.used.jumps == 0 {
            let jump = |world: &mut World| {
                world.used.jumps = 1;
                world.store_clock += LEASE;
            };
            found.push(("the store's clock jumps", self.with(jump)));
        }
        if self.nodes[0].is_suspended {
            found.push(("0 wakes", self.with(|world| world.nodes[0].is_suspended = false)));
        } else if self.used.suspensions < bounds.suspensions {
            let suspend = |world: &mut World| {
                world.used.suspensions += 1;
                world.nodes[0].is_suspended = true;
            };
            found.push(("0 is suspended", self.with(suspend)));
        }
    }

    /// Statements that were sent take effect.
    fn store_works(&self, mutant: Mutant, me: usize, found: &mut Vec<Found>) {
        let node = &self.nodes[me];
        if let Renewing::Sent(sent) = node.renewing {
            let renew = |world: &mut World| {
                let row = &mut world.rows[me];
                let is_renewed = row.incarnation == node.lease.incarnation().0 && !row.is_fenced;
                if is_renewed {
                    row.hb += 1;
                    row.renewed_at = world.store_clock;
                }
                world.nodes[me].renewing = Renewing::Answered { sent, is_renewed };
            };
            found.push(("a renewal takes effect", self.with(renew)));
        }
        if let Some(expired) = node.fence {
            let fence = |world: &mut World| {
                world.nodes[me].fence = None;
                let row = &mut world.rows[1 - me];
                let is_as_seen = (row.incarnation, row.hb) == (expired.incarnation.0, expired.hb);
                if is_as_seen && !row.is_fenced {
                    row.is_fenced = true;
                    row.incarnation += 1;
                    if world.shard.owner.is_some_and(|(owner, _)| owner != me) {
                        world.owned_by(None);
                    }
                }
            };
            found.push(("a fencing takes effect", self.with(fence)));
        }
        if let Append::Sent(write) = node.append {
            let stored = self.appended(mutant, &write).map(|(mut world, is_stored)| {
                world.nodes[me].append = Append::Answered { write, is_stored };
                world
            });
            found.push(("an append takes effect", stored));
        }
        if let Some(write) = node.late_append {
            let stored = self.appended(mutant, &write).map(|(mut world, _)| {
                world.nodes[me].late_append = None;
                world
            });
            found.push(("an append that was given up takes effect", stored));
        }
        if let Some((epoch, to)) = node.late_hand_over {
            let hand_over = |world: &mut World| {
                world.nodes[me].late_hand_over = None;
                world.handed_over(me, epoch, to);
            };
            found.push(("a hand-over that was given up takes effect", self.with(hand_over)));
        }
    }

    fn appended(&self, mutant: Mutant, write: &Write) -> Result<(World, bool), Violation> {
        let is_ours = self.shard.epoch == write.epoch && self.shard.owner.is_some();
        let follows = write.seq == self.journal.count_ones() + 1;
        if is_ours && !follows {
            return Err(COLLISION);
        }
        let is_stored = is_ours || (mutant == Mutant::NoEpochInAppend && follows);
        let mut world = self.clone();
        if is_stored {
            world.journal |= write.command;
        }
        Ok((world, is_stored))
    }

    /// The node keeps its lease, and registers again when it has lost it.
    fn lives(&self, mutant: Mutant, bounds: &Bounds, me: usize, found: &mut Vec<Found>) {
        let node = &self.nodes[me];
        let Some(_) = node.life else {
            if self.rows[me].incarnation < bounds.incarnation && self.shard.epoch < bounds.epoch {
                found.push(("a node registers again", self.with(|world| world.register(me))));
            }
            return;
        };
        if !bounds.watches(1 - me) {
            return;
        }
        match node.renewing {
            Renewing::No => {
                let sent = Renewing::Sent(node.clock);
                let send = |world: &mut World| world.nodes[me].renewing = sent;
                found.push(("a renewal is sent", self.with(send)));
            }
            Renewing::Sent(sent) => found.push((
                "a renewal is lost",
                self.with(|world| world.nodes[me].renewed(sent, Renewal::Unknown)),
            )),
            Renewing::Answered { sent, is_renewed } => {
                let lost = |world: &mut World| world.nodes[me].renewed(sent, Renewal::Unknown);
                found.push(("the answer to a renewal is lost", self.with(lost)));
                let renewal = if is_renewed { Renewal::Renewed } else { Renewal::Refused };
                let is_late = mutant == Mutant::LeaseFromReceipt;
                let from = if is_late { node.clock } else { sent };
                let answer = |world: &mut World| world.nodes[me].renewed(from, renewal);
                found.push(("a renewal is answered", self.with(answer)));
            }
        }
    }

    /// The node looks at the other's row.
    fn watches(&self, mutant: Mutant, me: usize, found: &mut Vec<Found>) {
        let node = &self.nodes[me];
        if node.life.is_none() {
            return;
        }
        let other = 1 - me;
        let theirs = self.rows[other];
        found.push(("a node looks at the other", self.with(|world| world.look(mutant, me))));
        if mutant == Mutant::FencedByGossip && node.fence.is_none() && !theirs.is_fenced {
            let incarnation = Incarnation(theirs.incarnation);
            let dead = Expired { node: id(other), incarnation, hb: theirs.hb };
            let suspect = |world: &mut World| world.nodes[me].fence = Some(dead);
            found.push(("gossip says that the other is dead", self.with(suspect)));
        }
    }

    /// The node acts on the shard's row, as it is or was. What is older than what it knows changes nothing.
    fn reads(&self, me: usize, found: &mut Vec<Found>) {
        let node = &self.nodes[me];
        let Some(life) = node.life else { return };
        for epoch in node.born.max(node.known)..=self.shard.epoch {
            let Some(owner) = self.past.get(epoch as usize - 1) else { continue };
            let name = match epoch == self.shard.epoch {
                true => "a node acts on the shard's row",
                false => "a node acts on an old row of the shard",
            };
            let act = |world: &mut World| {
                world.nodes[me].known = node.known.max(epoch);
                world.mend(me, life, Stored { owner: *owner, epoch });
            };
            found.push((name, self.with(act)));
        }
    }

    /// The node claims the shard, learns that it owns it, or gives it away.
    fn owns(&self, bounds: &Bounds, me: usize, found: &mut Vec<Found>) {
        let node = &self.nodes[me];
        let may_step = self.shard.epoch < bounds.epoch;
        if let Some((epoch, incarnation)) = node.told {
            let learn = |world: &mut World| {
                world.nodes[me].told = None;
                world.nodes[me].grant(incarnation, epoch, self.journal);
            };
            found.push(("a node learns that the shard is its own", self.with(learn)));
        }
        if let Some(life) = node.life
            && self.shard.owner.is_none()
            && self.is_member(me, life)
            && may_step
        {
            let claim = |world: &mut World| {
                world.owned_by(Some((me, life)));
                world.nodes[me].told = Some((world.shard.epoch, life));
            };
            found.push(("a claim takes effect", self.with(claim)));
        }
        let is_idle = matches!(node.append, Append::No) && !node.is_closing;
        match (node.giving, node.held) {
            (Giving::No, Some(epoch)) if is_idle && self.used.hand_overs < bounds.hand_overs => {
                let to = self.rows[1 - me].incarnation;
                let close = |world: &mut World| {
                    world.used.hand_overs += 1;
                    world.nodes[me].is_closing = true;
                    world.nodes[me].giving = Giving::Asked { epoch, to };
                };
                found.push(("a hand-over begins", self.with(close)));
            }
            (Giving::Asked { epoch, to }, _) if may_step => {
                let answered = |world: &mut World| {
                    let outcome = match world.handed_over(me, epoch, to) {
                        true => Outcome::Done(Epoch(epoch + 1)),
                        false => Outcome::Refused,
                    };
                    world.after(me, epoch, to, hand_over::after_hand_over(outcome));
                };
                let unknown = |world: &mut World| {
                    world.nodes[me].late_hand_over = Some((epoch, to));
                    world.after(me, epoch, to, hand_over::after_hand_over(Outcome::Unknown));
                };
                found.push(("a hand-over is answered", self.with(answered)));
                found.push(("a hand-over is not answered", self.with(unknown)));
            }
            (Giving::Releasing { epoch }, held) if held != Some(epoch) => {
                let end = |world: &mut World| world.nodes[me].giving = Giving::No;
                found.push(("a release has become needless", self.with(end)));
            }
            (Giving::Releasing { epoch }, _) if may_step => {
                let release = |world: &mut World| {
                    let outcome = match world.release(me, epoch) {
                        true => Outcome::Done(Epoch(epoch + 1)),
                        false => Outcome::Refused,
                    };
                    world.after(me, epoch, 0, hand_over::after_release(outcome));
                };
                found.push(("a release is answered", self.with(release)));
            }
            _ => {}
        }
    }

    /// The node takes commands and tells their callers what became of them.
    fn writes(&self, mutant: Mutant, bounds: &Bounds, me: usize, found: &mut Vec<Found>) {
        let node = &self.nodes[me];
        let lost = match node.append {
            Append::No => {
                if let Some(epoch) = node.held
                    && !node.is_closing
                    && self.used.commands < bounds.commands
                {
                    let command = 1 << self.used.commands;
                    let seq = node.memory.count_ones() + 1;
                    let send = |world: &mut World| {
                        world.used.commands += 1;
                        world.nodes[me].memory |= command;
                        world.nodes[me].append = Append::Sent(Write { epoch, seq, command });
                    };
                    found.push(("an append is sent", self.with(send)));
                }
                return;
            }
            Append::Sent(write) => (write, Some(write)),
            Append::Answered { write, is_stored } => {
                found.push((
                    "an append is answered",
                    self.with(|world| {
                        world.nodes[me].append = Append::No;
                        match is_stored {
                            true => world.acknowledged |= write.command,
                            false => _ = world.nodes[me].revoke(write.epoch),
                        }
                    }),
                ));
                (write, None)
            }
            Append::LookedUp { write, is_stepped, is_stored } => {
                found.push((
                    "a node learns what became of an append",
                    self.with(|world| {
                        let journal = world.journal;
                        let node = &mut world.nodes[me];
                        node.append = Append::No;
                        let was_held = node.revoke(write.epoch);
                        if was_held && is_stepped && mutant == Mutant::SteppedPastGrants {
                            node.hold(write.epoch + 1, journal);
                        }
                        if is_stored {
                            world.acknowledged |= write.command;
                        }
                    }),
                ));
                return;
            }
        };
        if self.used.lost_answers < bounds.lost_answers && self.shard.epoch < bounds.epoch {
            let (write, late) = lost;
            let look_up = |world: &mut World| {
                world.used.lost_answers += 1;
                let is_stepped = self.shard.epoch == write.epoch && self.shard.owner.is_some();
                if is_stepped {
                    world.owned_by(self.shard.owner);
                }
                let is_stored = self.journal & write.command != 0;
                world.nodes[me].late_append = late;
                world.nodes[me].append = Append::LookedUp { write, is_stepped, is_stored };
            };
            found.push(("the answer to an append is lost, and looked up", self.with(look_up)));
        }
    }
}
