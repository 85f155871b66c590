//! From the store into memory: effects of shards that have come, and those that had no room.

use std::collections::{HashMap, VecDeque};
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
    /// The first effect that had no room, and the writes with such ones that may still be on their way.
    skipped: Option<(EffectId, VecDeque<Commit>)>,
}

impl Loading {
    pub(super) fn hold(&mut self, bundle: Bundle) {
        self.held.push(bundle);
    }

    pub(super) fn into_held(self) -> Vec<Bundle> {
        self.held
    }

    /// Whether there is something to read again anyway.
    pub(super) fn has_skipped(&self) -> bool {
        self.skipped.is_some()
    }

    fn from(first: EffectId) -> Self {
        Self { after: before(first), ..Self::default() }
    }

    /// What was read so far is read again from an effect on.
    fn rewind(&mut self, first: EffectId) {
        self.after = self.after.min(before(first));
    }

    /// What is held is left to the store. Returns it.
    fn skip_held(&mut self) -> Vec<Bundle> {
        let held = std::mem::take(&mut self.held);
        for bundle in &held {
            if let (Some(first), Some(commit)) = (bundle.effects.first(), &bundle.commit) {
                self.skip(first.id, commit.clone());
            }
        }
        held
    }

    pub(super) fn skip(&mut self, first: EffectId, commit: Commit) {
        let (earliest, commits) = self.skipped.get_or_insert((first, VecDeque::new()));
        *earliest = first.min(*earliest);
        while commits.front().is_some_and(|commit| commit.outcome().is_some()) {
            commits.pop_front();
        }
        commits.push_back(commit);
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
    let mut state = house.outbox.state.lock();
    let state = &mut *state;
    // Within the lock: what commands bring is of epochs that are held by then.
    let held: HashMap<Shard, Epoch> = house.holdings.held().into_iter().collect();
    let is_full = !has_room_for_page(state, house.outbox.most);
    let is_over = |(shard, taken): (&Shard, &Taken)| {
        (held.get(shard) != Some(&taken.epoch)).then_some(*shard)
    };
    let over: Vec<Shard> = state.shards.iter().filter_map(is_over).collect();
    for shard in over {
        state.leave(shard);
    }
    let mut skipped = Vec::new();
    for (shard, epoch) in held {
        let taken = state.shards.entry(shard).or_insert_with(|| Taken::new(epoch));
        taken.is_resting = !house.serves(Fence { shard, epoch });
        // What is held must not take the room that is needed to read what comes before it. And a shard that
        // leaves must not keep commands waiting.
        if taken.is_resting || is_full {
            skipped.extend(taken.loading.iter_mut().flat_map(Loading::skip_held));
        }
        if !taken.is_resting
            && let Some(first) = taken.let_go.take()
        {
            taken.loading.get_or_insert_with(|| Loading::from(first)).rewind(first);
        }
    }
    for effect in skipped.iter().flat_map(|bundle| &bundle.effects) {
        state.remove(&effect.past());
    }
    house.outbox.metrics.outbox_effects.set(state.known.len() as i64);
}

/// Shards to read a page of, all from the same place on; none if there is nothing to read, or no room.
fn next(house: &House) -> Option<(Vec<Fence>, Option<EffectId>)> {
    let state = house.outbox.state.lock();
    if !has_room_for_page(&state, house.outbox.most) {
        return None;
    }
    let loading = || {
        let shards = state.shards.iter().filter(|(_, taken)| !taken.is_resting);
        shards.filter_map(|(&shard, taken)| {
            let fence = Fence { shard, epoch: taken.epoch };
            Some((fence, taken.loading.as_ref()?.after))
        })
    };
    let after = loading().map(|(_, after)| after).min()?;
    let fences = loading().filter(|(_, other)| *other == after).map(|(fence, _)| fence);
    Some((fences.collect(), after))
}

fn has_room_for_page(state: &State, most: usize) -> bool {
    state.has_room(most) && state.known.len() + page(most) <= most
}

/// How many effects are read at once.
fn page(most: usize) -> usize {
    limits::EFFECTS_LOADED_AT_ONCE_MAX.min(most)
}

/// Reads a page.
async fn load(
    house: &Arc<House>,
    fences: &[Fence],
    after: Option<EffectId>,
) -> Result<(), StoreError> {
    house.outbox.state.lock().left = Some(Default::default());
    let shards: Vec<Shard> = fences.iter().map(|fence| fence.shard).collect();
    let read = house.journal.outbox(&shards, after, page(house.outbox.most)).await;
    let rows = match read {
        Ok(rows) => rows,
        Err(error) => {
            house.outbox.state.lock().left = None;
            return Err(error);
        }
    };
    for commit in keep(house, fences, rows) {
        // If it was not stored, there is nothing to read.
        let _ = commit.wait().await;
    }
    Ok(())
}

/// Takes a page over. What is returned is to be waited for before the next one is read.
fn keep(house: &Arc<House>, fences: &[Fence], rows: Vec<OutboxRow>) -> Vec<Commit> {
    let mut state = house.outbox.state.lock();
    let left = state.left.take().unwrap_or_default();
    // A page that was asked for under an epoch tells nothing of the next one.
    let present: HashMap<Shard, Epoch> = fences
        .iter()
        .filter(|fence| state.shards.get(&fence.shard).is_some_and(|t| t.epoch == fence.epoch))
        .map(|fence| (fence.shard, fence.epoch))
        .collect();
    let last = rows.last().map(|row| row.id);
    for row in rows {
        let Some(&epoch) = present.get(&row.shard) else { continue };
        if state.known.get(&row.id) != Some(&epoch) && !left.contains(&(row.id, epoch)) {
            add(house, &mut state, row, epoch);
        }
    }
    house.outbox.metrics.outbox_effects.set(state.known.len() as i64);
    let Some(last) = last else { return finish(house, &mut state, present.keys()) };
    for shard in present.keys() {
        if let Some(loading) = state.shards.get_mut(shard).and_then(|s| s.loading.as_mut()) {
            loading.after = Some(last);
        }
    }
    Vec::new()
}

fn add(house: &Arc<House>, state: &mut State, row: OutboxRow, epoch: Epoch) {
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
fn finish<'a>(
    house: &Arc<House>,
    state: &mut State,
    shards: impl Iterator<Item = &'a Shard>,
) -> Vec<Commit> {
    let mut commits = Vec::new();
    for shard in shards {
        let Some(taken) = state.shards.get_mut(shard) else { continue };
        let Some(mut loading) = taken.loading.take() else { continue };
        if let Some((first, on_their_way)) = loading.skipped.take() {
            loading.after = before(first);
            commits.extend(on_their_way);
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
