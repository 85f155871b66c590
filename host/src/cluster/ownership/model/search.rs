//! The search, and what it must find and must not find.

use std::collections::HashSet;
use std::time::Duration;

use crate::cluster::ownership::model::{
    Append, Bounds, COLLISION, Found, Giving, LEASE, Mutant, Node, POLL_GAP_MAX, Renewing, TICK,
    TIMING, TWO_SERVE, Violation, World, Write, at, id,
};
use crate::words::NodeId;
use crate::words::clock::BootTime;

/// A node that may be late, fenced and registered again. Suspended it does nothing, and that is late.
const TAKE_OVER: Bounds = Bounds {
    epoch: 3,
    incarnation: 2,
    commands: 1,
    lost_answers: 0,
    hand_overs: 0,
    suspensions: 0,
    late_ticks: 1,
    watchers: 1,
};

/// The shard goes to and fro while all leases hold.
const HAND_OVER: Bounds = Bounds {
    epoch: 5,
    incarnation: 1,
    commands: 2,
    lost_answers: 1,
    hand_overs: 2,
    suspensions: 0,
    late_ticks: 0,
    watchers: 0,
};

/// The answer to an append is lost while its node is fenced.
const LOST_ANSWER: Bounds = Bounds { lost_answers: 1, late_ticks: 0, ..TAKE_OVER };

/// One node watches, and everything else can happen.
const LONG: Bounds = Bounds {
    epoch: 4,
    incarnation: 2,
    commands: 2,
    lost_answers: 1,
    hand_overs: 1,
    suspensions: 0,
    late_ticks: 1,
    watchers: 1,
};

/// Both nodes watch each other.
const BOTH: Bounds = Bounds { commands: 0, watchers: 2, ..TAKE_OVER };

/// For a node that can wake.
const SUSPENSION: Bounds = Bounds { suspensions: 1, ..TAKE_OVER };

/// More states than this are too many for a test.
const STATES_MAX: usize = 60_000_000;

/// The bytes of a state, with ages in place of times, and without what no rule can tell apart.
struct Key(Vec<u8>);

impl Key {
    fn of(world: &World, mutant: Mutant, bounds: &Bounds) -> u128 {
        let mut key = Self(Vec::with_capacity(96));
        let used = &world.used;
        key.0.extend([used.commands, used.lost_answers, used.hand_overs]);
        key.0.extend([used.suspensions, used.late_ticks, used.jumps]);
        key.0.push(world.shard.epoch as u8);
        let known = world.nodes[0].known.min(world.nodes[1].known);
        for owner in world.past.iter().skip(known as usize - 1) {
            key.owner(*owner);
        }
        key.owner(world.shard.owner);
        key.0.extend([world.journal, world.acknowledged]);
        for (number, node) in world.nodes.iter().enumerate() {
            let row = &world.rows[number];
            key.0.extend([row.incarnation as u8, u8::from(row.is_fenced)]);
            if mutant == Mutant::StoreClock {
                key.0.push((world.store_clock - row.renewed_at).min(LEASE) as u8);
            }
            key.node(world, 1 - number, node);
            let is_in_order =
                bounds.watches(number) && node.lease.is_in_order(at(node.clock), &TIMING);
            key.0.push(u8::from(is_in_order));
            let is_dead = |write: &Write| {
                write.epoch < world.shard.epoch && mutant != Mutant::NoEpochInAppend
            };
            match node.late_append.as_ref().filter(|write| !is_dead(write)) {
                Some(write) => key.write(1, write),
                None => key.0.push(0),
            }
        }
        xxhash_rust::xxh3::xxh3_128(&key.0)
    }

    fn node(&mut self, world: &World, other: usize, node: &Node) {
        let now = at(node.clock);
        let theirs = &world.rows[other];
        self.0.push(u8::from(node.is_suspended));
        self.option(node.life);
        self.option(node.held);
        self.0.extend([u8::from(node.is_closing), node.granted as u8, node.known as u8]);
        self.0.push(node.memory);
        // How much longer it is trusted, with no margin at most.
        let margin = TIMING.lease - TIMING.trusted;
        let longest = |until: BootTime| (until + margin).since(now);
        let left = longest(node.lease.trusted_until(&TIMING));
        self.age(left, LEASE);
        self.0.push(node.lease.incarnation().0 as u8);
        self.observer(now, node, (theirs.incarnation, theirs.hb), id(other));
        match node.renewing {
            Renewing::No => self.0.push(0),
            Renewing::Sent(sent) => {
                self.0.push(1);
                self.age(longest(at(sent) + TIMING.trusted).max(left), LEASE);
            }
            Renewing::Answered { sent, is_renewed } => {
                self.0.push(2 + u8::from(is_renewed));
                self.age(longest(at(sent) + TIMING.trusted).max(left), LEASE);
            }
        }
        match &node.append {
            Append::No => self.0.push(0),
            Append::Sent(write) => self.write(1, write),
            Append::Answered { write, is_stored } => self.write(2 + u8::from(*is_stored), write),
            Append::LookedUp { write, is_stepped, is_stored } => {
                self.write(4 + u8::from(*is_stepped) * 2 + u8::from(*is_stored), write);
            }
        }
        match node.giving {
            Giving::No => self.0.push(0),
            Giving::Asked { epoch, to } => self.0.extend([1, epoch as u8, to as u8]),
            Giving::Releasing { epoch } => self.0.extend([2, epoch as u8]),
        }
        self.0.push(node.born as u8);
        let counts = |(epoch, to): &(u64, u64)| *epoch > node.granted && Some(*to) == node.life;
        self.pair(node.told.filter(counts));
        self.pair(node.late_hand_over.filter(|(epoch, _)| *epoch == world.shard.epoch));
        let fence = node
            .fence
            .filter(|fence| (fence.incarnation.0, fence.hb) == (theirs.incarnation, theirs.hb));
        self.0.push(u8::from(fence.is_some()));
    }

