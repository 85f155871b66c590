//! What a store in memory keeps beside events: the outbox, timers, positions of groups, and views.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::journal::error::StoreError;
use crate::journal::store::views::indexed;
use crate::journal::store::{
    Chore, Consumed, DueTimer, EffectId, GroupPosition, Laggard, NewRow, OutboxRow, Partition,
    RowChange, Task, TimerRow, ViewQuery, ViewRow, Write,
};
use crate::words::limits::ROWS_READ_BYTES_MAX;
use crate::words::{Address, Shard};

#[derive(Default)]
pub struct Aside {
    outbox: BTreeMap<EffectId, OutboxRow>,
    timers: BTreeMap<(Address, String), TimerRow>,
    positions: BTreeMap<(String, Partition), u64>,
    laggards: BTreeMap<(String, Partition, Address), Laggard>,
    views: BTreeMap<(String, String), NewRow>,
}

impl Aside {
    /// Whether every step follows its group's position, or the step before it.
    pub fn check(&self, chores: &[&Chore]) -> Result<(), StoreError> {
        let mut positions = BTreeMap::new();
        for chore in chores {
            let Task::Consumed(step) = &chore.task else { continue };
            let place = (step.group.clone(), step.partition);
            let position = positions
                .entry(place.clone())
                .or_insert_with(|| self.positions.get(&place).copied().unwrap_or(0));
            if *position != step.expected_off {
                return Err(StoreError::Moved {
                    group: step.group.as_str().into(),
                    partition: step.partition,
                    expected: step.expected_off,
                });
            }
            *position = step.off;
        }
        Ok(())
    }

    pub fn write(&mut self, write: &Write) {
        for effect in &write.effects {
            let row = OutboxRow {
                shard: write.fence.shard,
                source: write.address.clone(),
                id: effect.id,
                call: effect.call.clone(),
                tries: 0,
                due_ms: 0,
                error: String::new(),
                parked: false,
            };
            self.outbox.insert(effect.id, row);
        }
        if let Some(id) = &write.result_of {
            self.outbox.remove(id);
        }
        for change in &write.timers {
            let key = (write.address.clone(), change.name.clone());
            let Some(timer) = &change.set else {
                self.timers.remove(&key);
                continue;
            };
            let row = TimerRow {
                shard: write.fence.shard,
                address: write.address.clone(),
                name: change.name.clone(),
                timer: timer.clone(),
                tries: 0,
                error: String::new(),
            };
            self.timers.insert(key, row);
        }
    }

    pub fn chore(&mut self, chore: &Chore) {
        match &chore.task {
            Task::EffectDone(ids) => ids.iter().for_each(|id| drop(self.outbox.remove(id))),
            Task::EffectLater { id, tries, due_ms, error } => {
                self.effect_is(*id, *tries, *due_ms, error, false);
            }
            Task::EffectPark { id, tries, error } => self.effect_is(*id, *tries, 0, error, true),
            Task::EffectRetry(id) => self.effect_is(*id, 0, 0, "", false),
            Task::TimerLater { address, name, token, due_ms, tries, error } => {
                let row = self.timers.get_mut(&(address.clone(), name.clone()));
                if let Some(row) = row.filter(|row| row.timer.token == *token) {
                    row.timer.due_ms = *due_ms;
                    row.tries = *tries;
                    row.error.clone_from(error);
                }
            }
            Task::Consumed(step) => self.consumed(step),
            Task::ViewRows(rows) => self.view_is(rows),
        }
    }

    fn effect_is(&mut self, id: EffectId, tries: u32, due_ms: u64, error: &str, parked: bool) {
        let Some(row) = self.outbox.get_mut(&id) else { return };
        row.tries = tries;
        row.due_ms = due_ms;
        row.error = error.into();
        row.parked = parked;
    }

    fn consumed(&mut self, step: &Consumed) {
        self.positions.insert((step.group.clone(), step.partition), step.off);
        for laggard in &step.laggards {
            let key = (step.group.clone(), step.partition, laggard.address.clone());
            self.laggards.insert(key, Laggard { partition: step.partition, ..laggard.clone() });
        }
        for address in &step.caught_up {
            self.laggards.remove(&(step.group.clone(), step.partition, address.clone()));
        }
        self.view_is(&step.rows);
    }

    fn view_is(&mut self, rows: &[RowChange]) {
        for RowChange { view, key, row } in rows {
            let place = (view.clone(), key.clone());
            match row {
                Some(row) => self.views.insert(place, row.clone()),
                None => self.views.remove(&place),
            };
        }
    }

