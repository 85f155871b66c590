//! What a store keeps beside journals: effects, timers, groups of consumers, and rows of views.

use std::collections::HashMap;

use crate::journal::StoreError;
use crate::journal::copy::{Copy, CopyError, different};
use crate::journal::store::{
    Consumed, EffectId, Fence, GroupPosition, Laggard, NewEffect, OutboxRow, Partition, RowChange,
    Store, Task, TimerChange, TimerRow,
};
use crate::words::limits::{COPY_LAGGARDS_MAX, LIST_PAGE_MAX};
use crate::words::{Address, Shard};

/// A group whose entities have all been consumed, but for those that lag behind.
pub struct Group {
    name: String,
    laggards: Vec<Laggard>,
}

impl<S: Store, T: Store, F: Fn(Shard) -> Fence> Copy<'_, S, T, F> {
    /// Fails if one of them has more to consume.
    pub async fn groups_of_source(&self) -> Result<Vec<Group>, CopyError> {
        let mut groups = Vec::new();
        let ends = self.source.feed_ends().await.map_err(CopyError::Source)?;
        let partitions: Vec<Partition> = ends.iter().map(|end| end.partition).collect();
        for name in names(self.source).await.map_err(CopyError::Source)? {
            let positions = self.source.group_positions(&name).await.map_err(CopyError::Source)?;
            if let Some(problem) = behind(&positions, &ends) {
                return Err(CopyError::Behind { group: name, problem });
            }
            let laggards = self.source.laggards(&name, &partitions, COPY_LAGGARDS_MAX + 1).await;
            let laggards = laggards.map_err(CopyError::Source)?;
            if laggards.len() > COPY_LAGGARDS_MAX {
                let problem = format!("has more than {COPY_LAGGARDS_MAX} entities that lag behind");
                return Err(CopyError::Behind { group: name, problem });
            }
            groups.push(Group { name, laggards });
        }
        Ok(groups)
    }

    pub async fn effects(&mut self) -> Result<(), CopyError> {
        for is_parked in [false, true] {
            let mut after = None;
            loop {
                let page = effects(self.source, is_parked, after).await;
                let page = page.map_err(CopyError::Source)?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                for row in page {
                    let seq = self.seq(&row.source).await?;
                    let mut write = self.write(&row.source, seq, row.call.created_ms);
                    write.effects.push(NewEffect { id: row.id, call: row.call });
                    self.queue(write).await?;
                    self.counts.effects += 1;
                }
            }
        }
        Ok(())
    }

    pub async fn timers(&mut self) -> Result<(), CopyError> {
        let mut after: Option<TimerRow> = None;
        loop {
            let page = self.source.list_timers(after.as_ref().map(place), LIST_PAGE_MAX).await;
            let page = page.map_err(CopyError::Source)?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            after = Some(last);
            for row in page {
                let seq = self.seq(&row.address).await?;
                let mut write = self.write(&row.address, seq, 0);
                write.timers.push(TimerChange { name: row.name, set: Some(row.timer) });
                self.queue(write).await?;
                self.counts.timers += 1;
            }
        }
    }

    /// What became of effects and timers so far. They have to be stored before.
    pub async fn tries(&mut self) -> Result<(), CopyError> {
        for is_parked in [false, true] {
            let mut after = None;
            loop {
                let page = effects(self.source, is_parked, after).await;
                let page = page.map_err(CopyError::Source)?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                for OutboxRow { source, id, tries, due_ms, error, .. } in page {
                    let fence = self.fence_of(&source);
                    if is_parked {
                        self.chore(fence, Task::EffectPark { id, tries, error }).await?;
                    } else if tries > 0 {
                        self.chore(fence, Task::EffectLater { id, tries, due_ms, error }).await?;
                    }
                }
            }
        }
        let mut after: Option<TimerRow> = None;
        loop {
            let page = self.source.list_timers(after.as_ref().map(place), LIST_PAGE_MAX).await;
            let page = page.map_err(CopyError::Source)?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            after = Some(last);
            for TimerRow { address, name, timer, tries, error, .. } in page {
                if tries > 0 {
                    let fence = self.fence_of(&address);
                    let (token, due_ms) = (timer.token, timer.due_ms);
                    let later = Task::TimerLater { address, name, token, due_ms, tries, error };
                    self.chore(fence, later).await?;
                }
            }
        }
    }

    pub async fn view_rows(&mut self) -> Result<(), CopyError> {
        for view in views(self.source).await.map_err(CopyError::Source)? {
            let mut after: Option<String> = None;
            loop {
                let page = self.source.list_view(&view, after.as_deref(), LIST_PAGE_MAX).await;
                let page = page.map_err(CopyError::Source)?;
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                for row in page {
                    // Any shard may write it; this spreads them.
                    let fence = self.fence_of(&Address::new(&*row.view, &*row.key));
                    self.chore(fence, Task::ViewRows(vec![row])).await?;
                    self.counts.view_rows += 1;
                }
            }
        }
        Ok(())
    }

    /// Every group goes on behind the newest event. All events have to be stored before.
    pub async fn groups(&mut self, groups: &[Group]) -> Result<(), CopyError> {
        let ends = self.target.feed_ends().await.map_err(CopyError::Target)?;
        for group in groups {
            let mut laggards: HashMap<Partition, Vec<Laggard>> = HashMap::new();
            for laggard in &group.laggards {
                let shard = laggard.address.shard(self.target.shards());
                let number = if self.target.partitions() == 1 { 0 } else { shard.0 };
                laggards.entry(Partition(number)).or_default().push(laggard.clone());
            }
            for GroupPosition { partition, off } in &ends {
                let step = Consumed {
                    group: group.name.clone(),
                    partition: *partition,
                    expected_off: 0,
                    off: *off,
                    laggards: laggards.remove(partition).unwrap_or_default(),
                    ..Consumed::default()
                };
                self.chore((self.fence)(Shard(partition.0)), Task::Consumed(step)).await?;
            }
            self.counts.groups += 1;
        }
        self.flush_all().await
    }

    pub async fn compare_groups(&self) -> Result<(), CopyError> {
        let source = names(self.source).await.map_err(CopyError::Source)?;
        match names(self.target).await.map_err(CopyError::Target)? == source {
            true => Ok(()),
            false => Err(different("the list of consumer groups")),
        }
    }

    pub async fn compare_effects(&self) -> Result<(), CopyError> {
        let plain = |rows: Vec<OutboxRow>| {
            rows.into_iter().map(|row| OutboxRow { shard: Shard(0), ..row }).collect::<Vec<_>>()
        };
        for is_parked in [false, true] {
            let mut after = None;
            loop {
                let source = effects(self.source, is_parked, after).await;
                let source = plain(source.map_err(CopyError::Source)?);
                // Pages of two stores may end at different effects.
                let mut copied = Vec::new();
                loop {
                    let from = copied.last().map_or(after, |last: &OutboxRow| Some(last.id));
                    let page = effects(self.target, is_parked, from).await;
                    let page = plain(page.map_err(CopyError::Target)?);
                    let is_last = page.is_empty();
                    copied.extend(page);
                    if is_last || copied.len() >= source.len() {
                        break;
                    }
                }
                let Some(last) = source.last() else {
                    match copied.is_empty() {
                        true => break,
                        false => return Err(different("the list of effects")),
                    }
                };
                after = Some(last.id);
                copied.truncate(source.len());
                if source != copied {
                    return Err(different("the list of effects"));
                }
            }
        }
        Ok(())
    }

    pub async fn compare_timers(&self) -> Result<(), CopyError> {
        let plain = |rows: Vec<TimerRow>| {
            rows.into_iter().map(|row| TimerRow { shard: Shard(0), ..row }).collect::<Vec<_>>()
        };
        let mut after: Option<TimerRow> = None;
        loop {
            let source = self.source.list_timers(after.as_ref().map(place), LIST_PAGE_MAX).await;
            let target = self.target.list_timers(after.as_ref().map(place), LIST_PAGE_MAX).await;
            let source = plain(source.map_err(CopyError::Source)?);
            if source != plain(target.map_err(CopyError::Target)?) {
                return Err(different("the list of timers"));
            }
            let Some(last) = source.last().cloned() else { return Ok(()) };
            after = Some(last);
        }
    }

    pub async fn compare_views(&self) -> Result<(), CopyError> {
        let all = views(self.source).await.map_err(CopyError::Source)?;
        if views(self.target).await.map_err(CopyError::Target)? != all {
            return Err(different("the list of views"));
        }
        for view in all {
            let mut after: Option<String> = None;
            loop {
                let source = self.source.list_view(&view, after.as_deref(), LIST_PAGE_MAX).await;
                let target = self.target.list_view(&view, after.as_deref(), LIST_PAGE_MAX).await;
                let source: Vec<RowChange> = source.map_err(CopyError::Source)?;
                if source != target.map_err(CopyError::Target)? {
                    return Err(different(&format!("the rows of the view {view}")));
                }
                let Some(last) = source.last() else { break };
                after = Some(last.key.clone());
            }
        }
        Ok(())
    }

    async fn seq(&self, address: &Address) -> Result<crate::words::Seq, CopyError> {
        Ok(self.source.load(address, None).await.map_err(CopyError::Source)?.seq)
    }
}