    /// What was seen of a row that has changed since, or so long ago that it does not count, is as good as
    /// nothing seen. Otherwise the later of two times counts.
    fn observer(&mut self, now: BootTime, node: &Node, row: (u64, u64), other: NodeId) {
        let observer = &node.observer;
        let seen = observer.seen(other).filter(|seen| (seen.incarnation.0, seen.hb) == row);
        let polled = observer.polled.map(|polled| now.since(polled));
        let polled = polled.filter(|age| *age <= TIMING.poll_gap_max);
        match (seen, polled, observer.in_order_since) {
            (Some(seen), Some(polled), Some(since)) => {
                self.age(polled, POLL_GAP_MAX);
                self.age(now.since(seen.changed.max(since)), LEASE);
            }
            _ => self.0.push(u8::MAX),
        }
    }

    fn owner(&mut self, owner: Option<(usize, u64)>) {
        let (node, incarnation) = owner.unwrap_or((2, 0));
        self.0.extend([node as u8, incarnation as u8]);
    }

    fn write(&mut self, tag: u8, write: &Write) {
        self.0.extend([tag, write.epoch as u8, write.seq as u8, write.command]);
    }

    fn option(&mut self, number: Option<u64>) {
        self.0.push(number.unwrap_or(0) as u8);
    }

    fn pair(&mut self, pair: Option<(u64, u64)>) {
        let (a, b) = pair.unwrap_or((0, 0));
        self.0.extend([a as u8, b as u8]);
    }

    fn age(&mut self, age: Duration, most: u64) {
        self.0.push((age.as_secs() / TICK.as_secs()).min(most) as u8);
    }
}

enum Searched {
    /// So many states, and nothing is wrong in any of them.
    Fine(usize),
    Wrong {
        violation: Violation,
        steps: Vec<&'static str>,
    },
}

fn search(mutant: Mutant, bounds: &Bounds) -> Searched {
    let first = World::first();
    let mut visited = HashSet::from([Key::of(&first, mutant, bounds)]);
    // For each state, the one before it and the event between them.
    let mut history: Vec<(u32, &'static str)> = vec![(0, "")];
    let mut level = vec![(0, first)];
    while !level.is_empty() {
        for (number, world) in std::mem::take(&mut level) {
            for (name, next) in world.next(mutant, bounds) as Vec<Found> {
                let violation = match &next {
                    Ok(next) => next.check(&world, mutant),
                    Err(violation) => Some(*violation),
                };
                if let Some(violation) = violation {
                    let mut steps = vec![name];
                    let mut at = number;
                    while at != 0 {
                        let (before, name) = history[at as usize];
                        steps.push(name);
                        at = before;
                    }
                    steps.reverse();
                    return Searched::Wrong { violation, steps };
                }
                let Ok(next) = next else { continue };
                if visited.insert(Key::of(&next, mutant, bounds)) {
                    assert!(visited.len() < STATES_MAX, "too many states");
                    level.push((history.len() as u32, next));
                    history.push((number, name));
                }
            }
        }
    }
    Searched::Fine(visited.len())
}

fn nothing_is_wrong(bounds: &Bounds) -> usize {
    match search(Mutant::None, bounds) {
        Searched::Fine(states) => {
            println!("{bounds:?}: {states} states, and nothing is wrong in any of them");
            states
        }
        Searched::Wrong { violation, steps } => panic!("{violation}:\n  {}", steps.join("\n  ")),
    }
}

#[test]
fn no_order_of_events_breaks_a_promise() {
    let states = [TAKE_OVER, HAND_OVER, LOST_ANSWER].iter().map(nothing_is_wrong).sum::<usize>();
    assert!(states > 10_000, "the model does too little to prove anything");
}

#[test]
#[ignore = "three million states: minutes unless optimised"]
fn no_order_of_more_events_breaks_a_promise() {
    nothing_is_wrong(&LONG);
    nothing_is_wrong(&BOTH);
}

fn caught(mutant: Mutant, bounds: &Bounds, expected: Violation) {
    match search(mutant, bounds) {
        Searched::Fine(states) => panic!("{mutant:?} was not caught in {states} states"),
        Searched::Wrong { violation, steps } => {
            let trace = steps.join("\n  ");
            println!("{mutant:?}: {violation}, after {} events:\n  {trace}", steps.len());
            assert_eq!(violation, expected);
        }
    }
}

#[test]
fn a_lease_without_a_margin_is_caught() {
    caught(Mutant::NoMargin, &TAKE_OVER, TWO_SERVE);
}

#[test]
fn a_lease_that_counts_from_the_answer_is_caught() {
    caught(Mutant::LeaseFromReceipt, &TAKE_OVER, TWO_SERVE);
}

#[test]
fn fencing_by_gossip_alone_is_caught() {
    caught(Mutant::FencedByGossip, &TAKE_OVER, TWO_SERVE);
}

#[test]
fn an_append_without_the_epoch_is_caught() {
    caught(Mutant::NoEpochInAppend, &HAND_OVER, COLLISION);
}

#[test]
fn a_clock_that_stands_still_in_a_suspended_node_is_caught() {
    caught(Mutant::FrozenClock, &SUSPENSION, TWO_SERVE);
}

#[test]
fn leases_by_the_clock_of_the_store_are_caught() {
    caught(Mutant::StoreClock, &TAKE_OVER, TWO_SERVE);
}

#[test]
fn a_journal_that_takes_a_stepped_epoch_by_itself_is_caught() {
    caught(Mutant::SteppedPastGrants, &HAND_OVER, TWO_SERVE);
}
