//! Ends calls that take too long, and keeps them off the runtime's workers meanwhile.
//!
//! A call begins without a look at the clock: the epoch's first tick, at most one period later,
//! starts the measure. From the second tick on, the call is a *long turn*: it gives its tokio worker
//! away and goes on, on a thread that other tasks no longer wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use wasmtime::{StoreContextMut, UpdateDeadline};

use crate::wasm::limits::Data;
use crate::words::{clock, limits};

/// How often a long turn offers its worker to another thread. Nothing tells whether a thread took it
/// while it was on offer; on a busy machine the first offers may pass unseen.
const OFFERS: u32 = 6;

/// Why the host ended a call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Ended {
    #[error("the call took too long")]
    Deadline,
    #[error("{limit} calls already take long")]
    TooManyLongTurns { limit: usize },
    /// Something that no function may do.
    #[error("{0}")]
    Forbidden(&'static str),
}

/// Counts the long turns of an engine.
pub struct LongTurns {
    count: AtomicUsize,
    max: usize,
}

impl LongTurns {
    pub fn new(max: usize) -> Self {
        Self { count: AtomicUsize::new(0), max }
    }

    fn begin(self: &Arc<Self>) -> Result<LongTurn, Ended> {
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.max).then_some(count + 1)
            })
            .map(|_| LongTurn(self.clone()))
            .map_err(|_| Ended::TooManyLongTurns { limit: self.max })
    }
}

/// One of the long turns; it ends when this is dropped.
struct LongTurn(Arc<LongTurns>);

impl Drop for LongTurn {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The call that runs in a store.
pub struct Turn {
    pub deadline: Duration,
    first_tick: Option<clock::Instant>,
    ticks: u32,
    long_turns: Arc<LongTurns>,
    long_turn: Option<LongTurn>,
}

impl Turn {
    pub fn new(deadline: Duration, long_turns: Arc<LongTurns>) -> Self {
        let deadline = deadline.min(limits::GUEST_DEADLINE_MAX);
        Self { deadline, first_tick: None, ticks: 0, long_turns, long_turn: None }
    }

    pub fn begin(&mut self) {
        self.first_tick = None;
        self.ticks = 0;
    }

    pub fn end(&mut self) {
        self.long_turn = None;
    }

    fn tick(&mut self) -> Result<(), Ended> {
        self.ticks = self.ticks.saturating_add(1);
        let Some(first_tick) = self.first_tick else {
            self.first_tick = Some(clock::now());
            return Ok(());
        };
        if clock::now().saturating_duration_since(first_tick) >= self.deadline {
            return Err(Ended::Deadline);
        }
        if self.long_turn.is_none() {
            self.long_turn = Some(self.long_turns.begin()?);
        }
        if self.ticks <= 1 + OFFERS {
            offer_worker(self.ticks);
        }
        Ok(())
    }
}

/// The callback of every store's epoch deadline.
pub fn on_tick(mut store: StoreContextMut<'_, Data>) -> wasmtime::Result<UpdateDeadline> {
    store.data_mut().turn.tick().map_err(wasmtime::Error::new)?;
    Ok(UpdateDeadline::Continue(1))
}

/// Lets another thread take over the tokio worker that this thread is, if it is one. The runtime
/// starts that thread when this one announces that it blocks, and this one takes the worker back if
/// it is done first: so it sleeps for as long as a thread needs to wake up.
fn offer_worker(attempt: u32) {
    let on_worker = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if on_worker {
        let patience = Duration::from_micros(250) * attempt;
        tokio::task::block_in_place(|| std::thread::sleep(patience));
    }
}
