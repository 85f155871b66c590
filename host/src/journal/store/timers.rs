//! Timers: commands that the host sends to an entity when they are due.

use bytes::Bytes;

use crate::words::{Address, Shard};

/// A change to one of an entity's named timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerChange {
    pub name: String,
    /// None cancels it.
    pub set: Option<Timer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Milliseconds since 1970.
    pub due_ms: u64,
    /// Again after so long.
    pub every_ms: Option<u64>,
    pub method: String,
    pub payload: Bytes,
    /// Random, and new with each setting and repetition: tells a timer from a later one of the same name.
    pub token: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerRow {
    pub shard: Shard,
    pub address: Address,
    pub name: String,
    pub timer: Timer,
    /// Tries to fire it that failed, since it was set.
    pub tries: u32,
    /// Of the last one; empty if there is none.
    pub error: String,
}

/// What is kept in memory of a timer until it is due: the rest is read then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTimer {
    pub shard: Shard,
    pub address: Address,
    pub name: String,
    pub due_ms: u64,
    pub token: [u8; 16],
}

impl TimerChange {
    /// What it counts against bounds in bytes.
    pub fn size(&self) -> usize {
        let timer = self.set.as_ref().map_or(0, |set| set.method.len() + set.payload.len() + 40);
        self.name.len() + timer
    }
}
