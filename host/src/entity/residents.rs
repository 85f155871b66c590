//! Who is in memory: the account of hot instances, their passivation when idle, and their eviction
//! when there are too many.
//!
//! Eviction follows the CLOCK algorithm (Corbato, 1968), which approximates least recently used: a
//! hand passes over the residents, spares once those that were used since it last came by, and
//! takes the first that was not.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
    /// for it. The evicted are returned, for the caller to drop and forget. None: every resident is
    /// busy.
    pub(super) fn admit(self: &Arc<Self>) -> (Option<Share>, Vec<(Arc<Actor>, Box<Hot>)>) {
        let mut evicted = Vec::new();
        let mut freed_bytes = 0;
        for _ in 0..limits::EVICTION_STEPS_MAX {
            if !self.is_full(evicted.len(), freed_bytes) {
                break;
            }
            let Some(actor) = self.ring.lock().pop_front() else { break };
            if actor.touched.swap(false, Ordering::Relaxed) {
                self.ring.lock().push_back(actor);
                continue;
            }
            match actor.evict(None) {
                Some(hot) => {
                    freed_bytes += hot.share.bytes;
                    actor.place.in_ring.store(false, Ordering::Relaxed);
                    evicted.push((actor, hot));
                }
                None if actor.is_hot() => self.ring.lock().push_back(actor),
                None => actor.place.in_ring.store(false, Ordering::Relaxed),
            }
        }
        if self.is_full(evicted.len(), freed_bytes) {
            return (None, evicted);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.metrics.hot_entities.inc();
        let mut share = Share { residents: self.clone(), bytes: 0 };
        share.resize(limits::HOT_ENTITY_BYTES);
        (Some(share), evicted)
    }

    fn is_full(&self, freed: usize, freed_bytes: usize) -> bool {
        let count = self.count().saturating_sub(freed);
        let bytes = self.bytes.load(Ordering::Relaxed).saturating_sub(freed_bytes);
        count >= self.config.hot_entities_max || bytes >= self.config.hot_bytes_max
    }

    /// Notes a new resident.
    pub(super) fn enter(&self, actor: &Arc<Actor>, passivate_after: Duration) {
        let place = &actor.place;
        place.passivate_after_ms.store(passivate_after.as_millis() as u64, Ordering::Relaxed);
        if !place.in_ring.swap(true, Ordering::Relaxed) {
            self.ring.lock().push_back(actor.clone());
        }
        if !place.scheduled.swap(true, Ordering::Relaxed) {
            self.appoint(actor.clone(), clock::now() + passivate_after);
        }
    }

    fn appoint(&self, actor: Arc<Actor>, at: Instant) {
        let order = self.order.fetch_add(1, Ordering::Relaxed);
        self.schedule.lock().push(Reverse(Due { at, order, actor }));
    }

    fn due(&self, now: Instant) -> Option<Arc<Actor>> {
        let mut schedule = self.schedule.lock();
        if schedule.peek()?.0.at > now {
            return None;
        }
        Some(schedule.pop()?.0.actor)
    }

    /// Takes out the instances that have been idle for as long as their type allows.
    pub(super) fn idle(&self) -> Vec<(Arc<Actor>, Option<Box<Hot>>)> {
        let now = clock::now();
        let mut out = Vec::new();
        while let Some(actor) = self.due(now) {
            let after =
                Duration::from_millis(actor.place.passivate_after_ms.load(Ordering::Relaxed));
            let used_at = *actor.used_at.lock();
            if actor.is_hot() && used_at + after > now {
                self.appoint(actor, used_at + after);
                continue;
            }
            match actor.evict(Some(used_at)) {
                None if actor.is_hot() => self.appoint(actor, now + limits::PASSIVATION_TICK),
                hot => {
                    actor.place.scheduled.store(false, Ordering::Relaxed);
                    out.push((actor, hot));
                }
            }
        }
        out
    }
}
