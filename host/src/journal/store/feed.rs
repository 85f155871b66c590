//! Every event in the order in which it was stored, and how far groups of consumers have come.

use crate::journal::store::views::RowChange;
use crate::words::{Address, Message, Seq};

/// A part of the feed, with an order of its own: a shard of a cluster, or 0 of a node alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// The place in the partition. The first is 1; they rise, with gaps.
    pub off: u64,
    pub address: Address,
    pub seq: Seq,
    pub at_ms: u64,
    pub event: Message,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedPage {
    /// In order. Of every journal; without events that were forgotten.
    pub entries: Vec<FeedEntry>,
    /// Where to go on: no entry below it will ever appear that is not in this page or before it.
    pub next_off: u64,
}

/// How far a group has come in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    pub partition: Partition,
    /// Everything below is consumed, but for what the laggards have yet to consume.
    pub off: u64,
}

/// An entity whose events are consumed apart, because one failed, until it has caught up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    pub partition: Partition,
    pub address: Address,
    /// The event to consume next.
    pub next: Seq,
    /// Tries of that event that failed.
    pub tries: u32,
    /// Not before this time, milliseconds since 1970.
    pub due_ms: u64,
    pub error: String,
    /// Given up, until an operator decides.
    pub parked: bool,
}

/// A step of a group in a partition: the position, and all that follows from it, in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    /// 1 to 256 bytes.
    pub group: String,
    pub partition: Partition,
    /// The position before; 0 if the group has none in this partition. A store in which it is another refuses
    /// the step with [`StoreError::Moved`](crate::journal::StoreError::Moved).
    pub expected_off: u64,
    /// The position from now on, at least 1; may be the same, or lower.
    pub off: u64,
    /// New ones, or what they are from now on; of this partition, whatever their own says.
    pub laggards: Vec<Laggard>,
    /// Laggards no more.
    pub caught_up: Vec<Address>,
    /// Rows of views that the consumed events changed. Of a row that comes twice the last one counts.
    pub rows: Vec<RowChange>,
}

impl Consumed {
    pub(super) fn rows(&self) -> usize {
        let rows: usize = self.rows.iter().map(RowChange::rows).sum();
        1 + self.laggards.len() + self.caught_up.len() + rows
    }

    pub(super) fn bytes(&self) -> usize {
        let address =
            |address: &Address| address.journal.as_str().len() + address.id.as_str().len();
        let laggards = self.laggards.iter().map(|l| 32 + address(&l.address) + l.error.len());
        let caught_up = self.caught_up.iter().map(address);
        let rows = self.rows.iter().map(RowChange::size);
        self.group.len() + laggards.chain(caught_up).chain(rows).sum::<usize>()
    }
}
