//! What a turn leaves behind.

use bytes::Bytes;

use crate::journal::store::outbox::{EffectId, NewEffect};
use crate::journal::store::timers::TimerChange;
use crate::words::{Address, Epoch, Message, Seq, Shard};

/// The right to write: a shard, and the epoch under which the entity was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    pub shard: Shard,
    pub epoch: Epoch,
}

/// What one turn of one entity leaves behind.
#[derive(Clone, Debug)]
pub struct Write {
    pub address: Address,
    /// Checked by stores of clusters in the transaction that stores the write.
    pub fence: Fence,
    /// The sequence number that the entity had before: its events are numbered from `after + 1`.
    pub after: Seq,
    pub events: Vec<Message>,
    /// At most one, of the state after these events.
    pub snapshot: Option<Message>,
    pub receipt: Option<Receipt>,
    /// When the command came, milliseconds since 1970. Kept with every event.
    pub at_ms: u64,
    /// Calls to deliver later, in this order.
    pub effects: Vec<NewEffect>,
    /// The effect whose result this write has: it leaves the outbox.
    pub result_of: Option<EffectId>,
    /// Of a name that comes twice the last one counts.
    pub timers: Vec<TimerChange>,
    /// Events before this number are not needed any more: the store may drop them, now or later, but never
    /// the newest.
    pub forget_before: Option<Seq>,
}

impl Write {
    /// One that stores nothing yet.
    pub fn new(address: Address, fence: Fence, after: Seq, at_ms: u64) -> Self {
        Self {
            address,
            fence,
            after,
            events: Vec::new(),
            snapshot: None,
            receipt: None,
            at_ms,
            effects: Vec::new(),
            result_of: None,
            timers: Vec::new(),
            forget_before: None,
        }
    }

    /// The number of the entity's newest event once this is stored.
    pub fn head(&self) -> Seq {
        self.after.plus(self.events.len())
    }

    /// Before which number events may be dropped, if any is: the newest stays.
    pub fn forgotten_before(&self) -> Option<Seq> {
        self.forget_before.map(|before| before.min(self.head())).filter(|before| before.0 > 1)
    }

    /// Whether everything before its events is forgotten: in a copy the entity may begin with it.
    pub fn is_beginning(&self) -> bool {
        self.after > Seq::ZERO && self.forget_before == Some(self.after.plus(1))
    }

    /// What it counts against the rows of a commit.
    pub fn rows(&self) -> usize {
        self.events.len()
            + usize::from(self.snapshot.is_some())
            + usize::from(self.receipt.is_some())
            + self.effects.len()
            + usize::from(self.result_of.is_some())
            + self.timers.len()
            + usize::from(self.forget_before.is_some())
    }

    /// What it counts against the bytes of a commit.
    pub fn bytes(&self) -> usize {
        let events: usize = self.events.iter().map(Message::size).sum();
        let snapshot = self.snapshot.as_ref().map_or(0, Message::size);
        let receipt = self.receipt.as_ref().map_or(0, |r| r.key.len() + r.reply.len());
        let effects: usize = self.effects.iter().map(|effect| effect.call.size()).sum();
        let timers: usize = self.timers.iter().map(TimerChange::size).sum();
        events + snapshot + receipt + effects + timers
    }
}

/// The record of a command that carried an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub key: String,
    /// SHA-256 over method and payload.
    pub request_hash: [u8; 32],
    pub reply: Bytes,
    pub expires_at_ms: u64,
}
