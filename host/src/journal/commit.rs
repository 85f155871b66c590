//! Group commit: one task writes what all entities have to write.
//!
//! A batch closes when the commit before it returns: it takes whatever has been queued meanwhile. So
//! a lonely write waits for nobody, and a crowd shares one sync of the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{SetOnce, mpsc, oneshot};

use crate::journal::error::{AppendError, StoreError};
use crate::journal::holdings::Holdings;
use crate::journal::memory::MemoryStore;
use crate::journal::postgres::PgStore;
use crate::journal::sqlite::SqliteStore;
use crate::journal::store::{
    DeploymentRecord, EntityFilter, EntityPage, EventPage, Fence, Loaded, ModuleRecord, Receipt,
    Store, Write,
};
use crate::words::limits::{
    COMMIT_BYTES_MAX, COMMIT_QUEUE_BYTES_MAX, COMMIT_QUEUE_MAX, COMMIT_ROWS_MAX,
    COMMIT_STALLED_AFTER,
};
use crate::words::telemetry::Metrics;
use crate::words::{Address, Digest, JournalName, Seq, Shard, clock};

/// A write on its way to the disk. Cheap to clone; many may wait for the same.
#[derive(Clone, Debug)]
pub struct Commit(Arc<SetOnce<Result<(), AppendError>>>);

impl Commit {
    /// The outcome, if it is known already.
    pub fn outcome(&self) -> Option<Result<(), AppendError>> {
        self.0.get().cloned()
    }

    /// Returns when the write is durable, or has failed.
    pub async fn wait(&self) -> Result<(), AppendError> {
        self.0.wait().await.clone()
    }
}

/// The other end of a [`Commit`]. Dropping it unused fails the write, so that nobody waits for ever.
struct Promise(Arc<SetOnce<Result<(), AppendError>>>);

