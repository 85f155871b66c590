//! What a batch comes to beside events: of every row the last change. No I/O.
//!
//! A statement may change a row once only, and a row under one fence must not hide one under another: so
//! changes are told apart by their fences too.

use std::collections::{HashMap, HashSet};

use crate::journal::error::StoreError;
use crate::journal::store::{
    Chore, Consumed, EffectId, Fence, Laggard, NewEffect, Partition, RowChange, Task, TimerChange,
    Write,
};
use crate::words::{Address, Seq};

#[derive(Default)]
pub struct Changes<'a> {
    pub effects: Vec<(&'a Write, &'a NewEffect)>,
    pub effects_done: Vec<(Fence, EffectId)>,
    pub effects_changed: Vec<(Fence, EffectChange<'a>)>,
    pub timers: Vec<(&'a Write, &'a TimerChange)>,
    pub timers_later: Vec<(Fence, TimerLater<'a>)>,
    /// Before which number events may be dropped.
    pub forgotten: Vec<(&'a Write, Seq)>,
    pub steps: Vec<Step<'a>>,
    /// None: caught up.
    pub laggards: Vec<(Place<'a>, &'a Address, Option<&'a Laggard>)>,
    pub rows: Vec<(Fence, &'a RowChange)>,
}

/// What an effect is from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectChange<'a> {
    pub id: EffectId,
    pub tries: u32,
    pub due_ms: u64,
    pub error: &'a str,
    pub parked: bool,
}

/// What a timer is from now on, if it still has this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerLater<'a> {
    pub address: &'a Address,
    pub name: &'a str,
    pub token: &'a [u8; 16],
    pub due_ms: u64,
    pub tries: u32,
    pub error: &'a str,
}

/// A group in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place<'a> {
    pub fence: Fence,
    pub group: &'a str,
    pub partition: Partition,
}

/// All steps of a batch at one place, which follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    pub place: Place<'a>,
    pub expected_off: u64,
    pub off: u64,
}

impl Step<'_> {
    pub fn moved(&self) -> StoreError {
        moved(&self.place, self.expected_off)
    }
}

fn moved(place: &Place, expected: u64) -> StoreError {
    let (group, partition) = (place.group.into(), place.partition);
    StoreError::Moved { group, partition, expected }
}

impl<'a> Changes<'a> {
    /// Whether a batch stores anything but events, snapshots and receipts.
    pub fn has_any(writes: &[Write], chores: &[Chore]) -> bool {
        let has_more = |write: &Write| {
            !write.effects.is_empty()
                || write.result_of.is_some()
                || !write.timers.is_empty()
                || write.forget_before.is_some()
        };
        !chores.is_empty() || writes.iter().any(has_more)
    }

    /// Fails if steps of a group do not follow one another.
    pub fn of(writes: &'a [Write], chores: &'a [Chore]) -> Result<Self, StoreError> {
        let mut changes = Changes::default();
        if !Self::has_any(writes, chores) {
            return Ok(changes);
        }
        changes.writes(writes);
        changes.effects(chores);
        changes.timers(chores);
        changes.steps(chores)?;
        Ok(changes)
    }

    fn writes(&mut self, writes: &'a [Write]) {
        let (mut named, mut forgotten) = (HashSet::new(), HashSet::new());
        for write in writes {
            self.effects.extend(write.effects.iter().map(|effect| (write, effect)));
            self.effects_done.extend(write.result_of.map(|id| (write.fence, id)));
        }
        for write in writes.iter().rev() {
            for change in write.timers.iter().rev() {
                if named.insert((write.fence, &write.address, &change.name)) {
                    self.timers.push((write, change));
                }
            }
            // Later writes never ask for less.
            if let Some(before) = write.forgotten_before()
                && forgotten.insert((write.fence, &write.address))
            {
                self.forgotten.push((write, before));
            }
        }
    }

    fn effects(&mut self, chores: &'a [Chore]) {
        let mut done: HashSet<_> = self.effects_done.iter().copied().collect();
        for Chore { fence, task } in chores {
            if let Task::EffectDone(ids) = task {
                let new = ids.iter().filter(|id| done.insert((*fence, **id)));
                self.effects_done.extend(new.map(|id| (*fence, *id)));
            }
        }
        for Chore { fence, task } in chores.iter().rev() {
            let change = match task {
                Task::EffectLater { id, tries, due_ms, error } => {
                    EffectChange { id: *id, tries: *tries, due_ms: *due_ms, error, parked: false }
                }
                Task::EffectPark { id, tries, error } => {
                    EffectChange { id: *id, tries: *tries, due_ms: 0, error, parked: true }
                }
                Task::EffectRetry(id) => {
                    EffectChange { id: *id, tries: 0, due_ms: 0, error: "", parked: false }
                }
                Task::EffectDone(_)
                | Task::TimerLater { .. }
                | Task::Consumed(_)
                | Task::ViewRows(_) => continue,
            };
            if done.insert((*fence, change.id)) {
                self.effects_changed.push((*fence, change));
            }
        }
    }

    fn timers(&mut self, chores: &'a [Chore]) {
        let set = self.timers.iter().map(|(write, set)| (write.fence, &write.address, &set.name));
        let mut named: HashSet<_> = set.collect();
        for Chore { fence, task } in chores.iter().rev() {
            if let Task::TimerLater { address, name, token, due_ms, tries, error } = task
                && named.insert((*fence, address, name))
            {
                let (due_ms, tries) = (*due_ms, *tries);
                let later = TimerLater { address, name, token, due_ms, tries, error };
                self.timers_later.push((*fence, later));
            }
        }
    }

    fn steps(&mut self, chores: &'a [Chore]) -> Result<(), StoreError> {
        let mut places: HashMap<Place, usize> = HashMap::new();
        let mut laggards: HashMap<(Place, &Address), Option<&Laggard>> = HashMap::new();
        let mut rows: HashMap<(Fence, &str, &str), &RowChange> = HashMap::new();
        for Chore { fence, task } in chores {
            let consumed = match task {
                Task::Consumed(consumed) => consumed,
                Task::ViewRows(of) => {
                    rows.extend(of.iter().map(|row| ((*fence, &*row.view, &*row.key), row)));
                    continue;
                }
                Task::EffectDone(_)
                | Task::EffectLater { .. }
                | Task::EffectPark { .. }
                | Task::EffectRetry(_)
                | Task::TimerLater { .. } => continue,
            };
            let Consumed { group, partition, expected_off, off, .. } = consumed;
            let place = Place { fence: *fence, group, partition: *partition };
            let step = Step { place, expected_off: *expected_off, off: *off };
            match places.get(&place).map(|at| &mut self.steps[*at]) {
                Some(before) if before.off != *expected_off => return Err(step.moved()),
                Some(before) => before.off = *off,
                None => {
                    places.insert(place, self.steps.len());
                    self.steps.push(step);
                }
            }
            for laggard in &consumed.laggards {
                laggards.insert((place, &laggard.address), Some(laggard));
            }
            for address in &consumed.caught_up {
                laggards.insert((place, address), None);
            }
            for row in &consumed.rows {
                rows.insert((*fence, &row.view, &row.key), row);
            }
        }
        let laggards = laggards.into_iter();
        self.laggards = laggards.map(|((place, address), to)| (place, address, to)).collect();
        self.rows = rows.into_iter().map(|((fence, _, _), row)| (fence, row)).collect();
        Ok(())
    }
}
