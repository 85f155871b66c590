//! Which shards this node holds, and until when it may answer from memory.
//!
//! The cluster floor grants and takes; every command enters through here, and every write carries the
//! epoch under which its entity was loaded. A node without a cluster holds everything, for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

use crate::words::clock::{self, BootTime};
use crate::words::{Address, Epoch, Shard};

/// Shards of a node without a cluster: they only spread its entities over locks.
pub const ALONE_SHARDS: u32 = 64;
const ALONE_EPOCH: Epoch = Epoch(1);

/// Bit 0 of a slot: nothing enters any more.
const CLOSING: u64 = 1;

/// Cheap to clone.
#[derive(Clone)]
pub struct Holdings(Arc<Inner>);

struct Inner {
    /// By number of the shard.
    slots: Vec<Slot>,
    alone: bool,
    /// On the clock of [`clock::boot_time`], in nanoseconds.
    lease_until: AtomicU64,
    /// Stepped each time the journal finds that a shard is not ours any more.
    lost: watch::Sender<u64>,
}

#[derive(Default)]
struct Slot {
    /// The epoch, shifted by one, and [`CLOSING`]; 0 while the shard is not held.
    state: AtomicU64,
    /// Commands that have entered and not left.
    inside: AtomicUsize,
    empty: Notify,
}

/// The shard is not held here, or is about to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHeld;

impl Holdings {
    /// Of a node that is no member of a cluster.
    pub fn alone() -> Self {
        let holdings = Self::new(ALONE_SHARDS, true);
        for shard in 0..ALONE_SHARDS {
            holdings.grant(Shard(shard), ALONE_EPOCH);
        }
        holdings
    }

    /// Of a member of a cluster: nothing is held, and no lease runs.
    pub fn of_member(shards: u32) -> Self {
        Self::new(shards, false)
    }

    fn new(shards: u32, alone: bool) -> Self {
        Self(Arc::new(Inner {
            slots: (0..shards).map(|_| Slot::default()).collect(),
            alone,
            lease_until: AtomicU64::new(0),
            lost: watch::Sender::new(0),
        }))
    }

    pub fn is_alone(&self) -> bool {
        self.0.alone
    }

    pub fn shards(&self) -> u32 {
        self.0.slots.len() as u32
    }

    pub fn shard_of(&self, address: &Address) -> Shard {
        address.shard(self.shards())
    }

    /// Counts a command in, if the shard is held. Each `Ok` must be followed by one [`leave`](Self::leave).
    pub fn enter(&self, shard: Shard) -> Result<Epoch, NotHeld> {
        let slot = self.slot(shard).ok_or(NotHeld)?;
        // Counted first, so that who closes the shard sees either the count or a refusal.
        slot.inside.fetch_add(1, Ordering::SeqCst);
        let state = slot.state.load(Ordering::SeqCst);
        if state == 0 || state & CLOSING != 0 {
            self.leave(shard);
            return Err(NotHeld);
        }
        Ok(Epoch(state >> 1))
    }

    pub fn leave(&self, shard: Shard) {
        if let Some(slot) = self.slot(shard)
            && slot.inside.fetch_sub(1, Ordering::SeqCst) == 1
        {
            slot.empty.notify_waiters();
        }
    }

    /// The epoch under which the shard is held; it may be closing.
    pub fn epoch(&self, shard: Shard) -> Option<Epoch> {
        let state = self.slot(shard)?.state.load(Ordering::SeqCst);
        (state != 0).then_some(Epoch(state >> 1))
    }

    pub fn is_closing(&self, shard: Shard) -> bool {
        self.slot(shard).is_some_and(|slot| slot.state.load(Ordering::SeqCst) & CLOSING != 0)
    }

    /// Every shard that is held, with its epoch.
    pub fn held(&self) -> Vec<(Shard, Epoch)> {
        let all = (0..self.shards()).map(Shard);
        all.filter_map(|shard| Some((shard, self.epoch(shard)?))).collect()
    }

    pub fn held_count(&self) -> usize {
        self.0.slots.iter().filter(|slot| slot.state.load(Ordering::Relaxed) != 0).count()
    }

