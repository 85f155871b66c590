//! A batch in the form of the statement that stores it: arrays, one for each column. No I/O.

use std::collections::{HashMap, HashSet};

use crate::journal::changes::Changes;
use crate::journal::error::StoreError;
use crate::journal::postgres::aside::Aside;
use crate::journal::store::{Chore, EffectId, Fence, Receipt, TimerChange, Write};
use crate::words::limits::SNAPSHOTS_KEPT;
use crate::words::{Address, Seq};

/// The columns that every row begins with: whose it is, and under which epoch it may be written.
#[derive(Default)]
pub struct Keys<'a> {
    pub shards: Vec<i32>,
    pub epochs: Vec<i64>,
    pub journals: Vec<&'a [u8]>,
    pub ids: Vec<&'a [u8]>,
}

impl<'a> Keys<'a> {
    fn push(&mut self, write: &'a Write) {
        self.shards.push(write.fence.shard.0 as i32);
        self.epochs.push(write.fence.epoch.0 as i64);
        self.journals.push(write.address.journal.as_str().as_bytes());
        self.ids.push(write.address.id.as_str().as_bytes());
    }
}

/// A shard of the batch, and the epoch under which it is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want<'a> {
    pub fence: Fence,
    /// Events of the batch: offsets that the shard hands out.
    pub events: i64,
    pub evidence: Evidence<'a>,
}

/// A row that a batch leaves, and nothing else does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence<'a> {
    /// The event with this number, with the epoch of the batch.
    Event(&'a Address, Seq),
    Receipt(&'a Address, &'a Receipt),
    Effect(EffectId),
    /// The timer of this name with this token.
    Timer(&'a Address, &'a str, &'a [u8; 16]),
    /// A timer that is gone may never have been there.
    Cancelled,
    /// Chores leave nothing that would tell them from others.
    Chores,
    /// The batch leaves nothing that anyone could miss.
    Nothing,
}

impl<'a> Evidence<'a> {
    /// Of a write itself.
    fn of(write: &'a Write) -> Self {
        let address = &write.address;
        if !write.events.is_empty() {
            // The newest: those before it may be forgotten.
            Evidence::Event(address, write.head())
        } else if let Some(receipt) = &write.receipt {
            Evidence::Receipt(address, receipt)
        } else if let Some(effect) = write.effects.first() {
            Evidence::Effect(effect.id)
        } else if !write.timers.is_empty() {
            // Unless one of them is set: what becomes of each timer, only the whole batch tells.
            Evidence::Cancelled
        } else {
            Evidence::Nothing
        }
    }

    /// Of what a batch makes of a timer in the end.
    fn of_timer(write: &'a Write, change: &'a TimerChange) -> Self {
        match &change.set {
            Some(timer) => Evidence::Timer(&write.address, &change.name, &timer.token),
            None => Evidence::Cancelled,
        }
    }

    /// The better one wins, and of two alike the later.
    fn rank(&self) -> u32 {
        match self {
            Evidence::Event(..) => 6,
            Evidence::Receipt(..) => 5,
            Evidence::Effect(_) => 4,
            Evidence::Timer(..) => 3,
            Evidence::Cancelled => 2,
            Evidence::Chores => 1,
            Evidence::Nothing => 0,
        }
    }
}

#[derive(Default)]
pub struct Draft<'a> {
    pub wants: Vec<Want<'a>>,
    /// Each entity of the batch once, with the number that it has to be at before.
    pub heads: Keys<'a>,
    pub head_seqs: Vec<i64>,
    pub head_addresses: Vec<&'a Address>,
    pub events: Keys<'a>,
    /// Of an event within its shard's part of the batch.
    pub event_places: Vec<i64>,
    pub event_seqs: Vec<i64>,
    pub event_times: Vec<i64>,
    pub event_types: Vec<&'a [u8]>,
    pub event_data: Vec<&'a [u8]>,
    /// Entities whose first event this is.
    pub firsts: Keys<'a>,
    pub snapshots: Keys<'a>,
    pub snapshot_addresses: Vec<&'a Address>,
    pub snapshot_seqs: Vec<i64>,
    pub snapshot_types: Vec<&'a [u8]>,
    pub snapshot_data: Vec<&'a [u8]>,
    pub receipts: Keys<'a>,
    pub receipt_keys: Vec<&'a [u8]>,
    pub receipt_hashes: Vec<&'a [u8]>,
    pub receipt_replies: Vec<&'a [u8]>,
    pub receipt_expiries: Vec<i64>,
    pub changes: Changes<'a>,
    /// Nothing for a batch of events, snapshots and receipts.
    pub aside: Option<Aside>,
}

