//! The store against real servers: a private one for this process, and some of their own for tests that
//! kill them.

mod functions;
mod lost;

use sqlx::Executor;

use super::server::Server;
use super::*;
use crate::journal::{
    AnyStore, AppendError, EffectId, Journal, NewEffect, StoredCall, conformance,
};
use crate::words::limits::STORE_LOSSES_LOOKED_FOR_EVERY;
use crate::words::{Epoch, clock};

/// A store, and what it was opened with.
pub struct Opened {
    pub url: Secret,
    pub holdings: Holdings,
    pub metrics: Metrics,
    pub store: PgStore,
}

/// A new database of the shared server whose shards are all owned at epoch 1.
pub async fn open(shards: u32) -> Opened {
    open_at(Server::shared().database(), shards).await
}

async fn open_at(url: String, shards: u32) -> Opened {
    let url = Secret::new(url);
    let record = prepare(&url, shards).await.unwrap();
    assert_eq!(record.shards, shards);
    let holdings = Holdings::of_member(shards);
    let metrics = Metrics::default();
    let store = PgStore::open(&url, holdings.clone(), metrics.clone()).await.unwrap();
    let mut connection = store.connection().await.unwrap();
    connection.execute("UPDATE shard SET owner = 'me', owner_inc = 1, epoch = 1").await.unwrap();
    for shard in 0..shards {
        holdings.grant(Shard(shard), Epoch(1));
    }
    Opened { url, holdings, metrics, store }
}

const EPOCH: Epoch = Epoch(1);

impl Opened {
    async fn sql(&self, statement: &'static str) {
        self.store.connection().await.unwrap().execute(statement).await.unwrap();
    }

    async fn number(&self, query: &'static str) -> i64 {
        let mut connection = self.store.connection().await.unwrap();
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    }

    /// Offsets without a gap, and as many events as were handed an offset.
    async fn assert_gapless(&self) {
        let gaps = "SELECT count(*) FROM shard s WHERE s.next_off - 1 <> \
            (SELECT count(*) FROM journal j WHERE j.shard_id = s.shard_id) OR s.next_off - 1 <> \
            (SELECT coalesce(max(j.off), 0) FROM journal j WHERE j.shard_id = s.shard_id)";
        assert_eq!(self.number(gaps).await, 0);
    }
}

/// An address of a shard, and a write to it.
fn write_to(holdings: &Holdings, shard: u32, epoch: Epoch, after: u64, count: usize) -> Write {
    let mut ids = (0..).map(|n| format!("{n}"));
    let is_there = |id: &String| holdings.shard_of(&Address::new("carts", id.as_str())).0 == shard;
    let id = ids.find(is_there).unwrap();
    let fence = Fence { shard: Shard(shard), epoch };
    Write { fence, ..conformance::write(&id, after, count) }
}

#[tokio::test]
async fn writes_of_another_epoch_are_named_and_the_others_are_stored() {
    let opened = open(8).await;
    let write = |shard, epoch| write_to(&opened.holdings, shard, Epoch(epoch), 0, 2);
    opened.sql("UPDATE shard SET epoch = 2 WHERE shard_id = 4").await;
    opened.sql("UPDATE shard SET owner = NULL WHERE shard_id = 5").await;
    let batch = [write(0, 1), write(4, 1), write(5, 1)];
    let fenced = opened.store.commit(&batch, &[]).await.unwrap();
    assert_eq!(fenced, [batch[1].fence, batch[2].fence]);
    for (write, seq) in batch.iter().zip([2, 0, 0]) {
        assert_eq!(opened.store.load(&write.address, None).await.unwrap().seq, Seq(seq));
    }
    opened.assert_gapless().await;
}

#[tokio::test]
async fn one_batch_may_hold_two_epochs_of_a_shard() {
    let opened = open(1).await;
    opened.sql("UPDATE shard SET epoch = 2").await;
    let old =
        Write { fence: Fence { shard: Shard(0), epoch: EPOCH }, ..conformance::write("a", 0, 1) };
    let new =
        Write { fence: Fence { epoch: Epoch(2), ..old.fence }, ..conformance::write("b", 0, 1) };
    let batch = [old, new];
    assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), [batch[0].fence]);
    assert_eq!(opened.store.load(&batch[0].address, None).await.unwrap().seq, Seq(0));
    assert_eq!(opened.store.load(&batch[1].address, None).await.unwrap().seq, Seq(1));
}

#[tokio::test]
async fn a_conflict_in_a_fenced_shard_is_a_fence() {
    let opened = open(1).await;
    opened.sql("UPDATE shard SET epoch = 2").await;
    let batch = [conformance::write("a", 7, 1)];
    assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), [batch[0].fence]);
}

