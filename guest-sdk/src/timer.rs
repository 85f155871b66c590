//! Setting a timer, step by step.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::call::{Call, Due, Timer, TimerChange, whole_ms};

/// A timer about to be set: `ctx.timer("remind").after(day).command(..)`. Without
/// [`command`](Self::command) nothing is set.
#[must_use = "a timer is set by `command`"]
pub struct TimerSetting<'a> {
    service: &'static str,
    changes: &'a mut Vec<TimerChange>,
    name: String,
    due: Option<Due>,
    every_ms: Option<u64>,
}

impl<'a> TimerSetting<'a> {
    pub(crate) fn new(
        service: &'static str,
        changes: &'a mut Vec<TimerChange>,
        name: String,
    ) -> Self {
        Self { service, changes, name, due: None, every_ms: None }
    }

    /// Fires so long after this command.
    pub fn after(mut self, delay: Duration) -> Self {
        self.due = Some(Due::AfterMs(whole_ms(delay)));
        self
    }

    /// Fires at this time, or at once if it has passed.
    pub fn at(mut self, time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.due = Some(Due::AtMs(whole_ms(since_epoch)));
        self
    }

    /// Fires again and again, at least 100 ms apart, until it is cancelled; for the first time after
    /// one such period, unless `after` or `at` says otherwise.
    pub fn every(mut self, period: Duration) -> Self {
        self.every_ms = Some(whole_ms(period));
        self
    }

    /// Sets the timer, in place of one with the same name. `call` is of a unary method of the entity's
    /// own service; the entity gets it as a command with the timer's name in the metadata
    /// `stead-timer`, and the reply is dropped. Metadata of `call` is not kept.
    ///
    /// # Panics
    ///
    /// If it is a call of another service: an entity wakes itself, and may call others then.
    pub fn command<R>(self, call: Call<R>) {
        let call = call.into_request();
        assert!(
            self.service.is_empty() || self.service == call.service,
            "the timer {:?} of a {} cannot carry a command for {}",
            self.name,
            self.service,
            call.service
        );
        let due = self.due.unwrap_or(Due::AfterMs(self.every_ms.unwrap_or(0)));
        let timer =
            Timer { due, every_ms: self.every_ms, method: call.method, payload: call.payload };
        self.changes.push(TimerChange { name: self.name, timer: Some(timer) });
    }
}
