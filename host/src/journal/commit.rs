//! Group commit: one task writes what all entities have to write.
//!
//! A batch closes when the commit before it returns: it takes whatever has been queued meanwhile. So
//! a lonely write waits for nobody, and a crowd shares one sync of the disk.

mod batch;
mod reads;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{SetOnce, mpsc, oneshot};

use crate::journal::commit::batch::{Batch, Promise};
use crate::journal::error::{AppendError, StoreError};
use crate::journal::holdings::Holdings;
use crate::journal::memory::MemoryStore;
use crate::journal::news::FeedNews;
use crate::journal::postgres::PgStore;
use crate::journal::sqlite::SqliteStore;
use crate::journal::store::{Chore, Fence, Store, Write};
use crate::words::clock;
use crate::words::limits::{COMMIT_QUEUE_BYTES_MAX, COMMIT_QUEUE_MAX, COMMIT_STALLED_AFTER};
use crate::words::telemetry::Metrics;

/// A write on its way to the disk. Cheap to clone; many may wait for the same.
#[derive(Clone, Debug)]
pub struct Commit(Arc<Cell>);

#[derive(Debug, Default)]
struct Cell {
    outcome: SetOnce<Result<(), AppendError>>,
    /// Of a write that was refused out of its turn: the newest of its entity that was on its way then.
    older: OnceLock<Commit>,
}

impl Commit {
    /// The outcome, if it is known already.
    pub fn outcome(&self) -> Option<Result<(), AppendError>> {
        self.0.outcome.get().cloned()
    }

    /// Returns when the write is durable, or has failed.
    pub async fn wait(&self) -> Result<(), AppendError> {
        self.0.outcome.wait().await.clone()
    }

    /// Whether this write and all before it of its entity have an outcome: one that is refused may have its own
    /// while an older one is on its way.
    pub fn has_ended(&self) -> bool {
        self.0.outcome.initialized() && self.0.older.get().is_none_or(Commit::has_ended)
    }

    /// Returns when [`has_ended`](Self::has_ended) holds.
    pub async fn ended(&self) {
        let mut commit = self;
        loop {
            commit.0.outcome.wait().await;
            let Some(older) = commit.0.older.get() else { return };
            commit = older;
        }
    }
}

enum Job {
    Write(Write, Promise),
    Chore(Chore, Promise),
    Close(oneshot::Sender<()>),
}

/// The stores that there are.
#[derive(Clone)]
pub enum AnyStore {
    Memory(MemoryStore),
    Sqlite(SqliteStore),
    Postgres(PgStore),
}

/// Calls the same method of whichever store it is. Boxed: a store's futures take many kilobytes, which would be
/// moved with every command's.
macro_rules! store {
    ($store:expr, $method:ident($($argument:expr),*)) => {
        match $store {
            AnyStore::Memory(store) => Box::pin(store.$method($($argument),*)).await,
            AnyStore::Sqlite(store) => Box::pin(store.$method($($argument),*)).await,
            AnyStore::Postgres(store) => Box::pin(store.$method($($argument),*)).await,
        }
    };
}
use store;

/// The journal of a node. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    store: AnyStore,
    holdings: Holdings,
    /// A queue for each lane of the store.
    lanes: Arc<[Lane]>,
    state: Arc<State>,
    news: FeedNews,
}

struct Lane {
    jobs: mpsc::Sender<Job>,
    /// A commit of this lane has been on its way for too long: nothing is queued behind it.
    stalled: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    stopped: SetOnce<Arc<str>>,
    failed: SetOnce<Arc<str>>,
    queued_bytes: AtomicUsize,
}

impl Journal {
    /// Starts the tasks that commit, one for each lane of the store. `holdings` hears of shards that turn
    /// out to be fenced.
    pub fn start(store: AnyStore, holdings: Holdings, metrics: Metrics) -> Self {
        let state = Arc::<State>::default();
        let count = match &store {
            AnyStore::Memory(store) => store.lanes(),
            AnyStore::Sqlite(store) => store.lanes(),
            AnyStore::Postgres(store) => store.lanes(),
        };
        let news = FeedNews::new(match &store {
            AnyStore::Memory(store) => store.partitions(),
            AnyStore::Sqlite(store) => store.partitions(),
            AnyStore::Postgres(store) => store.partitions(),
        });
        let lanes = (0..count).map(|_| {
            let (jobs, queue) = mpsc::channel(COMMIT_QUEUE_MAX);
            let stalled = Arc::new(AtomicBool::new(false));
            let committer = Committer {
                store: store.clone(),
                holdings: holdings.clone(),
                queue,
                stalled: stalled.clone(),
                state: state.clone(),
                metrics: metrics.clone(),
                news: news.clone(),
            };
            tokio::spawn(committer.run());
            Lane { jobs, stalled }
        });
        let lanes = lanes.collect();
        Self { store, holdings, lanes, state, news }
    }