impl<'a> Draft<'a> {
    /// Fails if the writes of an entity do not follow one another, or the steps of a group.
    pub fn of(
        batch: &'a [Write],
        chores: &'a [Chore],
        is_import: bool,
    ) -> Result<Self, StoreError> {
        let mut draft = Draft::default();
        let mut wants: HashMap<Fence, usize> = HashMap::new();
        let mut heads: HashMap<&Address, Seq> = HashMap::new();
        for write in batch {
            let want = draft.want(&mut wants, write.fence, Evidence::of(write));
            let head = heads.get(&write.address).copied();
            if head.is_some_and(|head| head != write.after) {
                return Err(conflict(&write.address, write.after));
            }
            if head.is_none() {
                draft.heads.push(write);
                let is_first = is_import && write.is_beginning();
                let head = if is_first { Seq::ZERO } else { write.after };
                if head == Seq::ZERO && !write.events.is_empty() {
                    draft.firsts.push(write);
                }
                draft.head_seqs.push(head.0 as i64);
                draft.head_addresses.push(&write.address);
            } else if write.after == Seq::ZERO && !write.events.is_empty() {
                draft.firsts.push(write);
            }
            heads.insert(&write.address, write.after.plus(write.events.len()));
            draft.events(write, want);
        }
        draft.snapshots(batch);
        draft.receipts(batch);
        if Changes::has_any(batch, chores) {
            for chore in chores {
                draft.want(&mut wants, chore.fence, Evidence::Chores);
            }
            let changes = Changes::of(batch, chores)?;
            for &(write, change) in &changes.timers {
                draft.want(&mut wants, write.fence, Evidence::of_timer(write, change));
            }
            draft.aside = Some(Aside::of(&changes));
            draft.changes = changes;
        }
        Ok(draft)
    }

    /// The place of a fence among the wants, of which this is an evidence too.
    fn want(
        &mut self,
        wants: &mut HashMap<Fence, usize>,
        fence: Fence,
        evidence: Evidence<'a>,
    ) -> usize {
        let place = *wants.entry(fence).or_insert_with(|| {
            self.wants.push(Want { fence, events: 0, evidence: Evidence::Nothing });
            self.wants.len() - 1
        });
        let want = &mut self.wants[place];
        if evidence.rank() >= want.evidence.rank() {
            want.evidence = evidence;
        }
        place
    }

    fn events(&mut self, write: &'a Write, want: usize) {
        let want = &mut self.wants[want];
        for (seq, event) in (write.after.0 as i64 + 1..).zip(&write.events) {
            self.events.push(write);
            self.event_places.push(want.events);
            self.event_seqs.push(seq);
            self.event_times.push(write.at_ms as i64);
            self.event_types.push(event.type_name.as_bytes());
            self.event_data.push(&event.data);
            want.events += 1;
        }
    }

    /// The newest ones of each entity: others would be deleted at once.
    fn snapshots(&mut self, batch: &'a [Write]) {
        let mut kept: HashMap<&Address, Vec<Seq>> = HashMap::new();
        for write in batch.iter().rev() {
            let Some(state) = &write.snapshot else { continue };
            let seq = write.after.plus(write.events.len());
            let seqs = kept.entry(&write.address).or_default();
            if seqs.contains(&seq) || seqs.len() == SNAPSHOTS_KEPT {
                continue;
            }
            seqs.push(seq);
            self.snapshots.push(write);
            self.snapshot_addresses.push(&write.address);
            self.snapshot_seqs.push(seq.0 as i64);
            self.snapshot_types.push(state.type_name.as_bytes());
            self.snapshot_data.push(&state.data);
        }
    }

    /// Of a key that comes twice the last one stays.
    fn receipts(&mut self, batch: &'a [Write]) {
        let mut seen = HashSet::new();
        for write in batch.iter().rev() {
            let Some(receipt) = &write.receipt else { continue };
            if !seen.insert((&write.address, receipt.key.as_str())) {
                continue;
            }
            self.receipts.push(write);
            self.receipt_keys.push(receipt.key.as_bytes());
            self.receipt_hashes.push(&receipt.request_hash);
            self.receipt_replies.push(&receipt.reply);
            self.receipt_expiries.push(receipt.expires_at_ms as i64);
        }
    }
}

pub fn conflict(address: &Address, expected: Seq) -> StoreError {
    StoreError::Conflict { address: Box::new(address.clone()), expected }
}
