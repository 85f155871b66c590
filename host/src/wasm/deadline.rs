//! Ends calls that take too long, and keeps them off the runtime's workers meanwhile.
//!
//! A call begins without a look at the clock: the epoch's first tick, at most one period later,
//! starts the measure. From the second tick on, the call is a *long turn*: it gives its tokio worker
//! away and goes on, on a thread that other tasks no longer wait for.
//!
//! Long turns together get about half of the processors: where there are more of them, each sleeps
//! between its ticks, so that endless loops leave room for everybody else until their deadline.
//!
//! A call on a fiber can leave its worker at every tick, and does. What it waits is not its own time,
//! so its time is counted in ticks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use wasmtime::{StoreContextMut, UpdateDeadline};

use crate::wasm::limits::Data;
use crate::words::{clock, limits};

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
    /// What the guest handed over is not what it should be.
    #[error("{0}")]
    Malformed(String),
}

/// Counts the long turns of an engine.
pub struct LongTurns {
    count: AtomicUsize,
    max: usize,
    /// How many may run at the same time without a pause.
    at_once: usize,
}

impl LongTurns {
    pub fn new(max: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { count: AtomicUsize::new(0), max, at_once: (processors / 2).max(1) }
    }

    /// How long each of them sleeps after a tick of work.
    fn pause(&self) -> Duration {
        let turns = self.count.load(Ordering::Relaxed);
        let waiting = turns.saturating_sub(self.at_once).div_ceil(self.at_once);
        let pause = limits::EPOCH_TICK * u32::try_from(waiting).unwrap_or(u32::MAX);
        pause.min(limits::LONG_TURN_PAUSE_MAX)
    }

    fn begin(self: &Arc<Self>) -> Result<LongTurn, Ended> {
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < self.max).then_some(count + 1)
            })
            .map(|_| LongTurn(self.clone()))
            .map_err(|_| Ended::TooManyLongTurns { limit: self.max })
    }

    /// One that needs no thread of its own, so any number of them may be.
    fn join(self: &Arc<Self>) -> LongTurn {
        self.count.fetch_add(1, Ordering::Relaxed);
        LongTurn(self.clone())
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
    on_fiber: bool,
}

impl Turn {
    pub fn new(deadline: Duration, long_turns: Arc<LongTurns>) -> Self {
        let deadline = deadline.min(limits::GUEST_DEADLINE_MAX);
        Self { deadline, first_tick: None, ticks: 0, long_turns, long_turn: None, on_fiber: false }
    }

    /// From now on, its calls run on fibers.
    pub fn run_on_fiber(&mut self) {
        self.on_fiber = true;
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
        let offer = if self.ticks <= 1 + limits::LONG_TURN_OFFERS {
            limits::LONG_TURN_OFFER * self.ticks
        } else {
            Duration::ZERO
        };
        let pause = self.long_turns.pause().max(offer);
        if !pause.is_zero() {
            offer_worker(pause);
        }
        Ok(())
    }
}

impl Turn {
    /// How long to leave the worker to others.
    fn tick_on_fiber(&mut self) -> Result<Duration, Ended> {
        self.ticks = self.ticks.saturating_add(1);
        if limits::EPOCH_TICK * self.ticks >= self.deadline {
            return Err(Ended::Deadline);
        }
        if self.ticks > 1 && self.long_turn.is_none() {
            self.long_turn = Some(self.long_turns.join());
        }
        Ok(self.long_turns.pause())
    }
}

/// The callback of every store's epoch deadline.
pub fn on_tick(mut store: StoreContextMut<'_, Data>) -> wasmtime::Result<UpdateDeadline> {
    let turn = &mut store.data_mut().turn;
    if turn.on_fiber {
        let pause = turn.tick_on_fiber().map_err(wasmtime::Error::new)?;
        return Ok(match pause.is_zero() {
            true => UpdateDeadline::Yield(1),
            false => UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(pause))),
        });
    }
    turn.tick().map_err(wasmtime::Error::new)?;
    Ok(UpdateDeadline::Continue(1))
}

