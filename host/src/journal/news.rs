//! What is new in the feed, as far as this node stored it: a count for each partition, so that whoever reads
//! many of them looks only where something came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::journal::store::{Partition, Write};

/// Cheap to clone.
#[derive(Clone)]
pub struct FeedNews {
    counts: Arc<[AtomicU64]>,
    changed: Arc<watch::Sender<u64>>,
}

impl FeedNews {
    pub(super) fn new(partitions: u32) -> Self {
        let counts = (0..partitions.max(1)).map(|_| AtomicU64::new(0)).collect();
        Self { counts, changed: Arc::new(watch::Sender::new(0)) }
    }

    /// Notes the events of a batch that was stored.
    pub(super) fn tell(&self, writes: &[Write]) {
        let mut is_new = false;
        for write in writes.iter().filter(|write| !write.events.is_empty()) {
            let place = write.fence.shard.0 as usize % self.counts.len();
            self.counts[place].fetch_add(1, Ordering::Release);
            is_new = true;
        }
        if is_new {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Changes with each batch of events.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes when events come to the partition. Taken before a page is read, it tells afterwards whether more
    /// may have come meanwhile.
    pub fn of(&self, partition: Partition) -> u64 {
        let count = self.counts.get(partition.0 as usize);
        count.map_or(0, |count| count.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Fence;
    use crate::words::{Address, Epoch, Message, Seq, Shard};

    fn write(shard: u32, events: usize) -> Write {
        let fence = Fence { shard: Shard(shard), epoch: Epoch(1) };
        let events = vec![Message::new("t.E", "x"); events];
        Write { events, ..Write::new(Address::new("j", "i"), fence, Seq::ZERO, 0) }
    }

    #[test]
    fn only_events_are_news_and_only_of_their_partition() {
        let news = FeedNews::new(4);
        let mut watch = news.watch();
        news.tell(&[write(1, 0)]);
        assert!(!watch.has_changed().expect("open"));
        news.tell(&[write(1, 2), write(2, 0)]);
        assert!(watch.has_changed().expect("open"));
        watch.mark_unchanged();
        assert_eq!([0, 1, 2, 3].map(|at| news.of(Partition(at))), [0, 1, 0, 0]);
    }

    #[test]
    fn a_store_of_one_partition_has_all_news_there() {
        let news = FeedNews::new(1);
        news.tell(&[write(7, 1), write(9, 1)]);
        assert_eq!(news.of(Partition(0)), 2);
    }
}