impl Promise {
    fn complete(self, outcome: Result<(), AppendError>) {
        // Only `drop` comes after this, and it tolerates a value that is set.
        let _ = self.0.set(outcome);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.0.get().is_none() {
            let reason = Arc::from("the task that commits has ended");
            let _ = self.0.set(Err(AppendError::Unknown { reason }));
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "all but the last are writes")]
enum Job {
    Write(Write, Promise),
    Close(oneshot::Sender<()>),
}

/// The stores that there are.
#[derive(Clone)]
pub enum AnyStore {
    Memory(MemoryStore),
    Sqlite(SqliteStore),
    Postgres(PgStore),
}

/// Calls the same method of whichever store it is.
macro_rules! store {
    ($store:expr, $method:ident($($argument:expr),*)) => {
        match $store {
            AnyStore::Memory(store) => store.$method($($argument),*).await,
            AnyStore::Sqlite(store) => store.$method($($argument),*).await,
            AnyStore::Postgres(store) => store.$method($($argument),*).await,
        }
    };
}

/// The journal of a node. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    store: AnyStore,
    holdings: Holdings,
    /// A queue for each lane of the store.
    lanes: Arc<[Lane]>,
    state: Arc<State>,
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
            };
            tokio::spawn(committer.run());
            Lane { jobs, stalled }
        });
        let lanes = lanes.collect();
        Self { store, holdings, lanes, state }
    }

    /// Which shards this node holds.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Queues a write, in order: writes of one entity are stored in the order of their calls. Never
    /// waits: a queue that is full refuses the write with [`AppendError::Busy`].
    pub fn append(&self, write: Write) -> Commit {
        let cell = Arc::new(SetOnce::new());
        let promise = Promise(cell.clone());
        let bytes = write.bytes();
        let queued = self.state.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let lane = &self.lanes[write.fence.shard.0 as usize % self.lanes.len()];
        let sent = if queued > COMMIT_QUEUE_BYTES_MAX {
            promise.complete(Err(AppendError::Busy));
            false
        } else if lane.stalled.load(Ordering::Relaxed) {
            promise.complete(Err(AppendError::Unavailable));
            false
        } else {
            match lane.jobs.try_send(Job::Write(write, promise)) {
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
        Commit(cell)
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

    /// Which of these the store does not know as the shards' present owner and epoch.
    pub async fn fenced(&self, fences: &[Fence]) -> Result<Vec<Shard>, StoreError> {
        store!(&self.store, fenced(fences))
    }

    pub async fn load(&self, address: &Address, at: Option<Seq>) -> Result<Loaded, StoreError> {
        store!(&self.store, load(address, at))
    }

    pub async fn events(
        &self,
        address: &Address,
        from: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<EventPage, StoreError> {
        store!(&self.store, events(address, from, limit, bytes_max))
    }

    pub async fn receipt(
        &self,
        address: &Address,
        key: &str,
        now_ms: u64,
    ) -> Result<Option<Receipt>, StoreError> {
        store!(&self.store, receipt(address, key, now_ms))
    }

    pub async fn entities(&self, filter: &EntityFilter) -> Result<EntityPage, StoreError> {
        store!(&self.store, entities(filter))
    }

    pub async fn count_entities(
        &self,
        journal: &JournalName,
        limit: usize,
    ) -> Result<usize, StoreError> {
        store!(&self.store, count_entities(journal, limit))
    }

    pub async fn put_module(&self, record: &ModuleRecord, bytes: &Bytes) -> Result<(), StoreError> {
        store!(&self.store, put_module(record, bytes))
    }

    pub async fn module(
        &self,
        digest: &Digest,
    ) -> Result<Option<(ModuleRecord, Bytes)>, StoreError> {
        store!(&self.store, module(digest))
    }

    pub async fn modules(&self) -> Result<Vec<ModuleRecord>, StoreError> {
        store!(&self.store, modules())
    }

    pub async fn put_deployment(&self, record: &DeploymentRecord) -> Result<(), StoreError> {
        store!(&self.store, put_deployment(record))
    }

    pub async fn deployments(&self) -> Result<Vec<DeploymentRecord>, StoreError> {
        store!(&self.store, deployments())
    }
}

impl State {
    fn reason(&self) -> Arc<str> {
        self.stopped.get().cloned().unwrap_or_else(|| "the task that commits has ended".into())
    }
}

impl Job {
    fn refuse(self, error: AppendError) {
        match self {
            Job::Write(_, promise) => promise.complete(Err(error)),
            Job::Close(done) => drop(done),
        }
    }
}

/// Writes of one transaction, and who waits for each.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    promises: Vec<Promise>,
    rows: usize,
    bytes: usize,
}

struct Committer {
    store: AnyStore,
    holdings: Holdings,
    queue: mpsc::Receiver<Job>,
    stalled: Arc<AtomicBool>,
    state: Arc<State>,
    metrics: Metrics,
}

impl Committer {
    async fn run(mut self) {
        while let Some(job) = self.queue.recv().await {
            let (batch, close) = self.collect(job);
            if !batch.writes.is_empty() {
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
            match job {
                Job::Write(write, promise) => {
                    self.state.queued_bytes.fetch_sub(write.bytes(), Ordering::Relaxed);
                    batch.push(write, promise);
                }
                Job::Close(done) => return (batch, Some(done)),
            }
            let full = batch.rows >= COMMIT_ROWS_MAX || batch.bytes >= COMMIT_BYTES_MAX;
            next = if full { None } else { self.queue.try_recv().ok() };
        }
        (batch, None)
    }

    /// Commits a batch, without the writes that conflict. An error is why the journal must stop.
    async fn commit(&mut self, mut batch: Batch) -> Result<(), Arc<str>> {
        while !batch.writes.is_empty() {
            let start = clock::now();
            let result = self.store(&batch.writes).await;
            let seconds = start.elapsed().as_secs_f64();
            let Err(error) = result.map(|fenced| batch.fence_out(&fenced, &self.holdings)) else {
                tracing::debug!(rows = batch.rows, bytes = batch.bytes, seconds, "committed");
                self.metrics.commit_rows.observe(batch.rows as f64);
                self.metrics.commit_bytes.inc_by(batch.bytes as u64);
                self.metrics.commit_seconds.observe(seconds);
                batch.complete(Ok(()));
                return Ok(());
            };
            self.metrics.commit_failures.inc();
            match error {
                StoreError::Conflict { address, .. } => {
                    tracing::warn!(%address, "refused a write: another writer was first");
                    batch = batch.without_conflict(&address);
                }
                StoreError::Refused { address, after, reason } => {
                    tracing::error!(%address, %reason, "the store refused a write");
                    batch = batch.without_refused(&address, after);
                }
                // Nothing was stored. Whoever asks again starts from what the store has by then.
                StoreError::Read { reason } | StoreError::Corrupt { reason } => {
                    tracing::error!(%reason, writes = batch.writes.len(), "cannot check a commit");
                    batch.complete(Err(AppendError::Conflict));
                    return Ok(());
                }
                StoreError::Full { reason } => {
                    tracing::error!(%reason, writes = batch.writes.len(), "no space for a commit");
                    batch.complete(Err(AppendError::Full));
                    return Ok(());
                }
                StoreError::Unavailable { reason } => {
                    tracing::warn!(%reason, writes = batch.writes.len(), "the database is not available");
                    batch.complete(Err(AppendError::Unavailable));
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

    /// Has a batch stored. If a cluster's database takes too long over it, nothing may queue behind it.
    async fn store(&mut self, writes: &[Write]) -> Result<Vec<Fence>, StoreError> {
        if self.holdings.is_alone() {
            return store!(&self.store, commit(writes));
        }
        let store = self.store.clone();
        let commit = async move { store!(&store, commit(writes)) };
        tokio::pin!(commit);
        loop {
            let result = tokio::time::timeout(COMMIT_STALLED_AFTER, &mut commit).await;
            if let Ok(result) = result {
                self.stalled.store(false, Ordering::Relaxed);
                return result;
            }
            self.stalled.store(true, Ordering::Relaxed);
            let mut closing = Vec::new();
            while let Ok(job) = self.queue.try_recv() {
                match job {
                    Job::Write(write, promise) => {
                        self.state.queued_bytes.fetch_sub(write.bytes(), Ordering::Relaxed);
                        promise.complete(Err(AppendError::Unavailable));
                    }
                    // Nobody may write any more: as closed as can be.
                    Job::Close(done) => closing.push(done),
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

impl Batch {
    fn push(&mut self, write: Write, promise: Promise) {
        self.rows += write.rows();
        self.bytes += write.bytes();
        self.writes.push(write);
        self.promises.push(promise);
    }

    fn complete(self, outcome: Result<(), AppendError>) {
        for promise in self.promises {
            promise.complete(outcome.clone());
        }
    }

    /// Fails the writes that the store has fenced, and tells the holdings.
    fn fence_out(&mut self, fenced: &[Fence], holdings: &Holdings) {
        if fenced.is_empty() {
            return;
        }
        let mut rest = Batch::default();
        for (write, promise) in self.writes.drain(..).zip(self.promises.drain(..)) {
            let Fence { shard, epoch } = write.fence;
            if fenced.contains(&write.fence) {
                holdings.lose(shard, epoch);
                promise.complete(Err(AppendError::Fenced));
            } else {
                rest.push(write, promise);
            }
        }
        *self = rest;
    }

    /// Fails the first write of an entity that cannot follow what is before it, and every later one
    /// of that entity. If they follow one another, it is the first that does not follow the store.
    fn without_conflict(self, address: &Address) -> Self {
        let mut head = None;
        let keep = self
            .writes
            .iter()
            .filter(|write| write.address == *address)
            .position(|write| {
                let before = head.replace(write.after.plus(write.events.len()));
                before.is_some_and(|before| before != write.after)
            })
            .unwrap_or(0);
        self.without(address, keep)
    }

    /// Fails the write of an entity that follows a number, and every later one of that entity.
    fn without_refused(self, address: &Address, after: Seq) -> Self {
        let mut writes = self.writes.iter().filter(|write| write.address == *address);
        let keep = writes.position(|write| write.after == after).unwrap_or(0);
        self.without(address, keep)
    }

    /// Fails all writes of an entity but the first ones.
    fn without(self, address: &Address, keep: usize) -> Self {
        let mut rest = Batch::default();
        let mut seen = 0;
        for (write, promise) in self.writes.into_iter().zip(self.promises) {
            if write.address == *address {
                seen += 1;
                if seen > keep {
                    promise.complete(Err(AppendError::Conflict));
                    continue;
                }
            }
            rest.push(write, promise);
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::conformance::write;

    fn journal() -> Journal {
        Journal::start(
            AnyStore::Memory(MemoryStore::default()),
            Holdings::alone(),
            Metrics::default(),
        )
    }

    async fn seq(journal: &Journal, id: &str) -> u64 {
        journal.load(&Address::new("carts", id), None).await.unwrap().seq.0
    }

    #[tokio::test]
    async fn writes_of_an_entity_are_stored_in_the_order_of_their_calls() {
        let journal = journal();
        let commits: Vec<Commit> = (0..100).map(|n| journal.append(write("a", n, 1))).collect();
        assert!(commits[99].outcome().is_none());
        for commit in commits {
            commit.wait().await.unwrap();
            assert!(commit.outcome().is_some());
        }
        assert_eq!(seq(&journal, "a").await, 100);
    }

    #[tokio::test]
    async fn a_conflict_fails_the_entity_and_nobody_else() {
        let journal = journal();
        journal.append(write("a", 0, 1)).wait().await.unwrap();
        let good = [
            journal.append(write("a", 1, 1)),
            journal.append(write("b", 0, 1)),
            journal.append(write("c", 0, 1)),
        ];
        // All of these come in one batch with the others.
        let bad = [
            journal.append(write("a", 3, 1)),
            journal.append(write("a", 4, 1)),
            journal.append(write("d", 7, 1)),
            journal.append(write("d", 8, 1)),
        ];
        let also_good = journal.append(write("b", 1, 1));
        for commit in good.into_iter().chain([also_good]) {
            commit.wait().await.unwrap();
        }
        for commit in bad {
            assert!(matches!(commit.wait().await, Err(AppendError::Conflict)));
        }
        assert_eq!(seq(&journal, "a").await, 2);
        assert_eq!(seq(&journal, "b").await, 2);
        assert_eq!(seq(&journal, "d").await, 0);
        assert!(journal.stopped().is_none());
    }

    #[tokio::test]
    async fn a_refused_write_fails_with_those_after_it_and_nobody_else() {
        let store = MemoryStore::default();
        let journal =
            Journal::start(AnyStore::Memory(store.clone()), Holdings::alone(), Metrics::default());
        store.fail_next(StoreError::Refused {
            address: Box::new(Address::new("carts", "a")),
            after: Seq(1),
            reason: "its rows are damaged".into(),
        });
        let good = [journal.append(write("a", 0, 1)), journal.append(write("b", 0, 1))];
        let bad = [journal.append(write("a", 1, 1)), journal.append(write("a", 2, 1))];
        for commit in good {
            commit.wait().await.unwrap();
        }
        for commit in bad {
            assert!(matches!(commit.wait().await, Err(AppendError::Conflict)));
        }
        assert_eq!(seq(&journal, "a").await, 1);
    }

    #[tokio::test]
    async fn a_failed_check_fails_its_writes_and_the_journal_goes_on() {
        let store = MemoryStore::default();
        let journal =
            Journal::start(AnyStore::Memory(store.clone()), Holdings::alone(), Metrics::default());
        store.fail_next(StoreError::Read { reason: "busy".into() });
        let failed = journal.append(write("a", 0, 1));
        assert!(matches!(failed.wait().await, Err(AppendError::Conflict)));
        journal.append(write("a", 0, 1)).wait().await.unwrap();
        assert!(journal.stopped().is_none());
    }

    #[tokio::test]
    async fn closing_commits_what_is_queued_and_refuses_what_comes() {
        let journal = journal();
        let queued = journal.append(write("a", 0, 1));
        journal.close().await;
        queued.wait().await.unwrap();
        let late = journal.append(write("a", 1, 1));
        assert!(matches!(late.wait().await, Err(AppendError::Stopped { .. })));
        assert!(journal.stopped().is_some());
        journal.close().await;
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let journal = journal();
        // Nothing runs before the first await.
        let commits: Vec<Commit> =
            (0..=COMMIT_QUEUE_MAX as u64).map(|n| journal.append(write("a", n, 1))).collect();
        let last = &commits[COMMIT_QUEUE_MAX];
        assert!(matches!(last.outcome(), Some(Err(AppendError::Busy))));
        commits[COMMIT_QUEUE_MAX - 1].wait().await.unwrap();
    }

    #[tokio::test]
    async fn commits_are_counted() {
        let metrics = Metrics::default();
        let journal = Journal::start(
            AnyStore::Memory(MemoryStore::default()),
            Holdings::alone(),
            metrics.clone(),
        );
        journal.append(write("a", 0, 2)).wait().await.unwrap();
        assert_eq!(metrics.commit_bytes.get(), 2 * ("test.Event".len() as u64 + 3));
        assert!(metrics.render().contains("stead_commit_rows_sum 2.0"));
    }

    #[tokio::test]
    async fn a_write_that_nobody_commits_any_more_fails() {
        let cell = Arc::new(SetOnce::new());
        drop(Promise(cell.clone()));
        assert!(matches!(Commit(cell).wait().await, Err(AppendError::Unknown { .. })));
    }
}
