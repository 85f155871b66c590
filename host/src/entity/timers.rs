//! Timers: commands that the host sends to an entity when they are due.
//!
//! The truth is in the store. Those that are due within the next minute are kept here, up to a bound, in a
//! heap that one indexed scan fills now and then; a timer that is set here goes into it directly. When its
//! time has come, an entry becomes a job in the mailbox of its entity, and its turn reads the row again:
//! only a timer that still is as the entry says fires. Entries of timers that were set anew, cancelled or
//! moved to another node are found out in this way and cost a read each.

mod fire;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::entity::Origin;
use crate::entity::house::House;
use crate::journal::{DueTimer, StoreError, Timer, TimerChange};
use crate::kind;
use crate::words::clock::{self, Instant};
use crate::words::telemetry::Metrics;
use crate::words::{Address, Epoch, Shard, limits};

pub(super) use fire::command;

pub(super) struct Timers {
    state: Mutex<State>,
    /// Something is due earlier than was known.
    earlier: Arc<Notify>,
    running: Arc<Semaphore>,
    most: usize,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    heap: BinaryHeap<Reverse<Entry>>,
    known: HashSet<([u8; 16], u64)>,
    /// Some timers that are due soon had no room.
    overflowed: bool,
}

#[derive(PartialEq, Eq)]
struct Entry {
    /// When to look at it, milliseconds since 1970; later than due if that failed before.
    at_ms: u64,
    failures: u32,
    timer: DueTimer,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, &self.timer.token).cmp(&(other.at_ms, &other.timer.token))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Timers {
    pub(super) fn new(most: usize, metrics: Metrics) -> Self {
        Self {
            state: Mutex::default(),
            earlier: Arc::default(),
            running: Arc::new(Semaphore::new(limits::TIMERS_AT_ONCE_MAX)),
            most: most.max(1),
            metrics,
        }
    }

    /// Hears of timers that are being stored.
    pub(super) fn note(
        &self,
        shard: Shard,
        address: &Address,
        changes: &[TimerChange],
        now_ms: u64,
    ) {
        let soon = now_ms + limits::TIMERS_AHEAD.as_millis() as u64;
        for change in changes {
            let Some(timer) = change.set.as_ref().filter(|timer| timer.due_ms <= soon) else {
                continue;
            };
            let timer = DueTimer {
                shard,
                address: address.clone(),
                name: change.name.clone(),
                due_ms: timer.due_ms,
                token: timer.token,
            };
            self.push(Entry { at_ms: timer.due_ms, failures: 0, timer });
        }
    }

    fn push(&self, entry: Entry) {
        let mut state = self.state.lock();
        if state.heap.len() >= self.most {
            state.overflowed = true;
            return;
        }
        if !state.known.insert((entry.timer.token, entry.timer.due_ms)) {
            return;
        }
        let is_first = state.heap.peek().is_none_or(|Reverse(first)| entry.at_ms < first.at_ms);
        state.heap.push(Reverse(entry));
        self.metrics.timers_pending.set(state.heap.len() as i64);
        drop(state);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// How many are in memory.
    pub(super) fn len(&self) -> usize {
        self.state.lock().heap.len()
    }

    fn pop_due(&self, now_ms: u64) -> Option<Entry> {
        let mut state = self.state.lock();
        if state.heap.peek()?.0.at_ms > now_ms {
            return None;
        }
        let Reverse(entry) = state.heap.pop()?;
        state.known.remove(&(entry.timer.token, entry.timer.due_ms));
        self.metrics.timers_pending.set(state.heap.len() as i64);
        Some(entry)
    }

    /// How long there is nothing to do, at most `most`.
    fn idle(&self, now_ms: u64, most: Duration) -> Duration {
        let state = self.state.lock();
        let first = state.heap.peek().map(|Reverse(entry)| entry.at_ms.saturating_sub(now_ms));
        first.map_or(most, |ms| Duration::from_millis(ms).min(most))
    }

    /// Whether there is room again for timers that had none.
    fn has_room_again(&self) -> bool {
        let state = self.state.lock();
        state.overflowed && state.heap.len() < self.most.div_ceil(2)
    }
}

/// What a turn stores of timers: what its handler asks for, and what becomes of the timer that fired, unless
/// the handler has changed that one itself.
pub(super) fn changes(
    house: &House,
    origin: &Origin,
    asked: Vec<kind::TimerChange>,
    now_ms: u64,
) -> Vec<TimerChange> {
    let token = || {
        let mut token = [0; 16];
        token[..8].copy_from_slice(&house.seed().to_be_bytes());
        token[8..].copy_from_slice(&house.seed().to_be_bytes());
        token
    };
    let set = |set: kind::Set| Timer {
        due_ms: set.due_ms,
        every_ms: set.every_ms,
        method: set.method,
        payload: set.payload,
        token: token(),
    };
    let mut changes: Vec<_> = asked
        .into_iter()
        .map(|change| TimerChange { name: change.name, set: change.set.map(set) })
        .collect();
    if let Origin::Timer(row) = origin
        && changes.iter().all(|change| change.name != row.name)
    {
        let again = row.timer.every_ms.map(|every| Timer {
            due_ms: kind::timer::again(row.timer.due_ms, every, now_ms),
            // Whoever still has to do with the one that fired does not take this one for it.
            token: token(),
            ..row.timer.clone()
        });
        changes.push(TimerChange { name: row.name.clone(), set: again });
    }
    changes
}

/// Starts the task that fires what is due.
pub(super) fn start(house: &Arc<House>) {
    tokio::spawn(run(Arc::downgrade(house), house.timers.earlier.clone()));
}

async fn run(house: Weak<House>, earlier: Arc<Notify>) {
    let mut scans = Scans::default();
    let mut idle = Duration::ZERO;
    loop {
        let _ = tokio::time::timeout(idle, earlier.notified()).await;
        let Some(house) = house.upgrade() else { return };
        if house.is_draining() {
            return;
        }
        scans.look(&house).await;
        while let Some(entry) = house.timers.pop_due(clock::unix_ms()) {
            let Ok(permit) = house.timers.running.clone().acquire_owned().await else { return };
            let house = house.clone();
            tokio::spawn(async move {
                fire::fire(&house, entry).await;
                drop(permit);
            });
        }
        idle = house.timers.idle(clock::unix_ms(), limits::SHARDS_LOOKED_AT_EVERY);
    }
}

/// When the store was read, and of which shards.
#[derive(Default)]
struct Scans {
    held: HashMap<Shard, Epoch>,
    look_at: Option<Instant>,
    scan_at: Option<Instant>,
    /// A store that cannot be read is told of once.
    is_told: bool,
}

impl Scans {
    /// Reads what is due soon: of all shards now and then, of those that have just come at once.
    async fn look(&mut self, house: &House) {
        let now = clock::now();
        if self.look_at.is_some_and(|at| now < at) {
            return;
        }
        self.look_at = Some(now + limits::SHARDS_LOOKED_AT_EVERY);
        let held: HashMap<Shard, Epoch> = house.holdings.held().into_iter().collect();
        let all = self.scan_at.is_none_or(|at| now >= at) || house.timers.has_room_again();
        let is_due =
            |(shard, epoch): &(&Shard, &Epoch)| all || self.held.get(shard) != Some(*epoch);
        let shards: Vec<Shard> = held.iter().filter(is_due).map(|(shard, _)| *shard).collect();
        if all {
            self.scan_at = Some(now + limits::TIMERS_SCAN_EVERY);
        }
        if shards.is_empty() {
            self.held = held;
            return;
        }
        match house.timers.scan(house, &shards).await {
            Ok(()) => {
                self.held = held;
                self.is_told = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    tracing::warn!(%error, "cannot read which timers are due; trying again");
                }
                self.look_at = Some(now + limits::OUTBOX_RETRY_AFTER);
                self.scan_at = None;
            }
        }
    }
}

impl Timers {
    async fn scan(&self, house: &House, shards: &[Shard]) -> Result<(), StoreError> {
        self.state.lock().overflowed = false;
        let until = clock::unix_ms() + limits::TIMERS_AHEAD.as_millis() as u64;
        let timers = house.journal.timers(shards, until, self.most).await?;
        let overflowed = timers.len() >= self.most;
        for timer in timers {
            self.push(Entry { at_ms: timer.due_ms, failures: 0, timer });
        }
        self.state.lock().overflowed |= overflowed;
        Ok(())
    }
}