    /// Which shards this node holds.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Queues a write, in order: writes of one entity are stored in the order of their calls. Never
    /// waits: a queue that is full refuses the write with [`AppendError::Busy`].
    pub fn append(&self, write: Write) -> Commit {
        self.queue(|promise| Job::Write(write, promise))
    }

    /// Queues a chore, like a write: chores of one shard are stored in the order of their calls. One whose
    /// [`Consumed`](crate::journal::Consumed) expects another place fails with [`AppendError::Conflict`]. After
    /// [`AppendError::Unknown`] it may be stored, but never later than whatever comes then.
    pub fn chore(&self, chore: Chore) -> Commit {
        self.queue(|promise| Job::Chore(chore, promise))
    }

    fn queue(&self, job: impl FnOnce(Promise) -> Job) -> Commit {
        let commit = Commit(Arc::default());
        let job = job(Promise(commit.clone()));
        let (bytes, shard) = (job.bytes(), job.shard());
        let queued = self.state.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let lane = &self.lanes[shard as usize % self.lanes.len()];
        let sent = if queued > COMMIT_QUEUE_BYTES_MAX {
            job.refuse(AppendError::Busy);
            false
        } else if lane.stalled.load(Ordering::Relaxed) {
            job.refuse(AppendError::Unavailable);
            false
        } else {
            match lane.jobs.try_send(job) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(job)) => {
                    job.refuse(AppendError::Busy);
                    false
                }
                Err(mpsc::error::TrySendError::Closed(job)) => {
                    job.refuse(AppendError::Stopped { reason: self.state.reason() });
                    false
                }
            }
        };
        if !sent {
            self.state.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        commit
    }

    /// What this node has added to the feed.
    pub fn feed_news(&self) -> &FeedNews {
        &self.news
    }

    /// Why nothing is acknowledged any more, if so.
    pub fn stopped(&self) -> Option<Arc<str>> {
        self.state.stopped.get().cloned()
    }

    /// Returns when a commit has failed for good, with the reason: the node must exit. Closing is no
    /// failure.
    pub async fn failed(&self) -> Arc<str> {
        self.state.failed.wait().await.clone()
    }

    /// Commits what is queued, then closes the store. Later appends fail.
    pub async fn close(&self) {
        for lane in self.lanes.iter() {
            let (done, closed) = oneshot::channel();
            if lane.jobs.send(Job::Close(done)).await.is_ok() {
                // An error means that the task ended before it came to this job: as closed as can be.
                let _ = closed.await;
            }
        }
        store!(&self.store, close());
    }
}

impl State {
    fn reason(&self) -> Arc<str> {
        self.stopped.get().cloned().unwrap_or_else(|| "the task that commits has ended".into())
    }
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Write(write, _) => write.bytes(),
            Job::Chore(chore, _) => chore.bytes(),
            Job::Close(_) => 0,
        }
    }

    fn shard(&self) -> u32 {
        match self {
            Job::Write(write, _) => write.fence.shard.0,
            Job::Chore(chore, _) => chore.fence.shard.0,
            Job::Close(_) => 0,
        }
    }

    fn refuse(self, error: AppendError) {
        match self {
            Job::Write(_, promise) | Job::Chore(_, promise) => promise.complete(Err(error)),
            Job::Close(done) => drop(done),
        }
    }
}

struct Committer {
    store: AnyStore,
    holdings: Holdings,
    queue: mpsc::Receiver<Job>,
    stalled: Arc<AtomicBool>,
    state: Arc<State>,
    metrics: Metrics,
    news: FeedNews,
}

impl Committer {
    async fn run(mut self) {
        while let Some(job) = self.queue.recv().await {
            // Turns that are about to run write into this batch, not into the next.
            tokio::task::yield_now().await;
            let (batch, close) = self.collect(job);
            if !batch.is_empty() {
                self.metrics.commit_queue.set(self.queue.len() as i64);
                if let Err(reason) = self.commit(batch).await {
                    tracing::error!(%reason, "the journal stopped: restart the node");
                    self.stop(&reason);
                    let _ = self.state.failed.set(reason);
                    break;
                }
            }
            if let Some(done) = close {
                self.stop(&Arc::from("it was closed"));
                let _ = done.send(());
                break;
            }
        }
    }

    /// Everything that is queued now, up to the bounds of a batch.
    fn collect(&mut self, first: Job) -> (Batch, Option<oneshot::Sender<()>>) {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(job) = next {
            self.state.queued_bytes.fetch_sub(job.bytes(), Ordering::Relaxed);
            match job {
                Job::Write(write, promise) => batch.push(write, promise),
                Job::Chore(chore, promise) => batch.push_chore(chore, promise),
                Job::Close(done) => return (batch, Some(done)),
            }
            next = if batch.is_full() { None } else { self.queue.try_recv().ok() };
        }
        (batch, None)
    }

