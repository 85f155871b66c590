//! The outbox: effects on their way to other functions.
//!
//! The truth is in the store, where an effect lies from the transaction of its command until it is delivered.
//! What is here is what waits to be delivered next, up to a bound over the whole node: effects of this
//! process's own commands come directly, those of before are read when a shard comes, and those that had no
//! room are read when there is some.
//!
//! The effects of an entity begin in their order, those of a command after those of the commands before it; a
//! synchronous one holds up those after it. Those for the same target go one after the other, those for
//! different targets side by side. One that failed waits for its next try apart, and holds nobody up. A command
//! that other functions wait for, and that waits itself, is outside this order; and of effects that were read from
//! the store nobody waits for any.

mod deliver;
mod done;
mod load;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::entity::EntitiesConfig;
use crate::entity::house::House;
use crate::entity::outbox::load::Loading;
use crate::journal::{Commit, EffectId, Fence, NewEffect, OutboxRow, StoredCall};
use crate::kind::call::KEY;
use crate::words::clock::Instant;
use crate::words::telemetry::Metrics;
use crate::words::{Address, Epoch, Shard, Status, limits};

pub(super) struct Outbox {
    state: Mutex<State>,
    done: Mutex<Vec<Delivered>>,
    /// There is something to load, to try again, or to take out of the store.
    work: Arc<Work>,
    at_once: Semaphore,
    services: Mutex<HashMap<String, Arc<Semaphore>>>,
    stopped: AtomicBool,
    tries_max: u32,
    /// Effects in memory.
    most: usize,
    metrics: Metrics,
}

#[derive(Default)]
struct Work {
    load: Notify,
    retry: Notify,
    done: Notify,
}

#[derive(Default)]
struct State {
    /// The shards that are held, as far as is known here.
    shards: HashMap<Shard, Taken>,
    sources: HashMap<Address, Source>,
    /// Every effect in memory, and those whose leaving the store is on its way.
    known: HashSet<EffectId>,
    /// Effects that left while a page of the store was being read, which may still show them.
    left: Option<HashSet<EffectId>>,
    bytes: usize,
    retries: BinaryHeap<Reverse<Retry>>,
}

struct Taken {
    epoch: Epoch,
    /// None: what the store has of this shard is in memory, too.
    loading: Option<Loading>,
}

/// An entity with effects that wait.
#[derive(Default)]
struct Source {
    bundles: VecDeque<Bundle>,
    /// A task works through the bundles.
    starting: bool,
    /// By target; each with a task that works through it.
    lanes: HashMap<String, VecDeque<Waiting>>,
}

/// The effects of one command.
struct Bundle {
    source: Address,
    /// None if they come from the store.
    commit: Option<Commit>,
    effects: Vec<Waiting>,
}

/// An effect in memory.
struct Waiting {
    source: Address,
    fence: Fence,
    id: EffectId,
    call: StoredCall,
    /// Tries that failed.
    tries: u32,
    /// Nobody has tried it before.
    is_new: bool,
    /// What came of it, while a workflow could not be told.
    result: Option<Result<Bytes, Status>>,
    /// A command that waits for the first try. Dropped untried, the command goes on.
    waited_for: Option<oneshot::Sender<()>>,
}

struct Retry {
    at: Instant,
    effect: Waiting,
}

struct Delivered {
    fence: Fence,
    id: EffectId,
    bytes: usize,
}

impl Ord for Retry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.effect.id).cmp(&(other.at, other.effect.id))
    }
}

impl PartialOrd for Retry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Retry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Retry {}

impl Outbox {
    pub(super) fn new(config: &EntitiesConfig, metrics: Metrics) -> Self {
        Self {
            state: Mutex::default(),
            done: Mutex::default(),
            work: Arc::default(),
            at_once: Semaphore::new(limits::EFFECTS_AT_ONCE_MAX),
            services: Mutex::default(),
            stopped: AtomicBool::new(false),
            tries_max: config.effect_tries_max.max(1),
            most: config.effects_in_memory_max.max(1),
            metrics,
        }
    }

    /// Nothing is delivered any more; commands that wait for effects go on.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let mut state = self.state.lock();
        let dropped = std::mem::take(&mut *state);
        drop(state);
        drop(dropped);
        self.metrics.outbox_effects.set(0);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// How many effects are in memory.
    pub(super) fn len(&self) -> usize {
        self.state.lock().known.len()
    }

    fn forget(&self, ids: impl IntoIterator<Item = (EffectId, usize)>) {
        let mut state = self.state.lock();
        for (id, bytes) in ids {
            if state.known.remove(&id) {
                state.bytes = state.bytes.saturating_sub(bytes);
            }
            if let Some(left) = &mut state.left {
                left.insert(id);
            }
        }
        self.metrics.outbox_effects.set(state.known.len() as i64);
    }

