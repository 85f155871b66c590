//! What a test says that a command asks the host for.

use std::time::Duration;

use crate::call::{Call, Due, Effect, Request, TimerChange, whole_ms};

/// Made by [`effect`] and [`effect_sync`].
pub struct ExpectedEffect(pub(super) Effect);

/// An effect that nobody waits for.
pub fn effect<R>(call: Call<R>) -> ExpectedEffect {
    ExpectedEffect(Effect { call: call.into_request(), synchronous: false })
}

/// An effect that the caller's answer waits for.
pub fn effect_sync<R>(call: Call<R>) -> ExpectedEffect {
    ExpectedEffect(Effect { call: call.into_request(), synchronous: true })
}

/// Made by [`timer`] and [`no_timer`].
#[derive(Debug, PartialEq)]
pub struct ExpectedTimer {
    name: String,
    set: Option<Set>,
}

#[derive(Debug, PartialEq)]
struct Set {
    due_ms: u64,
    every_ms: Option<u64>,
    method: String,
    payload: Vec<u8>,
}

/// A timer that is set, due at a time in milliseconds since 1970.
pub fn timer<R>(name: &str, due_ms: u64, call: Call<R>) -> ExpectedTimer {
    let Request { method, payload, .. } = call.into_request();
    let set = Set { due_ms, every_ms: None, method: method.into_owned(), payload };
    ExpectedTimer { name: name.into(), set: Some(set) }
}

/// A timer that is cancelled.
pub fn no_timer(name: &str) -> ExpectedTimer {
    ExpectedTimer { name: name.into(), set: None }
}

impl ExpectedTimer {
    /// And again each time this has passed.
    pub fn every(mut self, period: Duration) -> Self {
        if let Some(set) = &mut self.set {
            set.every_ms = Some(whole_ms(period));
        }
        self
    }

    pub(super) fn of(change: &TimerChange, now_ms: u64) -> Self {
        let set = change.timer.as_ref().map(|timer| Set {
            due_ms: match timer.due {
                Due::AfterMs(ms) => now_ms.saturating_add(ms),
                Due::AtMs(ms) => ms,
            },
            every_ms: timer.every_ms,
            method: timer.method.to_string(),
            payload: timer.payload.clone(),
        });
        Self { name: change.name.clone(), set }
    }
}
