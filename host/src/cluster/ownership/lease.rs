//! This node's own lease.

use std::time::Duration;

use crate::cluster::ownership::{NodeRow, Process, Timing};
use crate::words::Incarnation;
use crate::words::clock::BootTime;

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    Renewed,
    /// The store has no row that this process, at this incarnation, may renew.
    Refused,
    /// No answer, or an error: nobody knows whether the row has changed.
    Unknown,
}

/// Why a renewal was refused, and so what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Declared dead, or forgotten: drop every shard and register again.
    Fenced,
    /// A younger process has registered with this node's identity: drop every shard and end.
    Duplicate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    incarnation: Incarnation,
    /// When the last renewal that succeeded was sent.
    sent: BootTime,
    /// When the last try was sent.
    tried: BootTime,
    /// The last try did not succeed.
    is_failing: bool,
    is_over: bool,
}

impl Lease {
    /// A registration is the first renewal. `sent`: just before the statement left.
    pub fn registered(incarnation: Incarnation, sent: BootTime) -> Self {
        Self { incarnation, sent, tried: sent, is_failing: false, is_over: false }
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// `sent`: just before the statement left, on the clock that counts time asleep.
    pub fn renewed(&mut self, sent: BootTime, renewal: Renewal) {
        self.tried = self.tried.max(sent);
        match renewal {
            Renewal::Renewed => {
                self.sent = self.sent.max(sent);
                self.is_failing = false;
            }
            Renewal::Refused => self.is_over = true,
            Renewal::Unknown => self.is_failing = true,
        }
    }

    /// Answers may be given from memory before then. The beginning of time once a renewal was refused.
    pub fn trusted_until(&self, timing: &Timing) -> BootTime {
        if self.is_over { BootTime::default() } else { self.sent + timing.trusted }
    }

    /// How long ago the last renewal that succeeded was sent.
    pub fn age(&self, now: BootTime) -> Duration {
        now.since(self.sent)
    }

    pub fn holds(&self, now: BootTime, timing: &Timing) -> bool {
        now < self.trusted_until(timing)
    }

    /// Whether what this node sees of others can be trusted: who cannot renew its own lease cannot tell a
    /// dead node from a store that is out of reach.
    pub fn is_in_order(&self, now: BootTime, timing: &Timing) -> bool {
        !self.is_failing && self.holds(now, timing)
    }

    /// When to try next. After a failure sooner than usually, but not at once.
    pub fn renew_at(&self, timing: &Timing) -> BootTime {
        let pause = if self.is_failing { timing.renew_every / 3 } else { timing.renew_every };
        self.tried + pause
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }
}

/// Why a renewal was refused: `row` is what the store says of this node afterwards.
pub fn refusal(me: Process, row: Option<&NodeRow>) -> Refusal {
    match row {
        // The row names the process that registered last: the younger one.
        Some(row) if row.process != me => Refusal::Duplicate,
        Some(_) | None => Refusal::Fenced,
    }
}

/// Whether a predecessor whose process may still live, on another machine, has lost its lease for sure:
/// after the answer to our registration (`received`) no renewal of it has succeeded.
pub fn predecessor_is_over(received: BootTime, now: BootTime, timing: &Timing) -> bool {
    now.since(received) >= timing.lease
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing::EXAMPLE;

    fn at(ms: u64) -> BootTime {
        BootTime::default() + Duration::from_millis(ms)
    }

    #[test]
    fn a_lease_counts_from_when_its_renewal_was_sent() {
        let mut lease = Lease::registered(Incarnation(1), at(1_000));
        assert!(lease.holds(at(6_499), &TIMING));
        assert!(!lease.holds(at(6_500), &TIMING));
        lease.renewed(at(2_500), Renewal::Renewed);
        assert_eq!(lease.trusted_until(&TIMING), at(8_000));
        // Answers may overtake each other.
        lease.renewed(at(2_000), Renewal::Renewed);
        assert_eq!(lease.trusted_until(&TIMING), at(8_000));
    }

    #[test]
    fn an_unknown_outcome_neither_extends_nor_ends_a_lease() {
        let mut lease = Lease::registered(Incarnation(1), at(0));
        lease.renewed(at(1_500), Renewal::Unknown);
        assert_eq!(lease.trusted_until(&TIMING), at(5_500));
        assert!(!lease.is_in_order(at(1_600), &TIMING));
        assert_eq!(lease.renew_at(&TIMING), at(2_000));
        // Also when the store comes back long after: the row is still ours.
        lease.renewed(at(60_000), Renewal::Renewed);
        assert!(lease.is_in_order(at(60_001), &TIMING));
    }

    #[test]
    fn a_refusal_is_final() {
        let mut lease = Lease::registered(Incarnation(1), at(0));
        lease.renewed(at(1_500), Renewal::Refused);
        assert!(lease.is_over());
        lease.renewed(at(1_600), Renewal::Renewed);
        assert!(!lease.holds(at(1_601), &TIMING));
    }
}
