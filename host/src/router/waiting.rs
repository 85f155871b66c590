//! Where commands wait for the owner of their shard: within bounds, per shard and per node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::words::telemetry::Metrics;
use crate::words::{Shard, Status, limits};

/// Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    shards: Vec<Room>,
    all: Room,
    metrics: Metrics,
}

#[derive(Default)]
struct Room {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

impl Room {
    fn enter(&self, bytes: usize, calls_max: usize, bytes_max: usize) -> bool {
        let calls = self.calls.fetch_add(1, Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        if calls <= calls_max && total <= bytes_max {
            return true;
        }
        self.leave(bytes);
        false
    }

    fn leave(&self, bytes: usize) {
        self.calls.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

impl Rooms {
    pub fn new(shards: u32, metrics: Metrics) -> Self {
        let shards = (0..shards).map(|_| Room::default()).collect();
        Self(Arc::new(Inner { shards, all: Room::default(), metrics }))
    }

    /// Lets a command of so many bytes wait until the guard is dropped.
    pub fn enter(&self, shard: Shard, bytes: usize) -> Result<Waiting, Status> {
        let full = |whose| {
            Status::resource_exhausted(format!(
                "as many commands wait for {whose} as may; nothing was changed, try again later"
            ))
        };
        let inner = &self.0;
        let Some(room) = inner.shards.get(shard.0 as usize) else {
            return Err(Status::internal("the entity's shard does not exist"));
        };
        let (calls_max, bytes_max) =
            (limits::WAITING_CALLS_PER_SHARD_MAX, limits::WAITING_BYTES_PER_SHARD_MAX);
        if !room.enter(bytes, calls_max, bytes_max) {
            return Err(full("a new owner of the entity's shard"));
        }
        if !inner.all.enter(bytes, limits::WAITING_CALLS_MAX, limits::WAITING_BYTES_MAX) {
            room.leave(bytes);
            return Err(full("shards that are moving"));
        }
        inner.metrics.waiting_calls.inc();
        Ok(Waiting { rooms: self.clone(), shard, bytes })
    }
}

/// A command that waits.
pub struct Waiting {
    rooms: Rooms,
    shard: Shard,
    bytes: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let inner = &self.rooms.0;
        inner.metrics.waiting_calls.dec();
        inner.all.leave(self.bytes);
        if let Some(room) = inner.shards.get(self.shard.0 as usize) {
            room.leave(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Code;

    #[test]
    fn one_shard_cannot_take_the_room_of_the_others() {
        let metrics = Metrics::default();
        let rooms = Rooms::new(2, metrics.clone());
        let most = limits::WAITING_CALLS_PER_SHARD_MAX;
        let waiting: Vec<_> = (0..most).map(|_| rooms.enter(Shard(0), 1).unwrap()).collect();
        let refused = rooms.enter(Shard(0), 1).err().unwrap();
        assert_eq!(refused.code, Code::ResourceExhausted);
        assert!(rooms.enter(Shard(1), 1).is_ok());
        assert_eq!(metrics.waiting_calls.get(), most as i64);
        drop(waiting);
        assert!(rooms.enter(Shard(0), limits::WAITING_BYTES_PER_SHARD_MAX).is_ok());
        assert!(rooms.enter(Shard(0), limits::WAITING_BYTES_PER_SHARD_MAX + 1).is_err());
        assert_eq!(metrics.waiting_calls.get(), 0);
    }
}
