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
    done: Mutex<Vec<Past>>,
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
    /// Every effect in memory, and those whose leaving the store is on its way, with the epoch under which they
    /// came. What is left of an earlier epoch keeps nobody from taking an effect over from the store.
    known: HashMap<EffectId, Epoch>,
    /// Effects that left while a page of the store was being read, which may still show them.
    left: Option<HashSet<(EffectId, Epoch)>>,
    bytes: usize,
    retries: BinaryHeap<Reverse<Retry>>,
}

struct Taken {
    epoch: Epoch,
    /// None: what the store has of this shard is in memory, too.
    loading: Option<Loading>,
    /// The first effect that was let go: it is in the store alone.
    let_go: Option<EffectId>,
    /// The shard is about to leave: nothing is begun.
    is_resting: bool,
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

/// An effect that memory has no more, or needs no more.
struct Past {
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

    /// The store does not have them any more, or never had them.
    fn forget(&self, gone: impl IntoIterator<Item = Past>) {
        let mut state = self.state.lock();
        for past in gone {
            state.remove(&past);
            if let Some(left) = &mut state.left {
                left.insert((past.id, past.fence.epoch));
            }
        }
        self.metrics.outbox_effects.set(state.known.len() as i64);
    }

    /// They stay in the store, to be read again if their shards are still served.
    fn let_go(&self, gone: impl IntoIterator<Item = Past>) {
        let mut state = self.state.lock();
        for past in gone {
            state.remove(&past);
            if let Some(taken) = state.shards.get_mut(&past.fence.shard)
                && taken.epoch == past.fence.epoch
            {
                let first = taken.let_go.map_or(past.id, |earlier| earlier.min(past.id));
                taken.let_go = Some(first);
            }
        }
        self.metrics.outbox_effects.set(state.known.len() as i64);
    }
}

impl State {
    fn has_room(&self, most: usize) -> bool {
        self.known.len() < most && self.bytes < limits::EFFECT_BYTES_IN_MEMORY_MAX
    }

    fn remove(&mut self, past: &Past) {
        if self.known.get(&past.id) == Some(&past.fence.epoch) {
            self.known.remove(&past.id);
            self.bytes = self.bytes.saturating_sub(past.bytes);
        }
    }

    /// What is known of a shard under this epoch; none if a later one has begun.
    fn taken(&mut self, fence: Fence) -> Option<&mut Taken> {
        let known = self.shards.get(&fence.shard).map(|taken| taken.epoch);
        if known.is_none_or(|epoch| epoch < fence.epoch) {
            self.leave(fence.shard);
            self.shards.insert(fence.shard, Taken::new(fence.epoch));
        }
        self.shards.get_mut(&fence.shard).filter(|taken| taken.epoch == fence.epoch)
    }

    /// An epoch is over. What it stored, whoever has the next one finds in the store.
    fn leave(&mut self, shard: Shard) {
        let loading = self.shards.remove(&shard).and_then(|taken| taken.loading);
        let held = loading.map(Loading::into_held).unwrap_or_default();
        for effect in held.iter().flat_map(|bundle| &bundle.effects) {
            self.remove(&effect.past());
        }
    }

    /// False if it is in memory already.
    fn remember(&mut self, effect: &Waiting) -> bool {
        let known = self.known.insert(effect.id, effect.fence.epoch);
        if known.is_none() {
            self.bytes += effect.call.size();
        }
        known != Some(effect.fence.epoch)
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
    let Some(taken) = state.taken(fence) else { return awaited };
    let skips = taken.loading.as_ref().is_some_and(Loading::has_skipped);
    // Whoever has commands waiting is bounded by the commands in hand.
    if taken.is_resting || (!has_room || skips) && awaited.is_empty() {
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
        Self { epoch, loading: Some(Loading::default()), let_go: None, is_resting: false }
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

    fn past(&self) -> Past {
        Past { fence: self.fence, id: self.id, bytes: self.call.size() }
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
