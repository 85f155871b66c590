//! What only SQLite can do wrong: files, locks, damage, full disks, and crashes while packing.

pub mod functions;

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::poll;
use tempfile::TempDir;

use crate::journal::conformance::{copy, event, tiny, write};
use crate::journal::error::{AppendError, OpenError, StoreError};
use crate::journal::sqlite::readers::give_back;
use crate::journal::sqlite::{SqliteOptions, SqliteStore};
use crate::journal::store::{Receipt, Store, StoredEvent, Write};
use crate::journal::{AnyStore, Holdings, Journal};
use crate::words::limits::JOURNAL_READERS;
use crate::words::telemetry::Metrics;
use crate::words::{Address, Message, Seq, clock};

async fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open_with(dir, tiny()).await.unwrap()
}

async fn refused(dir: &Path) -> OpenError {
    match SqliteStore::open(dir).await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

async fn read(store: &SqliteStore, id: &str) -> Result<Vec<StoredEvent>, StoreError> {
    let address = Address::new("carts", id);
    store.events(&address, Seq(1), usize::MAX, usize::MAX).await.map(|page| page.events)
}

/// A closed store with some packed events; the bytes of its file.
async fn closed() -> (TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(&[write("a", 0, 30), write("b", 0, 30)], &[]).await.unwrap();
    store.close().await;
    let bytes = std::fs::read(dir.path().join("stead.db")).unwrap();
    (dir, bytes)
}

#[tokio::test]
async fn a_directory_in_use_is_refused_naming_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let error = refused(dir.path()).await;
    assert!(
        matches!(&error, OpenError::InUse { pid, .. } if *pid == std::process::id().to_string()),
        "{error}"
    );
    store.commit(&[write("a", 0, 1)], &[]).await.unwrap();
    store.close().await;
    open(dir.path()).await;
}