/// What a group has to consume yet, if it has.
fn behind(positions: &[GroupPosition], ends: &[GroupPosition]) -> Option<String> {
    ends.iter().find_map(|end| {
        let position = positions.iter().find(|position| position.partition == end.partition);
        let partition = end.partition;
        match position {
            Some(position) if position.off >= end.off => None,
            Some(position) => Some(format!(
                "is at place {} of {} in partition {partition}",
                position.off, end.off
            )),
            None if end.off == 1 => None,
            None => Some(format!("has not begun in partition {partition}")),
        }
    })
}

async fn effects(
    store: &impl Store,
    is_parked: bool,
    after: Option<EffectId>,
) -> Result<Vec<OutboxRow>, StoreError> {
    if is_parked {
        return store.dead_letters(after, LIST_PAGE_MAX).await;
    }
    let shards: Vec<Shard> = (0..store.shards()).map(Shard).collect();
    store.outbox(&shards, after, LIST_PAGE_MAX).await
}

async fn names(store: &impl Store) -> Result<Vec<String>, StoreError> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let page = store.groups(all.last().map(String::as_str), LIST_PAGE_MAX).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

async fn views(store: &impl Store) -> Result<Vec<String>, StoreError> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let page = store.views(all.last().map(String::as_str), LIST_PAGE_MAX).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn place(last: &TimerRow) -> (&Address, &str) {
    (&last.address, &last.name)
}
