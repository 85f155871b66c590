//! The store of a cluster: PostgreSQL, or a database that speaks its language.
//!
//! Every batch is one statement that checks the shards' epochs and the entities' numbers, hands out
//! offsets, and stores the rows: all of it or nothing. When the answer to one is lost, the shards' epochs are
//! stepped before anything else is said, so that the statement cannot be carried out later.

mod append;
mod aside;
mod catalogue;
mod claim;
mod draft;
mod fault;
mod feed;
mod fenced;
mod loss;
mod open;
mod outbox;
mod read;
mod reconcile;
mod sweep;
mod views;

#[cfg(test)]
#[path = "../../../tests/src/postgres.rs"]
pub mod server;
#[cfg(test)]
pub mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::journal::error::{OpenError, StoreError};
use crate::journal::holdings::Holdings;
use crate::journal::postgres::append::Lane;
use crate::journal::postgres::fenced::Question;
use crate::journal::postgres::sweep::Superfluous;
use crate::journal::store::{
    Chore, DeploymentRecord, DueTimer, EffectId, EntityFilter, EntityPage, EventPage, FeedPage,
    Fence, GroupPosition, Laggard, Loaded, ModuleRecord, OutboxRow, Partition, Receipt, RowChange,
    Store, TimerRow, ViewQuery, ViewRow, Write,
};
use crate::words::config::Secret;
use crate::words::limits::{
    STORE_BACKOFF_MAX, STORE_BACKOFF_MIN, STORE_CLOSE_MAX, STORE_FEED_READERS,
    STORE_FENCES_AT_ONCE_MAX, STORE_LANES_MAX, STORE_LANES_MIN, STORE_LIST_READERS,
    STORE_PRUNE_QUEUE_MAX, STORE_READERS,
};
use crate::words::telemetry::Metrics;
use crate::words::{Address, Digest, JournalName, Seq, Shard};

pub use claim::Claim;
pub use open::{Place, admit, prepare};

/// What never changes in the life of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Random.
    pub cluster_id: [u8; 16],
    pub shards: u32,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct PgStore(Arc<Inner>);

struct Inner {
    place: Place,
    holdings: Holdings,
    metrics: Metrics,
    /// A shard's writes go through the lane of its number modulo their count.
    lanes: Vec<Mutex<Lane>>,
    readers: PgPool,
    listers: PgPool,
    questions: mpsc::Sender<Question>,
    /// For consumers and views: they must not keep an entity from being activated either.
    feeders: PgPool,
    /// Entities that have more snapshots or events than they need.
    prune: mpsc::Sender<Superfluous>,
    closed: AtomicBool,
}

impl PgStore {
    /// Opens the journal of a cluster that [`prepare`] has made ready. `holdings` has the cluster's number of
    /// shards, and hears of epochs that the store steps. Connects once, so that a database that cannot be
    /// used is known at the start.
    pub async fn open(
        url: &Secret,
        holdings: Holdings,
        metrics: Metrics,
    ) -> Result<Self, OpenError> {
        let place = Place::parse(url)?;
        let first = place.connect().await.map_err(|error| place.failed(error))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let count = processors.clamp(STORE_LANES_MIN, STORE_LANES_MAX);
        let mut lanes: Vec<Lane> = (0..count).map(|_| Lane::default()).collect();
        lanes[0].put_back(first);
        let (questions, asked) = mpsc::channel(STORE_FENCES_AT_ONCE_MAX);
        let (prune, pruned) = mpsc::channel(STORE_PRUNE_QUEUE_MAX);
        let readers = place.pool(STORE_READERS);
        let listers = place.pool(STORE_LIST_READERS);
        let feeders = place.pool(STORE_FEED_READERS);
        tokio::spawn(fenced::answer(readers.clone(), asked));
        tokio::spawn(sweep::keep(listers.clone(), holdings.clone(), pruned));
        let inner = Arc::new(Inner {
            place,
            holdings,
            metrics,
            lanes: lanes.into_iter().map(Mutex::new).collect(),
            readers,
            listers,
            feeders,
            questions,
            prune,
            closed: AtomicBool::new(false),
        });
        tokio::spawn(loss::watch(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// A new connection to the same database, with the host's settings; fails within
    /// [`STORE_CONNECT_MAX`](crate::words::limits::STORE_CONNECT_MAX).
    pub async fn connection(&self) -> Result<PgConnection, sqlx::Error> {
        self.0.place.connect().await
    }

    /// Host, port and database, without credentials.
    pub fn name(&self) -> &str {
        &self.0.place.name
    }
}

impl Inner {
    fn refuse_if_closed(&self) -> Result<(), StoreError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(StoreError::Poisoned { reason: "the store is closed".into() }),
            false => Ok(()),
        }
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let close = async {
            for lane in &self.lanes {
                lane.lock().await.close().await;
            }
            self.readers.close().await;
            self.listers.close().await;
            self.feeders.close().await;
        };
        // What does not end in time ends with the process; nothing is lost with a connection.
        if timeout(STORE_CLOSE_MAX, close).await.is_err() {
            tracing::debug!("connections to the database were not closed in time");
        }
    }
}

/// How long to wait before the next attempt: twice as long each time, and different for everybody.
fn backoff(attempt: u32) -> Duration {
    let most = (STORE_BACKOFF_MIN * (1 << attempt.min(16))).min(STORE_BACKOFF_MAX);
    let mut random = [0; 1];
    // Without random numbers there is no spread, which is all that they are for.
    let _ = getrandom::fill(&mut random);
    most.mul_f64(0.5 + f64::from(random[0]) / 512.0)
}

impl Store for PgStore {
    fn lanes(&self) -> usize {
        self.0.lanes.len()
    }