    /// Commits a batch, without what conflicts. An error is why the journal must stop.
    async fn commit(&mut self, mut batch: Batch) -> Result<(), Arc<str>> {
        while !batch.is_empty() {
            let start = clock::now();
            let result = self.store(&batch).await;
            let seconds = start.elapsed().as_secs_f64();
            let Err(error) = result.map(|fenced| batch.fence_out(&fenced, &self.holdings)) else {
                self.committed(batch, seconds);
                return Ok(());
            };
            self.metrics.commit_failures.inc();
            match error {
                StoreError::Conflict { address, .. } => {
                    tracing::warn!(%address, "refused a write: another writer was first");
                    batch = batch.without_conflict(&address);
                }
                StoreError::Moved { group, partition, expected } => {
                    tracing::warn!(%group, %partition, expected, "refused a step of a group: it is elsewhere");
                    batch = batch.without_moved(&group, partition, expected);
                }
                StoreError::Refused { address, after, reason } => {
                    tracing::error!(%address, %reason, "the store refused a write");
                    batch = batch.without_refused(&address, after);
                }
                // Nothing was stored. Whoever asks again starts from what the store has by then.
                StoreError::Read { reason } | StoreError::Corrupt { reason } => {
                    tracing::error!(%reason, writes = batch.len(), "cannot check a commit");
                    batch.complete(Err(AppendError::Conflict));
                    return Ok(());
                }
                StoreError::Full { reason } => {
                    tracing::error!(%reason, writes = batch.len(), "no space for a commit");
                    batch.complete(Err(AppendError::Full));
                    return Ok(());
                }
                StoreError::Unavailable { reason } => {
                    tracing::warn!(%reason, writes = batch.len(), "the database is not available");
                    batch.complete(Err(AppendError::Unavailable));
                    return Ok(());
                }
                StoreError::InDoubt { fenced, unknown, reason } => {
                    let shards = unknown.len();
                    tracing::warn!(%reason, shards, "nobody can tell whether a commit was carried out");
                    batch.fence_out(&fenced, &self.holdings);
                    batch.leave_open(&unknown, &reason, &self.holdings);
                    self.committed(batch, seconds);
                    return Ok(());
                }
                StoreError::Poisoned { reason } => {
                    batch.complete(Err(AppendError::Unknown { reason: reason.clone() }));
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    fn committed(&self, batch: Batch, seconds: f64) {
        tracing::debug!(rows = batch.rows, bytes = batch.bytes, seconds, "committed");
        self.metrics.commit_rows.observe(batch.rows as f64);
        self.metrics.commit_bytes.inc_by(batch.bytes as u64);
        self.metrics.commit_seconds.observe(seconds);
        self.news.tell(&batch.writes);
        batch.complete(Ok(()));
    }

    /// Has a batch stored. If a cluster's database takes too long over it, nothing may queue behind it.
    async fn store(&mut self, batch: &Batch) -> Result<Vec<Fence>, StoreError> {
        let (writes, chores) = (&batch.writes[..], &batch.chores[..]);
        if self.holdings.is_alone() {
            return store!(&self.store, commit(writes, chores));
        }
        let store = self.store.clone();
        let commit = async move { store!(&store, commit(writes, chores)) };
        tokio::pin!(commit);
        loop {
            let result = tokio::time::timeout(COMMIT_STALLED_AFTER, &mut commit).await;
            if let Ok(result) = result {
                self.stalled.store(false, Ordering::Relaxed);
                return result;
            }
            if !self.stalled.swap(true, Ordering::Relaxed) {
                let after = COMMIT_STALLED_AFTER;
                tracing::warn!(
                    ?after,
                    "the database does not answer a commit; refusing writes until it does"
                );
            }
            let on_their_way = batch.newest();
            let mut closing = Vec::new();
            while let Ok(job) = self.queue.try_recv() {
                self.state.queued_bytes.fetch_sub(job.bytes(), Ordering::Relaxed);
                match job {
                    // Nobody may write any more: as closed as can be.
                    Job::Close(done) => closing.push(done),
                    Job::Write(write, promise) => {
                        let older = on_their_way.get(&write.address).cloned();
                        promise.refuse(AppendError::Unavailable, older);
                    }
                    chore @ Job::Chore(..) => chore.refuse(AppendError::Unavailable),
                }
            }
            if !closing.is_empty() {
                let reason = Arc::from("the database did not answer while the node stopped");
                return Err(StoreError::Poisoned { reason });
            }
        }
    }

    /// Refuses what is queued and whatever comes.
    fn stop(&mut self, reason: &Arc<str>) {
        // The first reason stays.
        let _ = self.state.stopped.set(reason.clone());
        self.queue.close();
        while let Ok(job) = self.queue.try_recv() {
            job.refuse(AppendError::Stopped { reason: reason.clone() });
        }
        self.metrics.commit_queue.set(0);
    }
}