#[tokio::test]
async fn a_missing_directory_is_created_for_the_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    open(&data).await;
    assert_eq!(std::fs::metadata(data).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (dir, _) = closed().await;
    let store = open(dir.path()).await;
    store
        .meddle(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'from the future', TRUE, x'00', 0)",
        )
        .await;
    store.close().await;
    let error = refused(dir.path()).await;
    assert!(matches!(error, OpenError::NewerSchema { found: 9999, known: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stead.db");
    std::fs::write(&file, "my diary").unwrap();
    let error = refused(dir.path()).await;
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert_eq!(std::fs::read(file).unwrap(), b"my diary");
}

#[tokio::test]
async fn a_file_with_overwritten_pages_is_refused() {
    let (dir, bytes) = closed().await;
    let file = dir.path().join("stead.db");
    let garbage = vec![0x5a; bytes.len() - 4096];
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().write_at(&garbage, 4096).unwrap();
    let error = refused(dir.path()).await;
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let (dir, bytes) = closed().await;
    std::fs::write(dir.path().join("stead.db"), &bytes[..bytes.len() / 2]).unwrap();
    let error = refused(dir.path()).await;
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn flipped_bytes_of_events_are_never_returned() {
    for is_packed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.commit(&[write("victim", 0, 5), write("other", 0, 5)], &[]).await.unwrap();
        if is_packed {
            store.pack_now().await;
        }
        // As a flip on the disk: the row is there, its bytes are others, in memory is nothing of it.
        store.meddle("UPDATE journal SET data = replace(data, 'victim 3', 'victim 4')").await;
        store
            .meddle("UPDATE segment SET data = CAST(replace(data, 'victim 3', 'victim 4') AS BLOB)")
            .await;
        store.meddle("UPDATE journal SET data = CAST(data AS BLOB)").await;
        let crashed = copy(dir.path());
        let store = open(crashed.path()).await;
        let error = read(&store, "victim").await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert_eq!(read(&store, "other").await.unwrap().len(), 5);
    }
}

#[tokio::test]
async fn a_missing_event_is_damage_and_not_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(&[write("a", 0, 40)], &[]).await.unwrap();
    store.pack_now().await;
    store.meddle("DELETE FROM segment WHERE seq_first = 1").await;
    let error = read(&store, "a").await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_directory_below_a_file_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let error = refused(&dir.path().join("file/data")).await;
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
}

/// Permissions do not bind root, so a thread becomes nobody, as far as files are concerned.
#[test]
fn a_read_only_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let path = dir.path().to_owned();
    let error = std::thread::spawn(move || {
        // SAFETY: it changes only this thread, which ends with this function.
        unsafe { libc::setfsuid(65_534) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(refused(&path))
    })
    .join()
    .unwrap();
    assert!(matches!(&error, OpenError::NotWritable { .. }), "{error}");
    assert!(error.to_string().contains("denied"), "{error}");
}

async fn fill(store: &SqliteStore) -> StoreError {
    store.meddle("PRAGMA max_page_count = 1").await;
    let large = Write { events: vec![event("x".repeat(1 << 20))], ..write("a", 1, 0) };
    store.commit(&[write("b", 0, 1), large], &[]).await.unwrap_err()
}

#[tokio::test]
async fn a_full_disk_stores_nothing_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(&[write("a", 0, 1)], &[]).await.unwrap();
    let error = fill(&store).await;
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(read(&store, "a").await.unwrap().len(), 1);
    assert_eq!(read(&store, "b").await.unwrap().len(), 0);
    store.meddle("PRAGMA max_page_count = 1000000").await;
    store.commit(&[write("b", 0, 1), write("a", 1, 2)], &[]).await.unwrap();
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(read(&store, "a").await.unwrap().len(), 3);
    assert_eq!(read(&store, "b").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_journal_on_a_full_disk_refuses_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(&[write("a", 0, 1)], &[]).await.unwrap();
    store.meddle("PRAGMA max_page_count = 1").await;
    let journal =
        Journal::start(AnyStore::Sqlite(store.clone()), Holdings::alone(), Metrics::default());
    let large = Write { events: vec![event("x".repeat(1 << 20))], ..write("a", 1, 0) };
    let failed = [journal.append(large), journal.append(write("a", 2, 1))];
    assert!(matches!(failed[0].wait().await, Err(AppendError::Full)));
    assert!(failed[1].wait().await.is_err());
    store.meddle("PRAGMA max_page_count = 1000000").await;
    journal.append(write("a", 1, 1)).wait().await.unwrap();
    assert!(journal.stopped().is_none());
}

#[tokio::test]
async fn after_an_unknown_failure_nothing_is_acknowledged_until_the_store_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(&[write("a", 0, 1)], &[]).await.unwrap();
    store.meddle("ALTER TABLE journal RENAME TO elsewhere").await;
    let error = store.commit(&[write("a", 1, 1)], &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
    store.meddle("ALTER TABLE elsewhere RENAME TO journal").await;
    let error = store.commit(&[write("a", 1, 1)], &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
    assert_eq!(read(&store, "a").await.unwrap().len(), 1);
    store.close().await;
    let store = open(dir.path()).await;
    store.commit(&[write("a", 1, 1)], &[]).await.unwrap();
}

#[tokio::test]
async fn a_journal_stops_for_good_after_an_unknown_failure() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.meddle("ALTER TABLE journal RENAME TO elsewhere").await;
    let journal = Journal::start(AnyStore::Sqlite(store), Holdings::alone(), Metrics::default());
    let first = journal.append(write("a", 0, 1));
    assert!(matches!(first.wait().await, Err(AppendError::Unknown { .. })));
    let reason = journal.failed().await;
    assert!(reason.contains("no such table"), "{reason}");
    let later = journal.append(write("b", 0, 1));
    assert!(matches!(later.wait().await, Err(AppendError::Stopped { .. })));
    assert!(journal.stopped().is_some());
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_packing_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let ids = ["a", "b", "c", "d", "e"];
    for after in [0, 8] {
        let batch: Vec<Write> = ids.iter().map(|id| write(id, after, 8)).collect();
        store.commit(&batch, &[]).await.unwrap();
    }
    let check = async |step: &str| {
        let crashed = copy(dir.path());
        let reopened = open(crashed.path()).await;
        for store in [&store, &reopened] {
            for id in ids {
                let seqs: Vec<u64> =
                    read(store, id).await.unwrap().iter().map(|event| event.seq.0).collect();
                assert_eq!(seqs, (1..=16).collect::<Vec<_>>(), "{id} after {step}");
            }
        }
        // What was begun is ended, and more follows.
        reopened.pack_now().await;
        reopened.commit(&[write("a", 16, 1)], &[]).await.unwrap();
        reopened.pack_now().await;
        assert_eq!(read(&reopened, "a").await.unwrap().len(), 17, "after {step}");
        assert_eq!(read(&reopened, "e").await.unwrap().len(), 16, "after {step}");
    };
    let mut round = store.0.round();
    let mut slices = 0;
    while store.0.pack_slice(&mut round).await.unwrap() {
        slices += 1;
        check("a slice of segments").await;
    }
    assert!(slices > 2);
    assert!(store.0.delete_slice(&round).await.unwrap());
    check("the rows were deleted").await;
    assert!(!store.0.delete_slice(&round).await.unwrap());
}

#[tokio::test]
async fn commits_go_on_while_the_packer_works() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions { tail_rows_max: 64, ..tiny() };
    let store = SqliteStore::open_with(dir.path(), options).await.unwrap();
    for after in 0..300 {
        store.commit(&[write("a", after, 1), write("b", after * 2, 2)], &[]).await.unwrap();
        let page =
            store.events(&Address::new("carts", "b"), Seq(after + 1), 50, 1 << 20).await.unwrap();
        let expected: Vec<u64> = (after + 1..=after * 2 + 2).take(50).collect();
        assert_eq!(page.events.iter().map(|event| event.seq.0).collect::<Vec<_>>(), expected);
    }
    assert_eq!(read(&store, "a").await.unwrap().len(), 300);
    store.close().await;
    let store = open(dir.path()).await;
    assert_eq!(read(&store, "b").await.unwrap().len(), 600);
}

