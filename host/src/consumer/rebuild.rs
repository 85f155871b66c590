//! Which rows of a view are served. A view with a new version is made beside the old one, which is served as
//! it was when its module went, until the new one has caught up with the journals. Then the old rows go.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use crate::consumer::group::by_partition;
use crate::consumer::subscription::view_group;
use crate::consumer::{Inner, behind};
use crate::journal::{GroupPosition, Journal, StoreError};
use crate::words::clock::{self, Instant};
use crate::words::limits;

pub struct Rebuild {
    inner: Weak<Inner>,
    /// Groups that had caught up once: they stay in service if they fall behind later.
    caught_up: HashSet<String>,
    /// Of groups that are being made: where the journals ended at the look before.
    ends: HashMap<String, Vec<GroupPosition>>,
    /// Since when the rows of a group are superseded.
    superseded: HashMap<String, Instant>,
}

impl Rebuild {
    pub fn new(inner: &Arc<Inner>) -> Self {
        let inner = Arc::downgrade(inner);
        Self { inner, caught_up: HashSet::new(), ends: HashMap::new(), superseded: HashMap::new() }
    }

    pub async fn run(mut self) {
        loop {
            let Some(inner) = self.inner.upgrade() else { return };
            let mut revisions = inner.registry.watch();
            let wait = match self.step(&inner).await {
                Ok(true) => limits::VIEW_BUILDING_LOOK_EVERY,
                Ok(false) => limits::VIEW_LOOK_EVERY,
                Err(error) => {
                    tracing::warn!(%error, "cannot tell yet which rows of views to serve");
                    limits::VIEW_BUILDING_LOOK_EVERY
                }
            };
            drop(inner);
            // An error is the end of the registry, which the next round notices.
            let _ = tokio::time::timeout(wait, revisions.changed()).await;
        }
    }

    /// True: something is being built, or waits to be deleted.
    async fn step(&mut self, inner: &Inner) -> Result<bool, StoreError> {
        let live = inner.registry.live();
        let views: Vec<(&str, u32)> = live
            .services
            .values()
            .filter_map(|service| Some((service.name.as_str(), service.view.as_ref()?.version)))
            .collect();
        if views.is_empty() {
            inner.views.serve(HashMap::new());
            return Ok(false);
        }
        let groups = inner.journal.groups(None, limits::CONSUMER_GROUPS_MAX * 4).await?;
        let mut serving = HashMap::new();
        let mut is_busy = false;
        let views: Vec<_> = views
            .into_iter()
            .map(|(service, version)| (service, view_group(service, version)))
            .collect();
        self.forget_all_but(&views);
        for (service, current) in views {
            let prefix = format!("view:{service}@");
            let others: Vec<&String> = groups
                .iter()
                .filter(|group| group.starts_with(&prefix) && **group != current)
                .collect();
            let rows = match newest(&others) {
                Some(old) if !self.has_caught_up(&inner.journal, &current).await? => {
                    is_busy = true;
                    old.as_str()
                }
                _ => &current,
            };
            serving.insert(service.to_owned(), rows.into());
            if rows == current && !others.is_empty() {
                is_busy = true;
                self.delete(inner, &others).await?;
            }
        }
        inner.views.serve(serving);
        Ok(is_busy)
    }

    /// A version that comes back after its rows have gone begins as one that never was.
    fn forget_all_but(&mut self, views: &[(&str, String)]) {
        let is_current = |group: &String| views.iter().any(|(_, current)| current == group);
        self.caught_up.retain(is_current);
        self.ends.retain(|group, _| is_current(group));
        self.superseded.retain(|group, _| !is_current(group));
    }

    async fn has_caught_up(&mut self, journal: &Journal, group: &str) -> Result<bool, StoreError> {
        if self.caught_up.contains(group) {
            return Ok(true);
        }
        let positions = by_partition(journal.group_positions(group).await?);
        let ends = journal.feed_ends().await?;
        // While events keep coming, no look would find it at the very end.
        let before = self.ends.get(group).unwrap_or(&ends);
        let behind = behind(before, &positions);
        self.ends.insert(group.to_owned(), ends);
        if behind == 0 {
            tracing::info!(group, "a view has been made anew and is served from now on");
            self.caught_up.insert(group.to_owned());
            self.ends.remove(group);
        } else {
            tracing::info!(group, behind, "a view is being made anew");
        }
        Ok(behind == 0)
    }

    /// Other nodes may serve the old rows for a moment longer.
    async fn delete(&mut self, inner: &Inner, groups: &[&String]) -> Result<(), StoreError> {
        let holdings = inner.journal.holdings();
        for group in groups {
            let now = clock::now();
            let since = *self.superseded.entry((*group).clone()).or_insert(now);
            // One node of a cluster does it.
            let is_mine = holdings.epoch(crate::words::Shard(0)).is_some();
            if is_mine && now - since >= limits::VIEW_SUPERSEDED_KEPT {
                inner.journal.delete_view(group).await?;
                inner.journal.delete_group(group).await?;
                tracing::info!(group = group.as_str(), "the old rows of a view are gone");
                self.superseded.remove(*group);
            }
        }
        Ok(())
    }
}

/// The one with the highest version.
fn newest<'g>(groups: &[&'g String]) -> Option<&'g String> {
    let version = |group: &&&String| {
        group.rsplit_once('@').and_then(|(_, version)| version.parse::<u32>().ok())
    };
    groups.iter().max_by_key(version).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_rows_are_those_with_the_highest_number() {
        let groups = ["view:a.V@9".to_owned(), "view:a.V@10".to_owned(), "view:a.V@2".to_owned()];
        assert_eq!(newest(&groups.iter().collect::<Vec<_>>()), Some(&groups[1]));
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn a_version_that_comes_back_has_to_catch_up_anew() {
        let (first, second) = ("view:V@1".to_owned(), "view:V@2".to_owned());
        let mut rebuild = Rebuild {
            inner: Weak::new(),
            caught_up: [second.clone()].into(),
            ends: HashMap::from([(second.clone(), Vec::new())]),
            superseded: HashMap::from([(first.clone(), clock::now())]),
        };
        rebuild.forget_all_but(&[("V", second.clone())]);
        assert!(rebuild.caught_up.contains(&second) && rebuild.ends.contains_key(&second));
        assert!(rebuild.superseded.contains_key(&first));
        rebuild.forget_all_but(&[("V", first)]);
        assert!(rebuild.caught_up.is_empty() && rebuild.ends.is_empty());
        assert!(rebuild.superseded.is_empty());
    }
}