    pub fn outbox(
        &self,
        after: Option<EffectId>,
        limit: usize,
        is_wanted: impl Fn(&OutboxRow) -> bool,
    ) -> Vec<OutboxRow> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.outbox.range((from, Bound::Unbounded)).map(|(_, row)| row);
        let rows = rows.filter(|row| is_wanted(row)).take(limit).cloned().collect();
        bounded(rows, |row| row.call.size())
    }

    pub fn effect(&self, id: EffectId) -> Option<OutboxRow> {
        self.outbox.get(&id).cloned()
    }

    pub fn timers(&self, shards: &[Shard], until_ms: u64, limit: usize) -> Vec<DueTimer> {
        let is_due = |row: &&TimerRow| shards.contains(&row.shard) && row.timer.due_ms <= until_ms;
        let due = |row: &TimerRow| DueTimer {
            shard: row.shard,
            address: row.address.clone(),
            name: row.name.clone(),
            due_ms: row.timer.due_ms,
            token: row.timer.token,
        };
        let mut rows: Vec<DueTimer> = self.timers.values().filter(is_due).map(due).collect();
        rows.sort_by_key(|row| row.due_ms);
        rows.truncate(limit);
        rows
    }

    pub fn timers_of(&self, address: &Address, limit: usize) -> Vec<TimerRow> {
        let rows = self.timers.values().filter(|row| row.address == *address).cloned();
        bounded(rows.take(limit).collect(), |row| row.timer.payload.len())
    }

    pub fn list_timers(&self, after: Option<(&Address, &str)>, limit: usize) -> Vec<TimerRow> {
        let later = self.timers.iter().filter(|((address, name), _)| {
            after.is_none_or(|after| (address, name.as_str()) > after)
        });
        let rows = later.map(|(_, row)| row.clone()).take(limit).collect();
        bounded(rows, |row: &TimerRow| row.timer.payload.len())
    }

    pub fn timer(&self, address: &Address, name: &str) -> Option<TimerRow> {
        self.timers.get(&(address.clone(), name.into())).cloned()
    }

    pub fn groups(&self, after: Option<&str>, limit: usize) -> Vec<String> {
        let mut names: Vec<String> = self.positions.keys().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names.retain(|name| after.is_none_or(|after| name.as_str() > after));
        names.truncate(limit);
        names
    }

    pub fn group_positions(&self, group: &str) -> Vec<GroupPosition> {
        let of_group = self.positions.iter().filter(|((name, _), _)| name == group);
        of_group
            .map(|((_, partition), off)| GroupPosition { partition: *partition, off: *off })
            .collect()
    }

    pub fn laggards(&self, group: &str, partitions: &[Partition], limit: usize) -> Vec<Laggard> {
        let of_group = self
            .laggards
            .iter()
            .filter(|((name, partition, _), _)| name == group && partitions.contains(partition));
        let mut laggards: Vec<Laggard> = of_group.map(|(_, laggard)| laggard.clone()).collect();
        laggards.sort_by_key(|laggard| (laggard.parked, laggard.due_ms));
        laggards.truncate(limit);
        laggards
    }

    pub fn delete_group(&mut self, group: &str) {
        self.positions.retain(|(name, _), _| name != group);
        self.laggards.retain(|(name, _, _), _| name != group);
    }

    pub fn view_row(&self, view: &str, key: &str) -> Option<ViewRow> {
        let row = self.views.get(&(view.into(), key.into()))?;
        Some(ViewRow { key: key.into(), message: row.message.clone(), value: Vec::new() })
    }

    pub fn view_rows(&self, view: &str, query: &ViewQuery) -> Vec<ViewRow> {
        let of_view = self.views.iter().filter(|((name, _), _)| name == view);
        let found = of_view.filter_map(|((_, key), row)| {
            let value = match &query.index {
                Some((field, range)) => {
                    let value = &row.index.iter().find(|(name, _)| name == field)?.1;
                    let value = indexed(value);
                    range.contains(value).then(|| value.to_vec())?
                }
                None => Vec::new(),
            };
            Some(ViewRow { key: key.clone(), message: row.message.clone(), value })
        });
        let mut rows: Vec<ViewRow> = found.collect();
        rows.sort_by(|a, b| (&a.value, &a.key).cmp(&(&b.value, &b.key)));
        if query.descending {
            rows.reverse();
        }
        rows.retain(|row| {
            query.after.as_ref().is_none_or(|(value, key)| {
                let (row, after) = ((&row.value[..], &row.key), (indexed(value), key));
                if query.descending { row < after } else { row > after }
            })
        });
        rows.truncate(query.limit);
        bounded(rows, |row| row.message.size())
    }

    pub fn list_view(&self, view: &str, after: Option<&str>, limit: usize) -> Vec<RowChange> {
        let later = self.views.iter().filter(|((name, key), _)| {
            name == view && after.is_none_or(|after| key.as_str() > after)
        });
        let change = |((view, key), row): (&(String, String), &NewRow)| {
            let mut row = row.clone();
            row.index.iter_mut().for_each(|(_, value)| value.truncate(indexed(value).len()));
            row.index.sort();
            RowChange { view: view.clone(), key: key.clone(), row: Some(row) }
        };
        bounded(later.map(change).take(limit).collect(), RowChange::size)
    }

    pub fn views(&self, after: Option<&str>, limit: usize) -> Vec<String> {
        let mut names: Vec<String> = self.views.keys().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names.retain(|name| after.is_none_or(|after| name.as_str() > after));
        names.truncate(limit);
        names
    }

    pub fn delete_view(&mut self, view: &str) {
        self.views.retain(|(name, _), _| name != view);
    }
}

/// The first rows, until they take as many bytes as one read may.
fn bounded<T>(mut rows: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut sum = 0;
    let within = rows.iter().take_while(|row| {
        let is_within = sum < ROWS_READ_BYTES_MAX;
        sum += bytes(row);
        is_within
    });
    let count = within.count();
    rows.truncate(count);
    rows
}
