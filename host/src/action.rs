//! Floor 5: actions. Functions without a state of their own: any instance of the service's pool serves
//! any call, many at once, in any of the four shapes of a gRPC method.
//!
//! Not here: where a call that an action makes goes ([`crate::entity::Caller`]), and what a stream looks
//! like on the wire.

mod effects;
mod run;
pub mod stream;
mod talk;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::entity::{Caller, Consistency, CrashReport};
use crate::registry::{Method, Registry, Service};
use crate::words::clock::Instant;
use crate::words::telemetry::Metrics;
use crate::words::{Sparing, Status, Trail, limits};

pub use stream::{Input, Messages, Output};

/// The actions of this node. Cheap to clone.
#[derive(Clone)]
pub struct Actions {
    inner: Arc<Inner>,
}

/// For those whom [`Actions`] itself holds.
#[derive(Clone)]
pub struct WeakActions(Weak<Inner>);

struct Inner {
    registry: Registry,
    metrics: Metrics,
    /// Set once, at assembly.
    caller: OnceLock<Arc<dyn Caller>>,
    /// The last crash of each service.
    crashes: Mutex<HashMap<Arc<str>, CrashReport>>,
    /// By service.
    crash_warnings: Sparing,
    seeds: AtomicU64,
    in_flight: AtomicUsize,
    empty: Notify,
    draining: AtomicBool,
    /// Ends the calls that still run when the time for draining is over.
    stop: CancellationToken,
    /// Effects that nobody waits for.
    started_effects: Arc<Semaphore>,
}

/// One call of an action.
#[derive(Clone)]
pub struct Request {
    pub service: Arc<Service>,
    pub method: Arc<Method>,
    /// The request message in protobuf's binary encoding; empty if the request streams.
    pub payload: Bytes,
    pub metadata: Vec<(String, String)>,
    pub idempotency_key: Option<String>,
    pub deadline: Instant,
    pub request_id: Arc<str>,
    /// For the calls that it makes.
    pub consistency: Consistency,
    /// Through which functions the call came.
    pub trail: Trail,
}

impl Actions {
    pub fn new(registry: Registry, metrics: Metrics) -> Self {
        let inner = Inner {
            registry,
            metrics,
            caller: OnceLock::new(),
            crashes: Mutex::default(),
            crash_warnings: Sparing::default(),
            seeds: AtomicU64::new(getrandom::u64().unwrap_or_default()),
            in_flight: AtomicUsize::new(0),
            empty: Notify::new(),
            draining: AtomicBool::new(false),
            stop: CancellationToken::new(),
            started_effects: Arc::new(Semaphore::new(limits::STARTED_EFFECTS_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Says where the calls of actions go. Until then they are refused; only the first one counts.
    pub fn calls_through(&self, caller: Arc<dyn Caller>) {
        let _ = self.inner.caller.set(caller);
    }

    pub fn downgrade(&self) -> WeakActions {
        WeakActions(Arc::downgrade(&self.inner))
    }

    /// The last crash of a service's instances.
    pub fn crash(&self, service: &str) -> Option<CrashReport> {
        self.inner.crashes.lock().get(service).cloned()
    }

    /// Refuses new calls with UNAVAILABLE, and returns when those that run have ended.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
        loop {
            let empty = self.inner.empty.notified();
            if self.inner.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            empty.await;
        }
    }

    /// Ends what still runs, with UNAVAILABLE.
    pub fn stop(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
        self.inner.stop.cancel();
    }
}

impl WeakActions {
    /// None once the node has stopped.
    pub fn upgrade(&self) -> Option<Actions> {
        self.0.upgrade().map(|inner| Actions { inner })
    }
}

impl Inner {
    /// A fresh seed for a guest's randomness (SplitMix64, Steele et al. 2014).
    fn seed(&self) -> u64 {
        let mut z = self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Counts something that a drain waits for.
    fn enter(self: &Arc<Self>) -> Guest {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        Guest(self.clone())
    }

    /// Counts a call in, if it may come in.
    fn admit(self: &Arc<Self>) -> Result<Guest, Status> {
        let guest = self.enter();
        let calls = self.in_flight.load(Ordering::SeqCst);
        if self.draining.load(Ordering::SeqCst) {
            return Err(stopping());
        }
        if calls > limits::ACTION_CALLS_MAX {
            return Err(Status::resource_exhausted(
                "the node has as many calls of actions in hand as it may; try again later",
            ));
        }
        Ok(guest)
    }
}

/// A call in hand, or an effect that was started.
struct Guest(Arc<Inner>);

impl Drop for Guest {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the node is stopping; a retry on another node, or later, is safe")
}
