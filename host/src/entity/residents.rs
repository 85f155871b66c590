//! Who is in memory: the account of hot instances, their passivation when idle, and their eviction
//! when there are too many.
//!
//! Eviction approximates least recently used as Redis does: of a sample of the residents, the one
//! that was used longest ago goes. The sample is the front of a ring through which all residents
//! pass.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::entity::EntitiesConfig;
use crate::entity::actor::{Actor, Hot};
use crate::words::clock::Instant;
use crate::words::telemetry::Metrics;
use crate::words::{clock, limits};

pub(super) struct Residents {
    config: EntitiesConfig,
    count: AtomicUsize,
    bytes: AtomicUsize,
    ring: Mutex<VecDeque<Arc<Actor>>>,
    schedule: Mutex<BinaryHeap<Reverse<Due>>>,
    order: AtomicU64,
    metrics: Metrics,
}

/// An instance that was taken out of its actor, to be dropped by the caller.
pub(super) type Evicted = (Arc<Actor>, Box<Hot>);

/// An appointment to look whether an actor has been idle for long enough.
struct Due {
    at: Instant,
    order: u64,
    actor: Arc<Actor>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What one hot instance counts for. Gives it back when dropped.
pub(super) struct Share {
    residents: Arc<Residents>,
    bytes: usize,
}

impl Share {
    pub(super) fn resize(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let residents = &self.residents;
        residents.bytes.fetch_add(bytes, Ordering::Relaxed);
        residents.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        residents.metrics.hot_bytes.inc_by(bytes as i64 - self.bytes as i64);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
        self.residents.count.fetch_sub(1, Ordering::Relaxed);
        self.residents.metrics.hot_entities.dec();
    }
}

impl Residents {
    pub(super) fn new(config: EntitiesConfig, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            config,
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            ring: Mutex::default(),
            schedule: Mutex::default(),
            order: AtomicU64::new(0),
            metrics,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes a share for an instance that is about to be made, evicting others where the budget asks
    /// for it. The evicted are returned, for the caller to drop and forget. None: none was found
    /// that is at rest.
    pub(super) fn admit(self: &Arc<Self>) -> (Option<Share>, Vec<Evicted>) {
        let mut evicted = Vec::new();
        let mut freed_bytes = 0;
        while self.is_full(evicted.len(), freed_bytes) {
            let victim = (0..limits::EVICTION_SAMPLES_MAX).find_map(|_| self.evict_one());
            let Some((actor, hot)) = victim else { return (None, evicted) };
            freed_bytes += hot.share.bytes;
            evicted.push((actor, hot));
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.metrics.hot_entities.inc();
        let mut share = Share { residents: self.clone(), bytes: 0 };
        share.resize(limits::HOT_ENTITY_BYTES);
        (Some(share), evicted)
    }

    /// Takes out the instance that was used longest ago among a sample of those at rest.
    fn evict_one(&self) -> Option<Evicted> {
        let mut sample: Vec<Arc<Actor>> = {
            let mut ring = self.ring.lock();
            let size = ring.len().min(limits::EVICTION_SAMPLE);
            ring.drain(..size).collect()
        };
        sample.sort_by_cached_key(|actor| *actor.used_at.lock());
        let victim =
            sample.iter().find_map(|actor| actor.evict(None).map(|hot| (actor.clone(), hot)));
        let mut ring = self.ring.lock();
        ring.extend(sample.into_iter().filter(|actor| stays(actor, &actor.place.in_ring)));
        victim
    }

    fn is_full(&self, freed: usize, freed_bytes: usize) -> bool {
        let count = self.count().saturating_sub(freed);
        let bytes = self.bytes.load(Ordering::Relaxed).saturating_sub(freed_bytes);
        count >= self.config.hot_entities_max || bytes >= self.config.hot_bytes_max
    }

    /// Notes a new resident. Its actor is busy, which the lists take for hot.
    pub(super) fn enter(&self, actor: &Arc<Actor>, passivate_after: Duration) {
        let place = &actor.place;
        place.passivate_after_ms.store(passivate_after.as_millis() as u64, Ordering::Relaxed);
        let room = 2 * self.count() + limits::RESIDENTS_SLACK;
        let mut ring = self.ring.lock();
        if ring.len() > room {
            ring.retain(|actor| stays(actor, &actor.place.in_ring));
        }
        if !place.in_ring.swap(true, Ordering::Relaxed) {
            ring.push_back(actor.clone());
        }
        drop(ring);
        let mut schedule = self.schedule.lock();
        if schedule.len() > room {
            schedule.retain(|Reverse(due)| stays(&due.actor, &due.actor.place.scheduled));
        }
        if !place.scheduled.swap(true, Ordering::Relaxed) {
            schedule.push(self.due(actor.clone(), clock::now() + passivate_after));
        }
    }

    fn due(&self, actor: Arc<Actor>, at: Instant) -> Reverse<Due> {
        Reverse(Due { at, order: self.order.fetch_add(1, Ordering::Relaxed), actor })
    }

    fn next_due(&self, now: Instant) -> Option<Arc<Actor>> {
        let mut schedule = self.schedule.lock();
        if schedule.peek()?.0.at > now {
            return None;
        }
        Some(schedule.pop()?.0.actor)
    }

    /// Takes out the instances that have been idle for as long as their type allows. Actors without
    /// one may be forgotten.
    pub(super) fn idle(&self) -> Vec<(Arc<Actor>, Option<Box<Hot>>)> {
        let now = clock::now();
        let mut out = Vec::new();
        while let Some(actor) = self.next_due(now) {
            let after =
                Duration::from_millis(actor.place.passivate_after_ms.load(Ordering::Relaxed));
            let used_at = *actor.used_at.lock();
            let idle = used_at + after <= now;
            let hot = if idle { actor.evict(Some(used_at)) } else { None };
            let mut schedule = self.schedule.lock();
            if stays(&actor, &actor.place.scheduled) {
                let at = if idle { now + limits::PASSIVATION_TICK } else { used_at + after };
                schedule.push(self.due(actor.clone(), at));
            }
            drop(schedule);
            if hot.is_some() || !actor.is_hot() {
                out.push((actor, hot));
            }
        }
        out
    }
}

/// Whether an actor keeps its place in a list. The caller holds the list's lock, as `enter` does, so
/// that an activation that comes in between is not lost.
fn stays(actor: &Actor, place: &AtomicBool) -> bool {
    let hot = actor.is_hot();
    place.store(hot, Ordering::Relaxed);
    hot
}
