//! Floor 6: who reads the journals: groups of consumers, and views, which are consumers that keep rows.
//!
//! A *group* reads the events of one entity type in the order of the feed, partition by partition, each on
//! the node that holds the partition's shard. Its position is stored under the shard's fence, a view's rows
//! in the same transaction. Within a page of the feed, entities are independent of each other: events of one
//! entity are consumed in their order, those of several at once.
//!
//! An entity whose event fails becomes a *laggard*: the group goes on without it, and comes back to it later
//! and later, until it has caught up or an operator has the event skipped.

mod delete;
mod feed;
mod group;
mod orders;
mod page;
mod partition;
mod query;
mod rebuild;
mod status;
mod subscription;
mod target;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::consumer::group::Group;
use crate::consumer::orders::Order;
use crate::consumer::rebuild::Rebuild;
use crate::consumer::subscription::Subscription;
use crate::entity::Caller;
use crate::journal::{GroupPosition, Journal, Partition};
use crate::registry::{Registry, Start};
use crate::words::telemetry::Metrics;
use crate::words::{Address, Seq, Status, limits};

pub use feed::{FedEvent, Feed, FeedFilter, FeedStart};
pub use query::Views;
pub use status::GroupStatus;
pub use target::cloud_event;

/// Everything of this node that reads journals. Cheap to clone.
#[derive(Clone)]
pub struct Consumers {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    journal: Journal,
    metrics: Metrics,
    caller: Arc<dyn Caller>,
    views: Views,
    readers: Mutex<HashMap<Arc<str>, Running>>,
}

/// A group that reads on this node.
struct Running {
    subscription: watch::Sender<Subscription>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Consumers {
    /// Starts the groups of the live modules, and follows deployments.
    pub fn start(
        registry: &Registry,
        journal: &Journal,
        caller: Arc<dyn Caller>,
        views: Views,
        metrics: Metrics,
    ) -> Self {
        let inner = Arc::new(Inner {
            registry: registry.clone(),
            journal: journal.clone(),
            metrics,
            caller,
            views,
            readers: Mutex::default(),
        });
        tokio::spawn(follow(Arc::downgrade(&inner), inner.registry.watch()));
        tokio::spawn(Rebuild::new(&inner).run());
        Self { inner }
    }

    /// Makes a group begin again in those of the partitions that this node reads; in all that it reads, if
    /// none is named. Returns which these are.
    ///
    /// # Errors
    ///
    /// NOT_FOUND if no live service has the group, FAILED_PRECONDITION for a view, UNAVAILABLE.
    pub async fn reset(
        &self,
        group: &str,
        to: Start,
        partitions: Vec<Partition>,
    ) -> Result<Vec<Partition>, Status> {
        if group.starts_with("view:") {
            return Err(Status::failed_precondition(format!(
                "{group} is a view; it is made anew when a module with another version of it is deployed"
            )));
        }
        self.order(group, |done| Order::Reset { to, partitions, done }).await
    }

    /// Lets a group go on behind an event that it cannot consume. To be asked of the node that holds the
    /// entity's shard.
    ///
    /// # Errors
    ///
    /// NOT_FOUND if no live service has the group, FAILED_PRECONDITION if it is another event that fails, or
    /// none, UNAVAILABLE.
    pub async fn skip(&self, group: &str, address: Address, seq: Seq) -> Result<(), Status> {
        self.order(group, |done| Order::Skip { address, seq, done }).await
    }

    async fn order<T>(
        &self,
        group: &str,
        order: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> Order,
    ) -> Result<T, Status> {
        let orders = self.inner.readers.lock().get(group).map(|running| running.orders.clone());
        let Some(orders) = orders else {
            return Err(Status::not_found(format!(
                "nothing that is deployed consumes as {group:?}; `stead consumers list` shows what does"
            )));
        };
        let (done, answer) = oneshot::channel();
        let sent = orders.send(order(done)).await.is_ok();
        match answer.await {
            Ok(result) if sent => result,
            _ => Err(Status::unavailable("the group has just ended here; try again")),
        }
    }

    /// The journal of the events that a live group consumes.
    pub fn log_of(&self, group: &str) -> Option<crate::words::JournalName> {
        let readers = self.inner.readers.lock();
        readers.get(group).map(|running| running.subscription.borrow().log.clone())
    }

    /// Ends all groups: nothing is read any more. What was consumed and not stored will be consumed again.
    pub fn stop(&self) {
        self.inner.readers.lock().clear();
    }
}

impl Inner {
    fn take_up(&self) {
        let wanted = Subscription::all(&self.registry.live());
        let mut readers = self.readers.lock();
        readers.retain(|group, _| wanted.contains_key(group));
        for (group, subscription) in wanted {
            if let Some(running) = readers.get(&group) {
                let is_same = running.subscription.borrow().is_same(&subscription);
                if !is_same {
                    running.subscription.send_replace(subscription);
                }
                continue;
            }
            tracing::info!(group = &*group, log = %subscription.log, "a group begins to consume");
            readers.insert(group, self.begin(subscription));
        }
    }

    fn begin(&self, subscription: Subscription) -> Running {
        let subscription = watch::Sender::new(subscription);
        let (orders, obeyed) = mpsc::channel(limits::CONSUMER_ORDERS_MAX);
        let group = Group {
            subscription: subscription.subscribe(),
            caller: self.caller.clone(),
            journal: self.journal.clone(),
            metrics: self.metrics.clone(),
            orders: obeyed,
        };
        Running { subscription, orders, task: tokio::spawn(group.run()) }
    }
}

async fn follow(inner: Weak<Inner>, mut revisions: watch::Receiver<crate::words::Revision>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        inner.take_up();
        drop(inner);
        if revisions.changed().await.is_err() {
            return;
        }
    }
}

/// Events of the feed that a group has not gone over.
fn behind(ends: &[GroupPosition], positions: &HashMap<Partition, u64>) -> u64 {
    let position = |end: &GroupPosition| positions.get(&end.partition).copied().unwrap_or(1);
    ends.iter().map(|end| end.off.saturating_sub(position(end))).sum()
}

#[cfg(test)]
mod tests;
