//! From the store into memory: effects of shards that have come, and those that had no room.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::entity::house::House;
use crate::entity::outbox::{Bundle, Retry, State, Taken, Waiting, Work, deliver};
use crate::journal::{Commit, EffectId, Fence, OutboxRow, StoreError};
use crate::words::{Epoch, Shard, clock, limits};

/// What the store may have of a shard that is not in memory.
#[derive(Default)]
pub(super) struct Loading {
    /// Read so far.
    after: Option<EffectId>,
    /// Of commands that came meanwhile: after what is read.
    held: Vec<Bundle>,
    /// The first effect that had no room, and the newest write with such ones.
    skipped: Option<(EffectId, Commit)>,
}

impl Loading {
    pub(super) fn hold(&mut self, bundle: Bundle) {
        self.held.push(bundle);
    }

    pub(super) fn into_held(self) -> Vec<Bundle> {
        self.held
    }

    pub(super) fn skip(&mut self, first: EffectId, commit: Commit) {
        let first = self.skipped.take().map_or(first, |(earlier, _)| earlier.min(first));
        self.skipped = Some((first, commit));
    }
}

pub(super) async fn run(house: Weak<House>, work: Arc<Work>) {
    let mut pause = limits::SHARDS_LOOKED_AT_EVERY;
    // A store that cannot be read is told of once.
    let mut is_told = false;
    loop {
        let _ = tokio::time::timeout(pause, work.load.notified()).await;
        pause = limits::SHARDS_LOOKED_AT_EVERY;
        let Some(house) = house.upgrade() else { return };
        if house.outbox.is_stopped() {
            return;
        }
        look(&house);
        while let Some((shards, after)) = next(&house) {
            match load(&house, &shards, after).await {
                Ok(()) => is_told = false,
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "cannot read which effects wait; trying again");
                    }
                    pause = limits::OUTBOX_RETRY_AFTER;
                    break;
                }
            }
        }
    }
}

/// Notices which shards are served.
fn look(house: &House) {
    let held = house.holdings.held().into_iter();
    let served: HashMap<Shard, Epoch> =
        held.filter(|(shard, _)| !house.holdings.is_closing(*shard)).collect();
    let mut state = house.outbox.state.lock();
    let gone: Vec<Shard> = state
        .shards
        .iter()
        .filter(|(shard, taken)| served.get(shard) != Some(&taken.epoch))
        .map(|(shard, _)| *shard)
        .collect();
    let gone: Vec<_> = gone.into_iter().flat_map(|shard| state.forget_shard(shard)).collect();
    for (shard, epoch) in served {
        state.shards.entry(shard).or_insert_with(|| Taken::new(epoch));
    }
    drop(state);
    let effects = gone.into_iter().flat_map(|bundle| bundle.effects);
    let ids: Vec<_> = effects.map(|effect| (effect.id, effect.call.size())).collect();
    house.outbox.forget(ids);
}

/// Shards to read a page of, all from the same place on; none if there is nothing to read, or no room.
fn next(house: &House) -> Option<(Vec<Shard>, Option<EffectId>)> {
    let state = house.outbox.state.lock();
    let most = house.outbox.most;
    if !state.has_room(most) || state.known.len() + page(most) > most {
        return None;
    }
    let loading = || {
        let shards = state.shards.iter();
        shards.filter_map(|(shard, taken)| Some((*shard, taken.loading.as_ref()?.after)))
    };
    let after = loading().map(|(_, after)| after).min()?;
    let shards = loading().filter(|(_, other)| *other == after).map(|(shard, _)| shard);
    Some((shards.collect(), after))
}

/// How many effects are read at once.
fn page(most: usize) -> usize {
    limits::EFFECTS_LOADED_AT_ONCE_MAX.min(most)
}

/// Reads a page.
async fn load(
    house: &Arc<House>,
    shards: &[Shard],
    after: Option<EffectId>,
) -> Result<(), StoreError> {
    house.outbox.state.lock().left = Some(Default::default());
    let read = house.journal.outbox(shards, after, page(house.outbox.most)).await;
    let rows = match read {
        Ok(rows) => rows,
        Err(error) => {
            house.outbox.state.lock().left = None;
            return Err(error);
        }
    };
    for commit in keep(house, shards, rows) {
        // If it was not stored, there is nothing to read.
        let _ = commit.wait().await;
    }
    Ok(())
}

/// Takes a page over. What is returned is to be waited for before the next one is read.
fn keep(house: &Arc<House>, shards: &[Shard], rows: Vec<OutboxRow>) -> Vec<Commit> {
    let mut state = house.outbox.state.lock();
    let left = state.left.take().unwrap_or_default();
    let last = rows.last().map(|row| row.id);
    for row in rows {
        if !state.known.contains(&row.id) && !left.contains(&row.id) {
            add(house, &mut state, row);
        }
    }
    house.outbox.metrics.outbox_effects.set(state.known.len() as i64);
    let Some(last) = last else { return finish(house, &mut state, shards) };
    for shard in shards {
        if let Some(loading) = state.shards.get_mut(shard).and_then(|s| s.loading.as_mut()) {
            loading.after = Some(last);
        }
    }
    Vec::new()
}

fn add(house: &Arc<House>, state: &mut State, row: OutboxRow) {
    let Some(epoch) = state.shards.get(&row.shard).map(|taken| taken.epoch) else { return };
    let fence = Fence { shard: row.shard, epoch };
    let wait = row.due_ms.saturating_sub(clock::unix_ms());
    if wait > 0 {
        let effect = Waiting::of(row, fence);
        state.remember(&effect);
        let at =
            clock::now() + std::time::Duration::from_millis(wait).min(limits::EFFECT_BACKOFF_MAX);
        state.retries.push(std::cmp::Reverse(Retry { at, effect }));
        house.outbox.work.retry.notify_one();
        return;
    }
    let bundle = Bundle::of(row, fence);
    for effect in &bundle.effects {
        state.remember(effect);
    }
    deliver::enqueue(house, state, bundle);
}

/// There is nothing more to read of these shards, but for what had no room meanwhile: the writes with that
/// are returned, to be waited for before the next page is read.
fn finish(house: &Arc<House>, state: &mut State, shards: &[Shard]) -> Vec<Commit> {
    let mut commits = Vec::new();
    for shard in shards {
        let Some(taken) = state.shards.get_mut(shard) else { continue };
        let Some(mut loading) = taken.loading.take() else { continue };
        if let Some((first, commit)) = loading.skipped.take() {
            loading.after = before(first);
            commits.push(commit);
            taken.loading = Some(loading);
            continue;
        }
        for bundle in loading.held {
            deliver::enqueue(house, state, bundle);
        }
    }
    commits
}

/// The greatest id that is less.
fn before(id: EffectId) -> Option<EffectId> {
    let number = u128::from_be_bytes(id.0).checked_sub(1)?;
    Some(EffectId(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_from_before_an_effect_on_finds_it_first() {
        let id = EffectId::new(7, 0);
        let before_it = before(id).unwrap();
        assert!(before_it < id);
        assert_eq!(before_it, EffectId::new(6, u64::MAX));
        assert_eq!(before(EffectId::default()), None);
    }
}
