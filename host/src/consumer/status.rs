//! What operators see of groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consumer::group::by_partition;
use crate::consumer::subscription::Subscription;
use crate::consumer::{Consumers, behind};
use crate::journal::{Laggard, Partition, StoreError};
use crate::words::limits;

/// A group, over all partitions: what the store has of it.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    pub group: Arc<str>,
    /// The journal whose events it consumes, and the service that does; none if none is live.
    pub live: Option<(String, String)>,
    pub is_view: bool,
    /// Of a view: whether its rows are the ones that are served here.
    pub is_serving: bool,
    /// Events that are in the feed, of this log or another, and have not been gone over.
    pub behind: u64,
    pub laggards: Vec<Laggard>,
    /// More lag behind than are listed.
    pub more_laggards: bool,
}

impl Consumers {
    /// Every group that is live or has a position, by name.
    pub async fn status(&self) -> Result<Vec<GroupStatus>, StoreError> {
        let inner = &self.inner;
        let live = Subscription::all(&inner.registry.live());
        let mut groups: BTreeMap<Arc<str>, Option<Subscription>> = BTreeMap::new();
        for group in inner.journal.groups(None, limits::CONSUMER_GROUPS_MAX * 4).await? {
            groups.insert(group.into(), None);
        }
        groups.extend(live.into_iter().map(|(group, subscription)| (group, Some(subscription))));
        let ends = inner.journal.feed_ends().await?;
        let partitions: Vec<Partition> = ends.iter().map(|end| end.partition).collect();
        let mut status = Vec::with_capacity(groups.len());
        for (group, subscription) in groups {
            let positions = by_partition(inner.journal.group_positions(&group).await?);
            let most = limits::LAGGARDS_SHOWN_MAX;
            let mut laggards = inner.journal.laggards(&group, &partitions, most + 1).await?;
            let more_laggards = laggards.len() > most;
            laggards.truncate(most);
            laggards.retain(|laggard| laggard.tries > 0);
            status.push(GroupStatus {
                live: subscription
                    .as_ref()
                    .map(|live| (live.log.to_string(), live.service().to_string())),
                is_view: group.starts_with("view:"),
                is_serving: inner.views.is_serving(&group),
                behind: behind(&ends, &positions),
                laggards,
                more_laggards,
                group,
            });
        }
        Ok(status)
    }
}