    async fn commit(&self, batch: &[Write], chores: &[Chore]) -> Result<Vec<Fence>, StoreError> {
        self.0.commit(batch, chores, false).await
    }

    async fn import(&self, batch: &[Write]) -> Result<Vec<Fence>, StoreError> {
        self.0.commit(batch, &[], true).await
    }

    fn shards(&self) -> u32 {
        self.0.holdings.shards()
    }

    async fn fenced(&self, fences: &[Fence]) -> Result<Vec<Shard>, StoreError> {
        fenced::ask(&self.0.questions, fences).await
    }

    async fn load(&self, address: &Address, at: Option<Seq>) -> Result<Loaded, StoreError> {
        read::load(&self.0, address, at).await
    }

    async fn events(
        &self,
        address: &Address,
        from: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<EventPage, StoreError> {
        read::events(&self.0, address, from, limit, bytes_max).await
    }

    async fn receipt(
        &self,
        address: &Address,
        key: &str,
        now_ms: u64,
    ) -> Result<Option<Receipt>, StoreError> {
        read::receipt(&self.0, address, key, now_ms).await
    }

    async fn receipts(
        &self,
        after: Option<(&Address, &str)>,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<(Address, Receipt)>, StoreError> {
        read::receipts(&self.0, after, now_ms, limit).await
    }

    async fn entities(&self, filter: &EntityFilter) -> Result<EntityPage, StoreError> {
        read::entities(&self.0, filter).await
    }

    async fn count_entities(
        &self,
        journal: &JournalName,
        limit: usize,
    ) -> Result<usize, StoreError> {
        read::count_entities(&self.0, journal, limit).await
    }

    fn partitions(&self) -> u32 {
        self.0.holdings.shards()
    }

    async fn outbox(
        &self,
        shards: &[Shard],
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        outbox::outbox(&self.0, shards, after, limit).await
    }

    async fn dead_letters(
        &self,
        after: Option<EffectId>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        outbox::dead_letters(&self.0, after, limit).await
    }

    async fn effect(&self, id: EffectId) -> Result<Option<OutboxRow>, StoreError> {
        outbox::effect(&self.0, id).await
    }

    async fn outbox_of(
        &self,
        source: &Address,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        outbox::outbox_of(&self.0, source, limit).await
    }

    async fn timers(
        &self,
        shards: &[Shard],
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        outbox::timers(&self.0, shards, until_ms, limit).await
    }

    async fn timers_of(
        &self,
        address: &Address,
        limit: usize,
    ) -> Result<Vec<TimerRow>, StoreError> {
        outbox::timers_of(&self.0, address, None, limit).await
    }

    async fn timer(&self, address: &Address, name: &str) -> Result<Option<TimerRow>, StoreError> {
        Ok(outbox::timers_of(&self.0, address, Some(name), 1).await?.pop())
    }

    async fn list_timers(
        &self,
        after: Option<(&Address, &str)>,
        limit: usize,
    ) -> Result<Vec<TimerRow>, StoreError> {
        outbox::list_timers(&self.0, after, limit).await
    }

    async fn feed(
        &self,
        partition: Partition,
        from_off: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<FeedPage, StoreError> {
        feed::feed(&self.0, partition, from_off, limit, bytes_max).await
    }

    async fn feed_ends(&self) -> Result<Vec<GroupPosition>, StoreError> {
        feed::ends(&self.0).await
    }

    async fn groups(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        feed::groups(&self.0, after, limit).await
    }

    async fn group_positions(&self, group: &str) -> Result<Vec<GroupPosition>, StoreError> {
        feed::positions(&self.0, group).await
    }

    async fn laggards(
        &self,
        group: &str,
        partitions: &[Partition],
        limit: usize,
    ) -> Result<Vec<Laggard>, StoreError> {
        feed::laggards(&self.0, group, partitions, limit).await
    }

    async fn delete_group(&self, group: &str) -> Result<(), StoreError> {
        feed::delete_group(&self.0, group).await
    }

    async fn view_row(&self, view: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
        views::row(&self.0, view, key).await
    }

    async fn view_rows(&self, view: &str, query: &ViewQuery) -> Result<Vec<ViewRow>, StoreError> {
        views::rows(&self.0, view, query).await
    }

    async fn list_view(
        &self,
        view: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RowChange>, StoreError> {
        views::list(&self.0, view, after, limit).await
    }

    async fn views(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        views::names(&self.0, after, limit).await
    }

    async fn delete_view(&self, view: &str) -> Result<(), StoreError> {
        views::delete(&self.0, view).await
    }

    async fn put_module(&self, record: &ModuleRecord, bytes: &Bytes) -> Result<(), StoreError> {
        catalogue::put_module(&self.0.listers, record, bytes).await
    }

    async fn module(&self, digest: &Digest) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
        catalogue::module(&self.0.listers, digest).await
    }

    async fn modules(&self) -> Result<Vec<ModuleRecord>, StoreError> {
        catalogue::modules(&self.0.listers).await
    }

    async fn put_deployment(&self, record: &DeploymentRecord) -> Result<(), StoreError> {
        catalogue::put_deployment(&self.0.listers, record).await
    }

    async fn deployments(&self) -> Result<Vec<DeploymentRecord>, StoreError> {
        catalogue::deployments(&self.0.listers).await
    }

    async fn newest_deployment(&self) -> Result<Option<DeploymentRecord>, StoreError> {
        catalogue::newest_deployment(&self.0.listers).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