#[tokio::test]
async fn an_abandoned_query_counts_until_it_ends_and_its_reader_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(&[write("a", 0, 1)], &[]).await.unwrap();
    let readers = &store.0.readers;
    let mut all = Vec::new();
    let mut holds = Vec::new();
    for _ in 0..JOURNAL_READERS {
        let mut reader = readers.get().await.unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let mut handle = reader.connection.lock_handle().await.unwrap();
        handle.set_progress_handler(1, move || held.recv().is_err());
        drop(handle);
        all.push(reader);
        holds.push(hold);
    }
    all.into_iter().for_each(give_back);
    for _ in 0..JOURNAL_READERS {
        let mut query = pin!(readers.optional(sqlx::query("SELECT count(*) FROM entity")));
        assert!(poll!(&mut query).is_pending());
    }
    // Now they are about to be closed.
    tokio::task::yield_now().await;
    assert!(poll!(pin!(readers.take())).is_pending());
    drop(holds);
    for _ in 0..2 * JOURNAL_READERS {
        assert!(readers.optional(sqlx::query("SELECT nothing")).await.is_err());
        assert_eq!(functions::number(&store, "SELECT count(*) FROM entity").await, 1);
    }
    store.close().await;
    assert!(readers.get().await.is_err());
}

#[tokio::test]
async fn a_commit_does_not_wait_for_readers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut busy = Vec::new();
    for _ in 0..JOURNAL_READERS {
        busy.push(store.0.readers.get().await.unwrap());
    }
    let batch = [write("a", 0, 1)];
    let commit = tokio::time::timeout(Duration::from_secs(5), store.commit(&batch, &[]));
    commit.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_damaged_snapshot_is_left_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for after in 0..2 {
        let snapshot = Some(event(format!("state {after}")));
        store.commit(&[Write { snapshot, ..write("a", after, 1) }], &[]).await.unwrap();
    }
    let address = Address::new("carts", "a");
    let newest = async |store: &SqliteStore| {
        let loaded = store.load(&address, None).await.unwrap();
        assert_eq!(loaded.seq, Seq(2));
        loaded.snapshot.map(|snapshot| snapshot.seq)
    };
    assert_eq!(newest(&store).await, Some(Seq(2)));
    store.meddle("UPDATE snapshot SET data = x'0102030405' WHERE seq = 2").await;
    assert_eq!(newest(&store).await, Some(Seq(1)));
    store.meddle("UPDATE snapshot SET data = x'0102030405'").await;
    assert_eq!(newest(&store).await, None);
}

