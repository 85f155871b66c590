//! Supervision: what is remembered of crashes, and how long an entity that cannot be activated waits.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::wasm::Failure;
use crate::words::{Address, Sparing, clock, limits};

/// The last crash of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashReport {
    pub at_ms: u64,
    /// `trap`, `deadline`, `memory`, ..: the label of the failure.
    pub what: &'static str,
    /// `handle AddItem`, `replay`, ..
    pub during: String,
    pub reason: String,
    pub backtrace: String,
    /// Activations that failed since the last that did not; 0 for a crash of a turn.
    pub consecutive: u32,
    /// When the next activation will be tried, milliseconds since 1970, while it backs off.
    pub retry_at_ms: Option<u64>,
}

impl CrashReport {
    pub fn of(failure: &Failure, during: String) -> Self {
        let backtrace = match failure {
            Failure::Trap { backtrace, .. } => clip(backtrace),
            Failure::Deadline { .. }
            | Failure::Memory { .. }
            | Failure::Malformed { .. }
            | Failure::Refused { .. }
            | Failure::NoRoom { .. } => String::new(),
        };
        Self {
            at_ms: clock::unix_ms(),
            what: failure.label(),
            during,
            reason: clip(&failure.to_string()),
            backtrace,
            consecutive: 0,
            retry_at_ms: None,
        }
    }
}

fn clip(text: &str) -> String {
    let mut end = text.len().min(limits::CRASH_REPORT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// How long to wait after so many failed activations in a row: doubling, with a cap.
pub(super) fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (limits::ACTIVATION_BACKOFF_MIN * (1 << doublings)).min(limits::ACTIVATION_BACKOFF_MAX)
}

/// The newest crash of each entity, for the entities that crashed most recently.
#[derive(Default)]
pub(super) struct Crashes {
    kept: Mutex<Kept>,
    /// By service.
    pub(super) warnings: Sparing,
}

#[derive(Default)]
struct Kept {
    reports: HashMap<Address, CrashReport>,
    oldest_first: VecDeque<Address>,
}

impl Crashes {
    pub(super) fn record(&self, address: &Address, report: CrashReport) {
        let mut kept = self.kept.lock();
        if kept.reports.insert(address.clone(), report).is_some() {
            kept.oldest_first.retain(|other| other != address);
        }
        kept.oldest_first.push_back(address.clone());
        if kept.oldest_first.len() > limits::CRASH_REPORTS_MAX
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            kept.reports.remove(&oldest);
        }
    }

    pub(super) fn get(&self, address: &Address) -> Option<CrashReport> {
        self.kept.lock().reports.get(address).cloned()
    }

    /// The entity could be activated: it does not back off any more.
    pub(super) fn recovered(&self, address: &Address) {
        if let Some(report) = self.kept.lock().reports.get_mut(address) {
            report.consecutive = 0;
            report.retry_at_ms = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_cap() {
        assert_eq!(backoff(1), Duration::from_millis(100));
        assert_eq!(backoff(2), Duration::from_millis(200));
        assert_eq!(backoff(9), Duration::from_millis(25_600));
        assert_eq!(backoff(10), limits::ACTIVATION_BACKOFF_MAX);
        assert_eq!(backoff(u32::MAX), limits::ACTIVATION_BACKOFF_MAX);
    }

    #[test]
    fn keeps_the_newest_crash_of_a_bounded_number_of_entities() {
        let crashes = Crashes::default();
        let report = |reason: &str| {
            CrashReport::of(&Failure::Malformed { reason: reason.into() }, "handle Do".into())
        };
        let address = |n: usize| Address::new("j", format!("{n}"));
        for n in 0..=limits::CRASH_REPORTS_MAX {
            crashes.record(&address(n), report("first"));
        }
        assert!(crashes.get(&address(0)).is_none());
        crashes.record(&address(1), report("second"));
        assert!(crashes.get(&address(1)).unwrap().reason.contains("second"));
    }

    #[test]
    fn clips_long_texts_at_a_character() {
        let long = "é".repeat(limits::CRASH_REPORT_BYTES_MAX);
        let clipped = clip(&long);
        assert!(clipped.len() <= limits::CRASH_REPORT_BYTES_MAX && clipped.len() > 8_000);
    }
}
