//! One timer that is due.

use std::sync::Arc;

use bytes::Bytes;

use crate::entity::actor::{Answer, Running, Said};
use crate::entity::house::House;
use crate::entity::outbox::clip;
use crate::entity::timers::Entry;
use crate::entity::{CallError, Consistency, Origin, Request};
use crate::journal::{Chore, DueTimer, Fence, Task, TimerRow};
use crate::words::telemetry::ResultLabels;
use crate::words::{Status, Trail, clock, limits};

/// The name of the timer, for the handler.
const TIMER: &str = "stead-timer";

pub(super) async fn fire(house: &Arc<House>, entry: Entry) {
    let Entry { failures, timer, .. } = entry;
    let Some(epoch) = house.holdings.epoch(timer.shard) else { return };
    let fence = Fence { shard: timer.shard, epoch };
    let deadline = clock::now() + limits::TIMER_DEADLINE;
    match house.fire(&timer, deadline).await {
        Ok(()) => {}
        // Whoever has the shard now, or has it again, finds the timer in the store.
        Err(CallError::NotHere) => {
            if house.serves(fence) {
                again(house, timer, failures + 1);
            }
        }
        Err(CallError::Status(status)) => failed(house, fence, timer, failures, &status).await,
    }
}

/// The entry comes up again, without a word to the store.
fn again(house: &House, timer: DueTimer, failures: u32) {
    let at_ms = clock::unix_ms() + backoff_ms(failures);
    house.timers.push(Entry { at_ms, failures, timer });
}

/// The row says that it failed, and is due later.
async fn failed(house: &House, fence: Fence, timer: DueTimer, failures: u32, status: &Status) {
    count(house, "failed");
    let row = match house.journal.timer(&timer.address, &timer.name).await {
        Ok(Some(row)) if is_as_known(&row, &timer) => row,
        Ok(_) => return,
        Err(_) => return again(house, timer, failures + 1),
    };
    let tries = row.tries + 1;
    tracing::warn!(
        address = %timer.address, timer = timer.name, method = row.timer.method, tries, %status,
        "a timer failed; it fires again later"
    );
    let due_ms = clock::unix_ms() + backoff_ms(tries);
    let DueTimer { shard, address, name, token, .. } = timer.clone();
    let error = clip(&status.to_string());
    let task = Task::TimerLater { address, name, token, due_ms, tries, error };
    match house.journal.chore(Chore { fence, task }).wait().await {
        Ok(()) => {
            let later = DueTimer { shard, due_ms, ..timer };
            house.timers.push(Entry { at_ms: due_ms, failures: 0, timer: later });
        }
        Err(_) if house.serves(fence) => again(house, timer, failures + 1),
        Err(_) => {}
    }
}

/// Doubling, with a cap.
fn backoff_ms(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(20);
    (limits::TIMER_BACKOFF_MIN * (1 << doublings)).min(limits::TIMER_BACKOFF_MAX).as_millis() as u64
}

fn is_as_known(row: &TimerRow, due: &DueTimer) -> bool {
    row.timer.token == due.token && row.timer.due_ms == due.due_ms
}

fn count(house: &House, result: &'static str) {
    house.metrics.timers.get_or_create(&ResultLabels { result }).inc();
}

/// The command of a timer, read within its turn. An `Err` is what the turn says instead: nothing, if there is
/// no such timer any more.
pub(in crate::entity) async fn command(
    running: &mut Running,
    due: &DueTimer,
) -> Result<Request, Answer> {
    let house = running.house.clone();
    // A write that sets the timer may be on its way. If it fails, so does what this instance has seen.
    let write = running.hot.as_ref().and_then(|hot| hot.last_write.clone());
    if let Some(write) = write
        && write.wait().await.is_err()
    {
        return Err(unavailable("a write before it was not stored"));
    }
    let row = match house.journal.timer(&due.address, &due.name).await {
        Ok(Some(row)) if is_as_known(&row, due) => row,
        Ok(_) => return Err(Answer::of(Ok(Said::Reply(Bytes::new())), None)),
        Err(error) => {
            tracing::error!(address = %due.address, %error, "cannot read a timer");
            return Err(unavailable("the journal cannot be read"));
        }
    };
    let Some(hot) = &running.hot else { return Err(unavailable("the entity has no instance")) };
    let Some(method) = hot.service.methods.get(row.timer.method.as_str()) else {
        let path = format!("{}/{}", hot.service.name, row.timer.method);
        return Err(Status::unimplemented(format!("{path} is not deployed")).into());
    };
    let late_ms = clock::unix_ms().saturating_sub(due.due_ms);
    house.metrics.timer_late_seconds.observe(late_ms as f64 / 1_000.0);
    count(&house, "fired");
    Ok(Request {
        service: hot.service.clone(),
        method: method.clone(),
        payload: row.timer.payload.clone(),
        metadata: vec![(TIMER.to_owned(), row.name.clone())],
        idempotency_key: None,
        deadline: clock::now() + limits::TIMER_DEADLINE,
        request_id: format!("timer-{:016x}", house.seed()).into(),
        consistency: Consistency::default(),
        trail: Trail::default(),
        origin: Origin::Timer(Arc::new(row)),
        fresh: None,
    })
}

fn unavailable(why: &str) -> Answer {
    Status::unavailable(format!("{why}; the timer fires later")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_timers_wait_twice_as_long_each_time_up_to_an_hour() {
        assert_eq!(backoff_ms(1), 200);
        assert_eq!(backoff_ms(3), 800);
        assert_eq!(backoff_ms(u32::MAX), 3_600_000);
    }
}