#[tokio::test]
async fn a_damaged_row_keeps_nobody_else_from_being_packed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(&[write("a", 0, 9), write("victim", 0, 9), write("b", 0, 9)], &[]).await.unwrap();
    store.meddle("UPDATE journal SET data = x'0102030405' WHERE entity = 2 AND seq = 5").await;
    // What is in memory is intact, so it is opened anew.
    let crashed = copy(dir.path());
    let store = open(crashed.path()).await;
    store.pack_now().await;
    assert_eq!(store.0.index().rows(), 0);
    let rows = async |store: &SqliteStore| -> Vec<(i64, i64)> {
        let mut reader = store.0.readers.get().await.unwrap();
        let rows = sqlx::query_as("SELECT entity, count(*) FROM journal GROUP BY entity");
        rows.fetch_all(&mut reader.connection).await.unwrap()
    };
    assert_eq!(rows(&store).await, [(2, 9)]);
    store.commit(&[write("victim", 9, 1), write("b", 9, 1)], &[]).await.unwrap();
    store.pack_now().await;
    assert_eq!(rows(&store).await, [(2, 10)]);
    assert_eq!(read(&store, "a").await.unwrap().len(), 9);
    assert_eq!(read(&store, "b").await.unwrap().len(), 10);
    assert!(matches!(read(&store, "victim").await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn pages_of_tiny_events_end_without_a_gap_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let tiny_event = Message::new("E", bytes::Bytes::new());
    let events = vec![tiny_event; 3_000];
    store.commit(&[Write { events, ..write("a", 0, 0) }], &[]).await.unwrap();
    let crashed = copy(dir.path());
    let store = open(crashed.path()).await;
    let (mut next, mut more) = (1, true);
    while more {
        let page =
            store.events(&Address::new("carts", "a"), Seq(next), 10_000, 1_000).await.unwrap();
        assert_eq!(page.events[0].seq, Seq(next));
        next += page.events.len() as u64;
        more = page.more;
    }
    assert_eq!(next, 3_001);
}

#[tokio::test]
async fn one_message_type_too_many_refuses_its_write_only() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions { message_types_max: 3, ..tiny() };
    let store = SqliteStore::open_with(dir.path(), options).await.unwrap();
    let typed = |id, after, name: &str| Write {
        events: vec![Message::new(name, bytes::Bytes::new())],
        ..write(id, after, 0)
    };
    let batch = [typed("a", 0, "A"), typed("a", 1, "B"), typed("b", 0, "C")];
    store.commit(&batch, &[]).await.unwrap();
    let batch = [typed("b", 1, "A"), typed("a", 2, "D")];
    match store.commit(&batch, &[]).await {
        Err(StoreError::Refused { address, after, .. }) => {
            assert_eq!((*address, after), (Address::new("carts", "a"), Seq(2)));
        }
        other => panic!("{other:?}"),
    }
    store.commit(&batch[..1], &[]).await.unwrap();
}

#[tokio::test]
async fn an_emptied_database_is_not_taken_as_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("stead.db"), "").unwrap();
    std::fs::create_dir(dir.path().join("compiled")).unwrap();
    std::fs::write(dir.path().join("compiled/module"), "code").unwrap();
    assert!(matches!(refused(dir.path()).await, OpenError::Corrupt { .. }));
    std::fs::remove_dir_all(dir.path().join("compiled")).unwrap();
    std::fs::write(dir.path().join("stead.db-wal"), "log").unwrap();
    assert!(matches!(refused(dir.path()).await, OpenError::Corrupt { .. }));
    std::fs::remove_file(dir.path().join("stead.db-wal")).unwrap();
    open(dir.path()).await;
}

#[tokio::test]
async fn expired_receipts_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let now = clock::unix_ms();
    let receipt = |n: u64, expires_at_ms| Receipt {
        key: n.to_string(),
        request_hash: [0; 32],
        reply: bytes::Bytes::new(),
        expires_at_ms,
    };
    let batch: Vec<Write> = (0..1_200)
        .map(|n| Write { receipt: Some(receipt(n, now + n % 2 * 60_000)), ..write("a", 0, 0) })
        .collect();
    store.commit(&batch, &[]).await.unwrap();
    store.0.sweep_receipts(now + 1).await.unwrap();
    assert_eq!(functions::number(&store, "SELECT count(*) FROM receipt").await, 600);
}
