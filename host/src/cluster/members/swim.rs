//! SWIM itself: foca, its timers, and nothing that touches a network or a clock.
//!
//! Time and packets come in as arguments; what is to be sent goes out through [`Swim::outgoing`]. What foca
//! wants done is taken from it after every call.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use foca::{
    AccumulatingRuntime, BroadcastHandler, Config, Foca, Invalidates, OwnedNotification,
    PeriodicParams, PostcardCodec, Timer,
};
use rand_core::TryRng;

use crate::cluster::members::Timing;
use crate::cluster::members::identity::Identity;
use crate::words::clock::BootTime;
use crate::words::limits::SWIM_REMEMBER_DOWN;

pub struct Swim {
    foca: Foca<Identity, PostcardCodec, Random, Revisions>,
    runtime: AccumulatingRuntime<Identity>,
    timers: BinaryHeap<Reverse<Due>>,
    scheduled: u64,
    timing: Timing,
    message_bytes: usize,
    sized_for: usize,
    revision: Arc<AtomicU64>,
    outgoing: Vec<(SocketAddr, Bytes)>,
    joined: Vec<Identity>,
}

/// The message was not one of SWIM's. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSwim;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: BootTime,
    /// Of timers that are due together, foca wants some before others.
    timer: Timer<Identity>,
    number: u64,
}

impl Swim {
    /// `message_bytes`: the longest message that may be sent. `seed`: two nodes should not have the same.
    pub fn new(me: Identity, timing: &Timing, message_bytes: usize, seed: u64) -> Self {
        let revision = Arc::new(AtomicU64::new(0));
        let config = config(timing, 1, message_bytes);
        let broadcasts = Revisions { newest: revision.clone() };
        let foca = Foca::with_custom_broadcast(me, config, Random(seed), PostcardCodec, broadcasts);
        Self {
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            scheduled: 0,
            timing: timing.clone(),
            message_bytes,
            sized_for: 1,
            revision,
            outgoing: Vec::new(),
            joined: Vec::new(),
        }
    }

    pub fn me(&self) -> &Identity {
        self.foca.identity()
    }

    /// All that are known, those that are down included.
    pub fn members(&self) -> impl Iterator<Item = &foca::Member<Identity>> {
        self.foca.iter_membership_state()
    }

    /// Alive or suspect, without this node.
    pub fn active(&self) -> impl Iterator<Item = &Identity> {
        self.foca.iter_members().map(foca::Member::id)
    }

    /// The newest revision that anybody spoke of; 0 for none.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// What is to be sent, since it was last asked.
    pub fn outgoing(&mut self) -> Vec<(SocketAddr, Bytes)> {
        std::mem::take(&mut self.outgoing)
    }

    /// Who became active, or came back as a newer identity, since it was last asked.
    pub fn joined(&mut self) -> Vec<Identity> {
        std::mem::take(&mut self.joined)
    }

    pub fn next_timer(&self) -> Option<BootTime> {
        self.timers.peek().map(|Reverse(due)| due.at)
    }

    pub fn receive(&mut self, now: BootTime, message: &[u8]) -> Result<(), NotSwim> {
        let result = self.foca.handle_data(message, &mut self.runtime);
        self.drain(now);
        match result {
            Err(
                foca::Error::DataTooBig
                | foca::Error::MalformedPacket
                | foca::Error::Decode(_)
                | foca::Error::CustomBroadcast(_),
            ) => Err(NotSwim),
            // Others have an old or a wrong picture of this node; that mends itself.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Does what is due. After a pause of the process all timers are due at once; foca bears it.
    pub fn tick(&mut self, now: BootTime) {
        while self.timers.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.timers.pop() else { break };
            if self.was_refuted(&due.timer) {
                continue;
            }
            // An error here is an incomplete round of probes, from which foca recovers by itself.
            let _recovers = self.foca.handle_timer(due.timer, &mut self.runtime);
            self.drain(now);
        }
    }

    /// A suspicion to which the suspect has objected. With that foca 2 would not call the member down, but
    /// would still tell it that it is, and it would come back under a new identity for nothing.
    fn was_refuted(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        let mut members = self.members();
        !members.any(|member| member.id() == member_id && member.incarnation() == *incarnation)
    }

    pub fn announce(&mut self, now: BootTime, to: SocketAddr) {
        if to != self.me().addr {
            let _too_big = self.foca.announce(Identity::whoever(to), &mut self.runtime);
            self.drain(now);
        }
    }

    /// Tells everybody of a newer revision, unless one at least as new is known already.
    pub fn broadcast(&mut self, now: BootTime, revision: u64) {
        if self.foca.add_broadcast(&revision.to_be_bytes()).unwrap_or(false) {
            let _best_effort = self.foca.broadcast(&mut self.runtime);
            self.drain(now);
        }
    }

    /// Goes on under a new incarnation. The old identity is declared down and replaced at once.
    pub fn renew(&mut self, now: BootTime, incarnation: u64) {
        if self.me().incarnation == incarnation {
            return;
        }
        let bump = self.me().bump.saturating_add(1);
        let me = Identity { incarnation, bump, ..self.me().clone() };
        let _same = self.foca.change_identity(me, &mut self.runtime);
        self.drain(now);
    }

    /// Declares this node down. It takes no part any more.
    pub fn leave(&mut self, now: BootTime) {
        let _best_effort = self.foca.leave_cluster(&mut self.runtime);
        self.drain(now);
    }

    /// Suspicion and dissemination take longer in larger clusters. Cheap if the size is about the same.
    pub fn resize(&mut self) {
        let members = self.foca.num_members() + 1;
        if members.abs_diff(self.sized_for) * 4 > self.sized_for {
            self.sized_for = members;
            let config = config(&self.timing, members, self.message_bytes);
            let _keeps_the_old = self.foca.set_config(config);
        }
    }

    fn drain(&mut self, now: BootTime) {
        while let Some((to, message)) = self.runtime.to_send() {
            self.outgoing.push((to.addr, message));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.scheduled += 1;
            self.timers.push(Reverse(Due { at: now + after, timer, number: self.scheduled }));
        }
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(id) | OwnedNotification::Rename(_, id) => {
                    self.joined.push(id);
                }
                OwnedNotification::MemberDown(_)
                | OwnedNotification::Active
                | OwnedNotification::Idle
                | OwnedNotification::Defunct
                | OwnedNotification::Rejoin(_) => {}
            }
        }
    }
}

