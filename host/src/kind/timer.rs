//! Timers: when they are due, and when again.

use bytes::Bytes;

use crate::kind::{Before, Violation};
use crate::wasm::{self, Due};
use crate::words::limits;

/// A change to one of an entity's timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerChange {
    pub name: String,
    /// None cancels it.
    pub set: Option<Set>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Milliseconds since 1970.
    pub due_ms: u64,
    pub every_ms: Option<u64>,
    pub method: String,
    pub payload: Bytes,
}

/// The last change of each name counts.
pub(super) fn changes(
    changes: Vec<wasm::TimerChange>,
    before: &Before<'_>,
) -> Result<Vec<TimerChange>, Violation> {
    let mut judged: Vec<TimerChange> = Vec::with_capacity(changes.len());
    for wasm::TimerChange { name, timer } in changes {
        let set = timer.map(|timer| set(timer, before)).transpose()?;
        judged.push(TimerChange { name, set });
    }
    let mut seen = std::collections::HashSet::new();
    let mut last: Vec<_> =
        judged.into_iter().rev().filter(|change| seen.insert(change.name.clone())).collect();
    last.reverse();
    Ok(last)
}

fn set(timer: wasm::Timer, before: &Before<'_>) -> Result<Set, Violation> {
    let wasm::Timer { due, every_ms, method, payload } = timer;
    if !(before.has_method)(&method) {
        return Err(Violation::TimerMethod { method });
    }
    let due_ms = match due {
        Due::AfterMs(ms) => before.now_ms.saturating_add(ms),
        Due::AtMs(ms) => ms,
    };
    Ok(Set {
        due_ms: due_ms.min(limits::TIMER_DUE_MS_MAX),
        every_ms: every_ms.map(|every| every.min(limits::TIMER_DUE_MS_MAX)),
        method,
        payload,
    })
}

/// When a repeating timer is due again: the first of its times that is still to come.
pub fn again(due_ms: u64, every_ms: u64, now_ms: u64) -> u64 {
    let every_ms = every_ms.max(1);
    let passed = now_ms.saturating_sub(due_ms) / every_ms + 1;
    due_ms.saturating_add(every_ms.saturating_mul(passed)).min(limits::TIMER_DUE_MS_MAX)
}