#[tokio::test]
async fn says_which_shards_are_not_owned_any_more() {
    let opened = open(8).await;
    opened.sql("UPDATE shard SET epoch = 2 WHERE shard_id = 4").await;
    opened.sql("UPDATE shard SET owner = NULL WHERE shard_id = 5").await;
    let fences: Vec<Fence> = (0..8).map(|n| Fence { shard: Shard(n), epoch: EPOCH }).collect();
    let asked = (0..50).map(|_| opened.store.fenced(&fences));
    for fenced in futures_util::future::join_all(asked).await {
        assert_eq!(fenced.unwrap(), [Shard(4), Shard(5)]);
    }
}

#[tokio::test]
async fn old_snapshots_are_deleted() {
    let opened = open(1).await;
    for after in 0..5 {
        let snapshot = Some(conformance::event("state"));
        let write = Write { snapshot, ..conformance::write("a", after, 1) };
        opened.store.commit(&[write], &[]).await.unwrap();
    }
    while opened.number("SELECT count(*) FROM snapshot").await != 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(opened.number("SELECT min(seq) FROM snapshot").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_make_one_cluster() {
    let url = Secret::new(Server::shared().database());
    let starts = (1..9).map(|shards| prepare(&url, shards * 16));
    let mut records = Vec::new();
    for record in futures_util::future::join_all(starts).await {
        records.push(record.unwrap());
    }
    assert!(records.iter().all(|record| *record == records[0]), "{records:?}");
    let holdings = Holdings::of_member(records[0].shards);
    let store = PgStore::open(&url, holdings, Metrics::default()).await.unwrap();
    let mut connection = store.connection().await.unwrap();
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM shard").fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, i64::from(records[0].shards));
}

#[tokio::test]
async fn what_cannot_be_opened_is_said_in_a_sentence_without_the_password() {
    let opened = open(1).await;
    opened
        .sql(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (999, 'later', TRUE, '', 0)",
        )
        .await;
    let text = prepare(&opened.url, 1).await.unwrap_err().to_string();
    assert!(text.contains("was set up by a newer stead (schema 999, this one knows "), "{text}");
    let port = Server::shared().port();
    let url = Secret::new(format!("postgres://postgres:s3cret@127.0.0.1:{port}/nowhere"));
    let text = prepare(&url, 1).await.unwrap_err().to_string();
    let expected = format!("the database nowhere on 127.0.0.1:{port} does not exist");
    assert!(text.starts_with(&expected) && !text.contains("s3cret"), "{text}");
    let text = prepare(&Secret::new("postgres://u:s3cret@h:port/x"), 1).await.unwrap_err();
    assert!(!text.to_string().contains("s3cret"), "{text}");
}

#[tokio::test]
async fn a_shard_that_lost_acknowledged_events_is_halted() {
    let opened = open(1).await;
    opened.store.commit(&[conformance::write("a", 0, 3)], &[]).await.unwrap();
    opened.sql("DELETE FROM journal WHERE seq > 1").await;
    opened.sql("UPDATE shard SET next_off = 2").await;
    let batch = [conformance::write("a", 1, 1)];
    assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), [batch[0].fence]);
    assert_eq!(opened.holdings.epoch(Shard(0)), None);
    assert_eq!(opened.metrics.shards_halted.get(), 1);
    let halted = "SELECT count(*) FROM shard WHERE owner IS NULL AND epoch = 2 AND \
        halted = 'events 2 to 3 were acknowledged and are missing: the database lost them'";
    assert_eq!(opened.number(halted).await, 1);
    assert_eq!(opened.number("SELECT count(*) FROM journal").await, 1);
}