fn config(timing: &Timing, members: usize, message_bytes: usize) -> Config {
    let members = members.max(1) as f64;
    let at_least_one = |n: usize| NonZeroUsize::MIN.saturating_add(n.saturating_sub(1));
    // Of `t` transmissions a node each, news miss about `n / e^t` nodes. memberlist's 4 log10(n + 1) misses
    // somebody in one of 20 cases, and mends it by exchanges of all that is known, which foca does not have.
    // Suspicion grows with log10(n) from ten nodes on.
    let transmissions = (6.0 * (members + 1.0).log10()).ceil().clamp(8.0, 20.0) as u8;
    let suspicion = timing.suspicion.mul_f64(members.log10().max(1.0));
    let periodic = |frequency: Duration, members: usize| {
        Some(PeriodicParams { frequency, num_members: at_least_one(members) })
    };
    Config {
        probe_period: timing.probe,
        probe_rtt: timing.rtt,
        num_indirect_probes: at_least_one(3),
        max_transmissions: NonZeroU8::MIN.saturating_add(transmissions.saturating_sub(1)),
        suspect_to_down_after: suspicion,
        remove_down_after: Some(SWIM_REMEMBER_DOWN),
        max_packet_size: at_least_one(message_bytes),
        notify_down_members: true,
        periodic_announce: periodic(timing.announce * 2, 1),
        periodic_announce_to_down_members: periodic(timing.announce, 2),
        periodic_gossip: periodic(timing.gossip, 3),
    }
}

/// The broadcast that there is a newer deployment: its revision, big endian.
struct Revisions {
    newest: Arc<AtomicU64>,
}

struct Revision;

impl Invalidates for Revision {
    /// Only newer ones get this far.
    fn invalidates(&self, _other: &Self) -> bool {
        true
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a broadcast of {bytes} bytes")]
struct UnknownBroadcast {
    bytes: usize,
}

impl BroadcastHandler<Identity> for Revisions {
    type Key = Revision;
    type Error = UnknownBroadcast;

    fn receive_item(
        &mut self,
        data: &[u8],
        _sender: Option<&Identity>,
    ) -> Result<Option<Revision>, UnknownBroadcast> {
        let bytes = data.try_into().map_err(|_| UnknownBroadcast { bytes: data.len() })?;
        let revision = u64::from_be_bytes(bytes);
        let before = self.newest.fetch_max(revision, Ordering::Relaxed);
        Ok((revision > before).then_some(Revision))
    }
}

/// SplitMix64: SWIM picks members at random, and needs nothing that cannot be foretold.
struct Random(u64);

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|bits| (bits >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(x ^ (x >> 31))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let random = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::NodeId;

    fn swim(number: u8) -> Swim {
        let addr = SocketAddr::from(([10, 0, 0, number], 7_834));
        let me = Identity { addr, node: NodeId([number; 16]), incarnation: 1, bump: 1 };
        Swim::new(me, &Timing::default(), 1_100, u64::from(number))
    }

    /// Lets time pass. Messages between the two arrive at once, or never.
    fn pass(pair: &mut [Swim; 2], now: &mut BootTime, time: Duration, lost: bool) {
        let end = *now + time;
        loop {
            for (from, to) in [(0, 1), (1, 0)] {
                for (_, message) in pair[from].outgoing() {
                    if !lost {
                        pair[to].receive(*now, &message).unwrap();
                    }
                }
            }
            if pair.iter().any(|swim| !swim.outgoing.is_empty()) {
                continue;
            }
            let next = pair.iter().filter_map(Swim::next_timer).min().unwrap();
            if next > end {
                *now = end;
                return;
            }
            *now = next;
            pair.iter_mut().for_each(|swim| swim.tick(next));
        }
    }

    #[test]
    fn who_has_objected_to_a_suspicion_keeps_its_identity() {
        let mut pair = [swim(1), swim(2)];
        let mut now = BootTime::from_nanos(1);
        let addr = pair[1].me().addr;
        pair[0].announce(now, addr);
        pass(&mut pair, &mut now, Duration::from_secs(2), false);
        let suspects = |pair: &[Swim; 2]| {
            pair.iter().any(|swim| swim.members().any(|m| m.state() == foca::State::Suspect))
        };
        while !suspects(&pair) {
            pass(&mut pair, &mut now, Duration::from_millis(50), true);
        }
        pass(&mut pair, &mut now, Duration::from_secs(5), false);
        assert!(!suspects(&pair));
        for swim in &pair {
            assert_eq!((swim.me().bump, swim.active().count()), (1, 1));
        }
        pass(&mut pair, &mut now, Duration::from_secs(5), true);
        assert!(pair.iter().all(|swim| swim.active().count() == 0));
    }
}
