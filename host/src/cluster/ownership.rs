//! The rules of ownership: who may serve, who may fence whom, who claims what, and what a node makes of
//! what it reads. No I/O and no clock: time is an argument, so that a search can try every order of
//! events on the code that runs.
//!
//! The store is the truth. A shard's epoch fences every append; a node's lease guards answers from memory.
//! A lease is trusted from when its renewal was *sent*; observers count from when they *received* the news
//! of it. So an observer's patience begins after the lease did, and is longer by the margin for clocks
//! that run unevenly. Nobody compares one clock with another, the database's included.

pub mod rows;

pub mod lease;

pub mod observer;

pub mod claims;

pub mod mend;

pub mod hand_over;

use std::time::Duration;

use crate::words::limits;

pub use claims::{Claims, Eligible};
pub use lease::{Lease, Refusal, Renewal};
pub use mend::{Local, Mend};
pub use observer::Observer;
pub use rows::{NodeRow, NodeState, Process, ShardRow};

/// How long things take. The same on every node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub renew_every: Duration,
    /// A node whose row has not changed for so long may be fenced.
    pub lease: Duration,
    /// A node answers from memory for so long after it sent the renewal. Shorter than `lease`.
    pub trusted: Duration,
    pub poll_every: Duration,
    /// While a node is suspected of being dead.
    pub poll_every_suspected: Duration,
    pub poll_gap_max: Duration,
}

impl Timing {
    pub const fn normal() -> Self {
        Self {
            renew_every: limits::LEASE_RENEW_EVERY,
            lease: limits::LEASE,
            trusted: limits::LEASE_TRUSTED,
            poll_every: limits::STORE_POLL_EVERY,
            poll_every_suspected: limits::STORE_POLL_SUSPECTED_EVERY,
            poll_gap_max: limits::STORE_POLL_GAP_MAX,
        }
    }

    /// With `--fast-failover`.
    pub const fn fast() -> Self {
        Self {
            renew_every: limits::FAST_LEASE_RENEW_EVERY,
            lease: limits::FAST_LEASE,
            trusted: limits::FAST_LEASE_TRUSTED,
            poll_every: limits::FAST_STORE_POLL_EVERY,
            poll_every_suspected: limits::STORE_POLL_SUSPECTED_EVERY,
            poll_gap_max: limits::FAST_STORE_POLL_GAP_MAX,
        }
    }

    /// A node that has been the same for so long is worth moving shards to.
    pub fn stable_after(&self) -> Duration {
        self.lease * 2
    }

    /// A node whose own renewals have failed for longer cannot tell the dead from those who could not renew
    /// either: a renewal that came just before the trouble, and one statement without an answer.
    pub fn trouble_max(&self) -> Duration {
        self.renew_every + self.statement_max()
    }

    /// What one statement may take: a renewal that is not answered leaves time for two more.
    pub fn statement_max(&self) -> Duration {
        self.lease / 3
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
impl Timing {
    /// Times that are easy to count with, whatever nodes go by.
    const EXAMPLE: Self = Self {
        renew_every: Duration::from_millis(1_500),
        lease: Duration::from_secs(6),
        trusted: Duration::from_millis(5_500),
        poll_every: Duration::from_millis(500),
        poll_every_suspected: Duration::from_millis(100),
        poll_gap_max: Duration::from_secs(3),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timing_leaves_a_margin() {
        for timing in [Timing::normal(), Timing::fast()] {
            assert!(timing.trusted < timing.lease);
            assert!(timing.renew_every * 2 < timing.trusted);
            assert!(timing.poll_every * 2 < timing.poll_gap_max);
            assert!(timing.poll_gap_max < timing.lease);
            // After the longest trouble that is overlooked, others have the time to try again.
            let retry_every = timing.renew_every / 3;
            assert!(timing.renew_every + timing.trouble_max() + retry_every < timing.lease);
            assert!(timing.renew_every + timing.poll_gap_max + retry_every < timing.lease);
        }
    }
}