#[tokio::test]
async fn a_loss_is_noticed_though_nobody_writes() {
    let opened = open(8).await;
    let batch = [write_to(&opened.holdings, 2, EPOCH, 0, 3)];
    assert!(opened.store.commit(&batch, &[]).await.unwrap().is_empty());
    let batch = [write_to(&opened.holdings, 6, EPOCH, 0, 3)];
    assert!(opened.store.commit(&batch, &[]).await.unwrap().is_empty());
    opened.sql("DELETE FROM journal WHERE shard_id = 6").await;
    opened.sql("UPDATE shard SET next_off = 1 WHERE shard_id = 6").await;
    let deadline = clock::now() + 5 * STORE_LOSSES_LOOKED_FOR_EVERY;
    while opened.holdings.epoch(Shard(6)).is_some() {
        assert!(clock::now() < deadline, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(opened.metrics.shards_halted.get(), 1);
    assert_eq!(opened.holdings.epoch(Shard(2)), Some(EPOCH));
    let halted = "SELECT sum(shard_id)::bigint FROM shard WHERE halted IS NOT NULL";
    assert_eq!(opened.number(halted).await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_steps_the_epoch_and_is_looked_up() {
    let opened = open(1).await;
    opened.store.commit(&[conformance::write("a", 0, 1)], &[]).await.unwrap();
    let mut other = opened.store.connection().await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("SELECT * FROM shard FOR UPDATE").await.unwrap();
    let store = opened.store.clone();
    let commit =
        tokio::spawn(async move { store.commit(&[conformance::write("a", 1, 1)], &[]).await });
    let blocked = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while opened.number(blocked).await == 0 {
        tokio::task::yield_now().await;
    }
    other.execute("COMMIT").await.unwrap();
    let error = commit.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    // Whether the node may serve it under the new epoch is not for the store to say.
    assert_eq!(opened.holdings.epoch(Shard(0)), None);
    assert_eq!(opened.number("SELECT epoch FROM shard WHERE owner = 'me'").await, 2);
    assert_eq!(opened.metrics.commits_reconciled.get(), 1);
    let again = Write {
        fence: Fence { shard: Shard(0), epoch: Epoch(2) },
        ..conformance::write("a", 1, 1)
    };
    assert_eq!(opened.store.commit(&[again], &[]).await.unwrap(), []);
    opened.assert_gapless().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_answers_reads_and_takes_no_writes_until_it_is_promoted() {
    let primary = Server::start(&["fsync=off"]);
    let opened = open_at(primary.database(), 1).await;
    let standby = primary.standby(true);
    opened.store.commit(&[conformance::write("a", 0, 1)], &[]).await.unwrap();
    let database = opened.url.expose().rsplit_once('/').unwrap().1;
    let url = Secret::new(standby.url(database));
    prepare(&url, 1).await.unwrap();
    let store = PgStore::open(&url, opened.holdings.clone(), Metrics::default()).await.unwrap();
    server::wait_for("the event on the standby", || {
        standby.sql(database, "SELECT count(*) FROM journal") == "1"
    });
    let address = Address::new("carts", "a");
    assert_eq!(store.load(&address, None).await.unwrap().seq, Seq(1));
    let error = store.commit(&[conformance::write("a", 1, 1)], &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    primary.stop_immediate();
    standby.promote();
    assert_eq!(store.commit(&[conformance::write("a", 1, 1)], &[]).await.unwrap(), []);
    assert_eq!(store.load(&address, None).await.unwrap().seq, Seq(2));
}

/// A write's entity and what it was of, and whether it was stored: none if nobody could tell.
type Written = (Address, String, Option<bool>);

/// Writers that never stop, each with entities of its own, and what became of their writes.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<std::sync::atomic::AtomicUsize>,
    writers: Vec<tokio::task::JoinHandle<Vec<Written>>>,
}

const WRITERS: usize = 16;

impl Load {
    fn start(opened: &Opened) -> Self {
        let store = AnyStore::Postgres(opened.store.clone());
        let journal = Journal::start(store, opened.holdings.clone(), opened.metrics.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::default();
        let writer = |number| {
            let address = Address::new("carts", format!("writer {number}"));
            tokio::spawn(write_on(
                journal.clone(),
                opened.store.clone(),
                address,
                Arc::clone(&stop),
                Arc::clone(&acknowledged),
            ))
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self { stop, acknowledged, writers }
    }

    /// Returns when so many more writes have been acknowledged.
    async fn pass(&self, writes: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + writes;
        while self.acknowledged.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What was acknowledged is there once, in order; what was refused is not there.
    async fn end(self, opened: &Opened) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            let writes = writer.await.unwrap();
            let address = writes[0].0.clone();
            let mut found = Vec::new();
            loop {
                let from = Seq(found.len() as u64 + 1);
                let page = opened.store.events(&address, from, 1_000, usize::MAX).await.unwrap();
                let text = |event: &[u8]| String::from_utf8(event.to_vec()).unwrap();
                found.extend(page.events.iter().map(|stored| text(&stored.event.data)));
                if !page.more {
                    break;
                }
            }
            let effects = opened.store.outbox_of(&address, usize::MAX).await.unwrap();
            let effects: Vec<String> = effects.into_iter().map(|row| row.call.method).collect();
            // What nobody could tell of may be there.
            let stored = |is_left: fn(usize) -> bool, found: &[String]| {
                let numbered = writes.iter().enumerate().filter(|(number, _)| is_left(*number));
                let stored = numbered
                    .filter(|(_, write)| write.2.unwrap_or_else(|| found.contains(&write.1)));
                stored.map(|(_, write)| write.1.clone()).collect::<Vec<String>>()
            };
            assert_eq!(found, stored(has_event, &found), "of {address}");
            assert_eq!(effects, stored(has_effect, &effects), "of {address}");
        }
        opened.assert_gapless().await;
    }
}

/// Of three writes of a writer, one has an event, one an effect, and one has both.
fn has_event(number: usize) -> bool {
    !number.is_multiple_of(3)
}

fn has_effect(number: usize) -> bool {
    number % 3 != 1
}

async fn write_on(
    journal: Journal,
    store: PgStore,
    address: Address,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<std::sync::atomic::AtomicUsize>,
) -> Vec<Written> {
    let holdings = journal.holdings().clone();
    let shard = holdings.shard_of(&address);
    let mut writes = Vec::new();
    let mut at: Option<(Epoch, Seq)> = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(epoch) = holdings.epoch(shard) else {
            // What the cluster floor does on a timer: the row says that the shard is ours.
            if let Ok(mut connection) = store.connection().await {
                let row = sqlx::query_scalar("SELECT epoch FROM shard WHERE shard_id = $1");
                let row = row.bind(shard.0 as i32).fetch_one(&mut connection).await;
                if let Ok(epoch) = row.map(|epoch: i64| epoch as u64) {
                    holdings.grant(shard, Epoch(epoch));
                }
            }
            continue;
        };
        let seq = match at.filter(|(loaded, _)| *loaded == epoch) {
            Some((_, seq)) => seq,
            None => match journal.load(&address, None).await {
                Ok(loaded) => loaded.seq,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            },
        };
        let number = writes.len();
        let text = format!("{address} {number}");
        let mut write = Write::new(address.clone(), Fence { shard, epoch }, seq, 0);
        if has_event(number) {
            write.events.push(conformance::event(text.clone()));
        }
        if has_effect(number) {
            let call = StoredCall { method: text.clone(), ..StoredCall::default() };
            // Unique over all writers, and in their order.
            let writer =
                address.id.as_str().bytes().fold(0, |sum, byte| sum << 8 | u64::from(byte));
            write.effects.push(NewEffect { id: EffectId::new(number as u64, writer), call });
        }
        let head = write.head();
        let is_stored = match journal.append(write).wait().await {
            Ok(()) => Some(true),
            Err(AppendError::Fenced | AppendError::Unavailable | AppendError::Conflict) => {
                Some(false)
            }
            // The answer to the lookup was lost as well.
            Err(AppendError::Unknown { .. }) if !has_event(number) => None,
            Err(error) => panic!("{error}"),
        };
        if is_stored == Some(true) {
            acknowledged.fetch_add(1, Ordering::Relaxed);
            at = Some((epoch, head));
        } else {
            at = None;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        writes.push((address.clone(), text, is_stored));
    }
    writes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_connections_are_ended_under_load() {
    let opened = open(8).await;
    let load = Load::start(&opened);
    for _ in 0..40 {
        load.pass(100).await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let mut connection = loop {
            if let Ok(connection) = opened.store.connection().await {
                break connection;
            }
        };
        let _ = connection.execute(end).await;
    }
    load.end(&opened).await;
    assert!(opened.metrics.commits_reconciled.get() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_the_server_is_killed_under_load() {
    let server = Server::start(&[]);
    let opened = open_at(server.database(), 8).await;
    let load = Load::start(&opened);
    for _ in 0..5 {
        load.pass(200).await;
        server.stop_immediate();
        server.restart();
    }
    load.pass(200).await;
    load.end(&opened).await;
    assert!(opened.metrics.commits_reconciled.get() > 0);
}

/// How many commits and events a second the store takes: `cargo test --release -p stead-host --lib
/// commits_per_second -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn commits_per_second() {
    let server = Server::start(&[]);
    for (lanes, writes) in [(1, 1), (1, 100), (4, 1), (4, 100), (4, 1_000)] {
        let opened = open_at(server.database(), 64).await;
        let start = crate::words::clock::now();
        let lane = async |lane: u32| {
            let mut batches = 0u64;
            while start.elapsed() < Duration::from_secs(3) {
                let shard = |n: usize| Shard(lane + 4 * (n as u32 % 16));
                let batch: Vec<Write> = (0..writes)
                    .map(|n| Write {
                        fence: Fence { shard: shard(n), epoch: EPOCH },
                        ..conformance::write(&format!("{lane} {n}"), batches, 1)
                    })
                    .collect();
                assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), []);
                batches += 1;
            }
            batches
        };
        let batches: u64 = futures_util::future::join_all((0..lanes).map(lane)).await.iter().sum();
        let seconds = start.elapsed().as_secs_f64();
        let commits = batches as f64 / seconds;
        println!(
            "{lanes} lanes, {writes} events a commit: {commits:.0} commits/s, {:.0} events/s",
            commits * writes as f64
        );
    }
}