    /// An effect stays in the store, to be read again when its shard is served again.
    fn let_go(&self, effect: Waiting) {
        let held = self.state.lock().forget_shard(effect.fence.shard);
        let held = held.into_iter().flat_map(|bundle| bundle.effects);
        let gone: Vec<_> =
            held.chain([effect]).map(|effect| (effect.id, effect.call.size())).collect();
        self.forget(gone);
    }
}

impl State {
    fn has_room(&self, most: usize) -> bool {
        self.known.len() < most && self.bytes < limits::EFFECT_BYTES_IN_MEMORY_MAX
    }

    /// Has a shard read again, if it is still served. Returns what is in memory of it and not begun.
    fn forget_shard(&mut self, shard: Shard) -> Vec<Bundle> {
        let loading = self.shards.remove(&shard).and_then(|taken| taken.loading);
        loading.map(Loading::into_held).unwrap_or_default()
    }

    fn remember(&mut self, effect: &Waiting) -> bool {
        let is_new = self.known.insert(effect.id);
        if is_new {
            self.bytes += effect.call.size();
        }
        is_new
    }
}

/// The metadata of a call as it is stored: with the key that its source has chosen.
pub(super) fn with_key(
    mut metadata: Vec<(String, String)>,
    key: Option<String>,
) -> Vec<(String, String)> {
    metadata.extend(key.map(|key| (KEY.to_owned(), key)));
    metadata
}

/// As much of a text as is kept.
pub(super) fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(limits::EFFECT_ERROR_BYTES_MAX)].to_owned()
}

/// Starts the tasks that load effects, try them again, and take delivered ones out of the store.
pub(super) fn start(house: &Arc<House>) {
    let work = &house.outbox.work;
    tokio::spawn(load::run(Arc::downgrade(house), work.clone()));
    tokio::spawn(deliver::try_again(Arc::downgrade(house), work.clone()));
    tokio::spawn(done::run(Arc::downgrade(house), work.clone()));
}

/// Takes over the effects of a command whose write is on its way. For each synchronous one there is something
/// to wait for.
pub(super) fn take(
    house: &Arc<House>,
    fence: Fence,
    source: Address,
    effects: Vec<(NewEffect, bool)>,
    commit: Commit,
) -> Vec<oneshot::Receiver<()>> {
    let outbox = &house.outbox;
    let mut awaited = Vec::new();
    let effects: Vec<_> = effects
        .into_iter()
        .map(|(NewEffect { id, call }, synchronous)| {
            let waited_for = synchronous.then(|| {
                let (sender, receiver) = oneshot::channel();
                awaited.push(receiver);
                sender
            });
            let (source, tries) = (source.clone(), 0);
            Waiting { source, fence, id, call, tries, is_new: true, result: None, waited_for }
        })
        .collect();
    if outbox.is_stopped() {
        return awaited;
    }
    let mut state = outbox.state.lock();
    let has_room = state.has_room(outbox.most);
    let taken = state.shards.entry(fence.shard).or_insert_with(|| Taken::new(fence.epoch));
    // Whoever has commands waiting is bounded by the commands in hand.
    if !has_room && awaited.is_empty() {
        let first = effects.first().map(|effect| effect.id).unwrap_or_default();
        taken.loading.get_or_insert_default().skip(first, commit);
        drop(state);
        outbox.work.load.notify_one();
        return awaited;
    }
    let bundle = Bundle { source, commit: Some(commit), effects };
    for effect in &bundle.effects {
        state.remember(effect);
    }
    outbox.metrics.outbox_effects.set(state.known.len() as i64);
    match state.shards.get_mut(&fence.shard).and_then(|taken| taken.loading.as_mut()) {
        // What is older comes first.
        Some(loading) => {
            loading.hold(bundle);
            drop(state);
            outbox.work.load.notify_one();
        }
        None => deliver::enqueue(house, &mut state, bundle),
    }
    awaited
}

impl Taken {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, loading: Some(Loading::default()) }
    }
}

impl Bundle {
    fn of(row: OutboxRow, fence: Fence) -> Self {
        let effect = Waiting::of(row, fence);
        Self { source: effect.source.clone(), commit: None, effects: vec![effect] }
    }
}

impl Waiting {
    fn of(row: OutboxRow, fence: Fence) -> Self {
        let OutboxRow { source, id, call, tries, .. } = row;
        Self { source, fence, id, call, tries, is_new: false, result: None, waited_for: None }
    }
}

/// A dead letter that an operator wants delivered after all.
pub(super) struct Waken {
    pub(super) row: OutboxRow,
    pub(super) fence: Fence,
}

pub(super) fn waken(house: &Arc<House>, Waken { row, fence }: Waken) {
    let mut state = house.outbox.state.lock();
    let bundle = Bundle::of(row, fence);
    let mut is_new = true;
    for effect in &bundle.effects {
        is_new &= state.remember(effect);
    }
    if is_new && !house.outbox.is_stopped() {
        deliver::enqueue(house, &mut state, bundle);
    }
}