    /// From now on the shard is held under `epoch`. Epochs never go back: false if it is held under a
    /// later one.
    pub fn grant(&self, shard: Shard, epoch: Epoch) -> bool {
        let Some(slot) = self.slot(shard) else { return false };
        let granted = slot.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
            (state >> 1 <= epoch.0).then_some(epoch.0 << 1)
        });
        granted.is_ok()
    }

    /// Nothing enters the shard any more; what is inside goes on. False if it is not held under `epoch`.
    pub fn close(&self, shard: Shard, epoch: Epoch) -> bool {
        self.exchange(shard, epoch.0 << 1, epoch.0 << 1 | CLOSING)
    }

    /// Undoes [`close`](Self::close).
    pub fn reopen(&self, shard: Shard, epoch: Epoch) -> bool {
        self.exchange(shard, epoch.0 << 1 | CLOSING, epoch.0 << 1)
    }

    /// The shard is not held any more, if it was under `epoch`.
    pub fn revoke(&self, shard: Shard, epoch: Epoch) -> bool {
        self.exchange(shard, epoch.0 << 1, 0) || self.exchange(shard, epoch.0 << 1 | CLOSING, 0)
    }

    /// Nothing is held any more. Returns what was.
    pub fn revoke_all(&self) -> Vec<(Shard, Epoch)> {
        let mut held = self.held();
        held.retain(|(shard, epoch)| self.revoke(*shard, *epoch));
        held
    }

    /// The store says that the shard is not held under `epoch`: revokes it, and wakes who watches
    /// [`lost`](Self::lost).
    pub fn lose(&self, shard: Shard, epoch: Epoch) {
        if self.revoke(shard, epoch) {
            self.0.lost.send_modify(|generation| *generation += 1);
        }
    }

    /// Changes each time the journal found a shard lost.
    pub fn lost(&self) -> watch::Receiver<u64> {
        self.0.lost.subscribe()
    }

    /// Commands inside the shard.
    pub fn inside(&self, shard: Shard) -> usize {
        self.slot(shard).map_or(0, |slot| slot.inside.load(Ordering::SeqCst))
    }

    /// Returns when no command is inside the shard. Close it first.
    pub async fn emptied(&self, shard: Shard) {
        let Some(slot) = self.slot(shard) else { return };
        loop {
            let empty = slot.empty.notified();
            tokio::pin!(empty);
            empty.as_mut().enable();
            if slot.inside.load(Ordering::SeqCst) == 0 {
                return;
            }
            empty.await;
        }
    }

    /// Answers may be given from memory until then. A lease is never shortened, but by
    /// [`end_lease`](Self::end_lease).
    pub fn extend_lease(&self, until: BootTime) {
        self.0.lease_until.fetch_max(until.nanos(), Ordering::SeqCst);
    }

    pub fn end_lease(&self) {
        self.0.lease_until.store(0, Ordering::SeqCst);
    }

    /// Until when the lease runs.
    pub fn lease_until(&self) -> BootTime {
        BootTime::from_nanos(self.0.lease_until.load(Ordering::SeqCst))
    }

    /// Whether an answer from memory may be given now. Ask after the state was read.
    pub fn lease_holds(&self) -> bool {
        self.0.alone || clock::boot_time() < self.lease_until()
    }

    fn slot(&self, shard: Shard) -> Option<&Slot> {
        self.0.slots.get(shard.0 as usize)
    }

    fn exchange(&self, shard: Shard, from: u64, to: u64) -> bool {
        self.slot(shard).is_some_and(|slot| {
            slot.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SHARD: Shard = Shard(3);

    #[test]
    fn a_node_alone_holds_everything_for_ever() {
        let holdings = Holdings::alone();
        assert!(holdings.lease_holds());
        assert_eq!(holdings.held_count(), holdings.shards() as usize);
        assert_eq!(holdings.enter(SHARD), Ok(ALONE_EPOCH));
    }

    #[test]
    fn a_member_holds_what_it_was_granted() {
        let holdings = Holdings::of_member(8);
        assert_eq!(holdings.enter(SHARD), Err(NotHeld));
        assert!(holdings.grant(SHARD, Epoch(5)));
        assert_eq!(holdings.enter(SHARD), Ok(Epoch(5)));
        assert_eq!(holdings.held(), [(SHARD, Epoch(5))]);
        assert_eq!(holdings.enter(Shard(99)), Err(NotHeld));
    }

    #[test]
    fn an_epoch_never_goes_back() {
        let holdings = Holdings::of_member(8);
        assert!(holdings.grant(SHARD, Epoch(5)));
        assert!(!holdings.grant(SHARD, Epoch(4)));
        assert!(!holdings.revoke(SHARD, Epoch(4)));
        assert_eq!(holdings.epoch(SHARD), Some(Epoch(5)));
    }

    #[tokio::test]
    async fn closing_lets_out_and_nobody_in() {
        let holdings = Holdings::of_member(8);
        holdings.grant(SHARD, Epoch(1));
        assert_eq!(holdings.enter(SHARD), Ok(Epoch(1)));
        assert!(holdings.close(SHARD, Epoch(1)));
        assert_eq!(holdings.enter(SHARD), Err(NotHeld));
        assert_eq!(holdings.epoch(SHARD), Some(Epoch(1)));
        let waits = tokio::spawn({
            let holdings = holdings.clone();
            async move { holdings.emptied(SHARD).await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        holdings.leave(SHARD);
        waits.await.unwrap();
        assert!(holdings.reopen(SHARD, Epoch(1)));
        assert_eq!(holdings.enter(SHARD), Ok(Epoch(1)));
    }

    #[test]
    fn losing_an_old_epoch_changes_nothing() {
        let holdings = Holdings::of_member(8);
        holdings.grant(SHARD, Epoch(7));
        let mut lost = holdings.lost();
        holdings.lose(SHARD, Epoch(6));
        assert!(!lost.has_changed().unwrap());
        holdings.lose(SHARD, Epoch(7));
        assert!(lost.has_changed().unwrap());
        lost.mark_unchanged();
        assert_eq!(holdings.epoch(SHARD), None);
    }

    #[test]
    fn a_lease_ends_by_itself() {
        let holdings = Holdings::of_member(8);
        assert!(!holdings.lease_holds());
        holdings.extend_lease(clock::boot_time() + Duration::from_secs(60));
        assert!(holdings.lease_holds());
        // A renewal that was answered late does not shorten it.
        holdings.extend_lease(clock::boot_time());
        assert!(holdings.lease_holds());
        holdings.end_lease();
        assert!(!holdings.lease_holds());
    }
}