/// Lets another thread take over the tokio worker that this thread is, if it is one. The runtime
/// starts that thread when this one announces that it blocks, and this one takes the worker back if
/// it is done first: so it sleeps for as long as a thread needs to wake up, or longer.
fn offer_worker(pause: Duration) {
    let on_worker = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if on_worker {
        tokio::task::block_in_place(|| std::thread::sleep(pause));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::wasm::fixtures::{Guest, command, engine, instance_limits};
    use crate::wasm::{Component, Failure, InstanceLimits};

    const FOREVER: &str = "(loop $forever (br $forever)) unreachable";
    const DEADLINE: Duration = Duration::from_millis(200);
    /// Long enough to tell a stall until the deadline from a busy machine.
    const LONG_DEADLINE: Duration = Duration::from_secs(1);
    /// One tick before the measure begins, one until its end is seen, and a busy machine.
    const LATE: Duration = Duration::from_millis(250);

    fn looper() -> Guest {
        Guest::new().with("handle", FOREVER)
    }

    fn run(component: &Component, deadline: Duration) -> Result<(), Failure> {
        let limits = InstanceLimits { deadline, ..instance_limits() };
        component.instantiate("t", "i", limits)?.handle(&command(b"")).map(drop)
    }

    fn assert_ends_in_time(component: &Component) {
        let start = clock::now();
        let failure = run(component, DEADLINE).expect_err("fails");
        let took = start.elapsed();
        assert_eq!(failure, Failure::Deadline { deadline: DEADLINE });
        assert!(took >= DEADLINE && took < DEADLINE + LATE, "{took:?}");
    }

    #[test]
    fn endless_commands_end_at_the_deadline() {
        assert_ends_in_time(&looper().load(&engine()));
    }

    #[test]
    fn endless_constructors_end_at_the_deadline() {
        assert_ends_in_time(&Guest::new().with("constructor", FOREVER).load(&engine()));
    }

    #[test]
    fn endless_start_functions_end_at_the_deadline() {
        let start = format!("(func $start {FOREVER}) (start $start)");
        assert_ends_in_time(&Guest::new().with_items(&start).load(&engine()));
    }

    #[test]
    fn endless_growth_ends_at_the_deadline() {
        let grow = "(loop $forever (drop (memory.grow (i32.const 0))) (br $forever)) unreachable";
        assert_ends_in_time(&Guest::new().with("handle", grow).load(&engine()));
    }

    #[test]
    fn an_endless_describe_ends_after_a_second() {
        let component = Guest::new().with("describe", FOREVER).load(&engine());
        let failure = component.describe().expect_err("fails");
        assert_eq!(failure, Failure::Deadline { deadline: limits::GUEST_DEADLINE_DEFAULT });
    }

    #[test]
    fn a_call_after_a_long_idle_time_has_its_whole_deadline() {
        let counting = "(local.set $i (i32.const 30000000))
            (loop $next (br_if $next (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
            (i32.const 16)";
        let component = Guest::new().with("handle", counting).load(&engine());
        let limits = InstanceLimits { deadline: Duration::from_secs(20), ..instance_limits() };
        let mut instance = component.instantiate("t", "i", limits).expect("starts");
        // Ticks that pass between calls are not the call's.
        std::thread::sleep(limits::EPOCH_TICK * 3);
        instance.handle(&command(b"")).expect("has time").expect("accepts");
    }

    #[test]
    fn only_so_many_turns_may_be_long_at_once() {
        let long_turns = Arc::new(LongTurns::new(1));
        let mut first = Turn::new(DEADLINE, long_turns.clone());
        let mut second = Turn::new(DEADLINE, long_turns);
        for _ in 0..3 {
            first.tick().expect("may be long");
        }
        second.tick().expect("is not long yet");
        assert!(matches!(second.tick(), Err(Ended::TooManyLongTurns { limit: 1 })));
        first.end();
        second.begin();
        second.tick().expect("is not long yet");
        second.tick().expect("may be long now");
    }

    /// The longest time in which a task that only waits for a millisecond did not run.
    fn longest_gap_beside(loops: usize) -> Duration {
        let component = looper().load(&engine());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let ticker = tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                let mut last = clock::now();
                while !stopped.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    longest = longest.max(last.elapsed());
                    last = clock::now();
                }
                longest
            });
            let calls: Vec<_> = (0..loops)
                .map(|_| {
                    let component = component.clone();
                    tokio::spawn(async move { run(&component, LONG_DEADLINE) })
                })
                .collect();
            for call in calls {
                let failure = call.await.expect("no panic").expect_err("fails");
                assert_eq!(failure, Failure::Deadline { deadline: LONG_DEADLINE });
            }
            stop.store(true, Ordering::Relaxed);
            ticker.await.expect("no panic")
        })
    }

    /// Loops that kept their workers would stall everybody for a deadline after the other. Half of
    /// that leaves room for a busy machine.
    fn assert_others_go_on_beside(loops: usize) {
        let stalled = LONG_DEADLINE * (loops / 2) as u32;
        let gap = longest_gap_beside(loops);
        assert!(gap < stalled / 2, "{gap:?} beside {loops} loops");
    }

    #[test]
    fn endless_loops_on_every_worker_do_not_stall_other_tasks() {
        assert_others_go_on_beside(4);
    }

    #[test]
    fn many_more_endless_loops_than_workers_do_not_stall_other_tasks() {
        assert_others_go_on_beside(48);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_only_waits() {
        let engine = engine();
        let module = looper().component();
        let digest = crate::words::Digest::of(&module);
        let component = engine.load(digest, module.into()).await.expect("loads");
        assert_ends_in_time(&component);
    }
}
