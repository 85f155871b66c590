//! One shard on its way from this node to another, at either end; and this node's leaving.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::cluster::handle::{Handed, Inner};
use crate::cluster::ownership::hand_over::{Next, Outcome, after_hand_over, after_release};
use crate::cluster::routes::Route;
use crate::journal::StoreError;
use crate::words::clock;
use crate::words::limits::{HANDED_AT_ONCE_MAX, HANDOFF_TURNS_MAX, HANDOFF_WARM_MAX, TAKEN_WITHIN};
use crate::words::{Epoch, Incarnation, NodeId, Shard};

/// The caller has marked the shard as moving.
pub(super) async fn hand_off(
    inner: Arc<Inner>,
    shard: Shard,
    epoch: Epoch,
    to: (NodeId, Incarnation),
) {
    give(&inner, shard, epoch, to).await;
    inner.grants.end_move(shard);
    inner.moved.notify_one();
}

async fn give(inner: &Arc<Inner>, shard: Shard, epoch: Epoch, to: (NodeId, Incarnation)) {
    let began = clock::now();
    if !inner.holdings.close(shard, epoch) {
        return;
    }
    let recent = inner.entities.empty_shard(shard).await;
    let me = inner.me();
    let given = inner.truth.lock().await.hand_over(me, shard, epoch, to).await;
    let mut next = after_hand_over(outcome(given));
    while next == Next::Release {
        // Nothing is served until this is known. A life that is over has lost the shard anyway.
        if inner.holdings.epoch(shard) != Some(epoch) {
            return;
        }
        let released = inner.truth.lock().await.release(me, shard, epoch).await;
        next = after_release(outcome(released));
    }
    inner.holdings.revoke(shard, epoch);
    match next {
        Next::Tell(epoch) => {
            inner.routes.learn(shard, Route { owner: Some(to.0), epoch });
            let told = inner.messenger.hand_over(to.0, vec![Handed { shard, epoch, recent }]);
            let is_taken = tokio::time::timeout(TAKEN_WITHIN, told).await.unwrap_or(false);
            inner.metrics.shards_handed_over.inc();
            if is_taken {
                inner.metrics.shard_pause_seconds.observe(began.elapsed().as_secs_f64());
            } else {
                tracing::warn!(%shard, to = %to.0, "a shard's new owner did not confirm; it will find the shard in the store");
            }
        }
        Next::Free(epoch) => {
            inner.routes.learn(shard, Route { owner: None, epoch });
        }
        Next::Lost | Next::Release => inner.look.notify_one(),
    }
}

fn outcome(answer: Result<Option<Epoch>, StoreError>) -> Outcome {
    match answer {
        Ok(Some(epoch)) => Outcome::Done(epoch),
        Ok(None) => Outcome::Refused,
        Err(error) => {
            tracing::warn!(%error, "the store did not say what became of a shard");
            Outcome::Unknown
        }
    }
}

impl Inner {
    pub async fn take(self: &Arc<Self>, handed: Vec<Handed>) -> bool {
        if handed.len() > HANDED_AT_ONCE_MAX {
            return false;
        }
        let incarnation = *self.incarnation.borrow();
        let shards: Vec<_> = handed.iter().map(|handed| handed.shard).collect();
        let owned = self.truth.lock().await.owned(self.me(), incarnation, &shards).await;
        let owned: HashMap<_, _> = match owned {
            Ok(owned) => owned.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "cannot confirm shards that were handed over");
                return false;
            }
        };
        let is_ours = |handed: &Handed| owned.get(&handed.shard) == Some(&handed.epoch);
        let ours: Vec<_> = handed.into_iter().filter(is_ours).collect();
        let epochs: Vec<_> = ours.iter().map(|handed| (handed.shard, handed.epoch)).collect();
        self.granted(incarnation, &epochs);
        let held = epochs.iter().filter(|(s, epoch)| self.holdings.epoch(*s) == Some(*epoch));
        let all = held.count() == shards.len();
        let entities = self.entities.clone();
        tokio::spawn(async move {
            for handed in ours {
                let recent = handed.recent.into_iter().take(HANDOFF_WARM_MAX).collect();
                entities.warm(recent).await;
            }
        });
        all
    }

    /// What is left is closed, its commands end, and it is freed.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.leaving.send_replace(true);
        let incarnation = *self.incarnation.borrow();
        // Nothing is claimed, and no lease renewed, from here on.
        self.stop.cancel();
        let mut ends = JoinSet::new();
        for (shard, epoch) in self.holdings.held() {
            self.holdings.close(shard, epoch);
            let entities = self.entities.clone();
            ends.spawn(async move { entities.empty_shard(shard).await });
        }
        let ended = async { while ends.join_next().await.is_some() {} };
        // Each waits for its turns, then for its writes.
        let _ = tokio::time::timeout(HANDOFF_TURNS_MAX * 2, ended).await;
        self.give_up();
        let mut truth = self.truth.lock().await;
        truth.leave(&self.identity, incarnation, self.earlier_lives_are_over()).await
    }
}
