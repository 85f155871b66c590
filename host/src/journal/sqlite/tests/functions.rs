//! What is stored beside events, and what packing makes of the feed and of forgotten events.

use std::borrow::Cow;

use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};

use super::*;
use crate::journal::sqlite::segment::{Encoder, Packed, seal};
use crate::journal::store::Partition;

pub async fn number(store: &SqliteStore, query: &'static str) -> i64 {
    let mut reader = store.0.readers.get().await.unwrap();
    sqlx::query_scalar(query).fetch_one(&mut reader.connection).await.unwrap()
}

async fn fed(store: &SqliteStore) -> String {
    let page = store.feed(Partition(0), 1, 1_000, 1 << 20).await.unwrap();
    let tell = |entry: &crate::journal::FeedEntry| {
        format!("{}:{}@{}", entry.off, entry.address.id, entry.seq)
    };
    page.entries.iter().map(tell).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn forgotten_events_leave_the_file_when_they_are_packed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for after in 0..160 {
        let forget_before = (after % 16 == 15).then_some(Seq(after + 1));
        store.commit(&[Write { forget_before, ..write("a", after, 1) }], &[]).await.unwrap();
    }
    store.commit(&[write("b", 0, 3)], &[]).await.unwrap();
    store.pack_now().await;
    assert_eq!(number(&store, "SELECT count(*) FROM journal").await, 0);
    let events = "SELECT sum(seq_last - seq_first + 1) FROM segment s JOIN entity e ON e.no = s.entity \
        WHERE e.id = CAST('a' AS BLOB)";
    assert_eq!(number(&store, events).await, 1);
    assert_eq!(read(&store, "a").await.unwrap()[0].seq, Seq(160));
    assert_eq!(fed(&store).await, "160:a@160 161:b@1 162:b@2 163:b@3");
    // Later offsets go on, also if the newest are all packed.
    store.close().await;
    let store = open(dir.path()).await;
    store.commit(&[write("b", 3, 1)], &[]).await.unwrap();
    assert!(fed(&store).await.ends_with(" 164:b@4"));
}

#[tokio::test]
async fn a_missing_event_is_damage_unless_it_was_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let forget = Write { forget_before: Some(Seq(30)), ..write("a", 30, 40) };
    store.commit(&[write("a", 0, 30), forget, write("b", 0, 40)], &[]).await.unwrap();
    store.pack_now().await;
    assert_eq!(read(&store, "a").await.unwrap()[0].seq, Seq(30));
    store.meddle("DELETE FROM segment WHERE seq_first IN (1, 30)").await;
    for id in ["a", "b"] {
        let error = read(&store, id).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{id}: {error}");
    }
}

#[tokio::test]
async fn damaged_events_are_left_out_of_the_feed_and_the_others_are_fed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.commit(&[write("a", 0, 2), write("b", 0, 1)], &[]).await.unwrap();
    store.pack_now().await;
    store.commit(&[write("a", 2, 1), write("b", 1, 1)], &[]).await.unwrap();
    store.meddle("UPDATE segment SET data = x'00' WHERE entity = 1").await;
    store.meddle("UPDATE journal SET data = x'00' WHERE entity = 2").await;
    assert_eq!(fed(&store).await, "3:b@1 4:a@3");
    let page = store.feed(Partition(0), 1, 100, 1_000).await.unwrap();
    assert_eq!(page.next_off, 6);
}

/// As a stead without a feed left it: offsets began anew when all was packed, and after a crash events may lie in
/// both tables.
#[tokio::test]
async fn events_that_were_packed_without_a_feed_are_numbered_before_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(crate::journal::sqlite::FILE);
    let mut connection = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    let all = sqlx::migrate!("migrations/sqlite");
    let first: Vec<_> = all.iter().take(1).cloned().collect();
    let first = Migrator { migrations: Cow::Owned(first), ..Migrator::DEFAULT };
    first.run_direct(None, &mut connection, false).await.unwrap();
    connection
        .execute(
            "INSERT INTO entity VALUES (1, 'carts', CAST('a' AS BLOB)), (2, 'carts', CAST('b' AS BLOB)); \
             INSERT INTO message_type VALUES (1, 'test.Event')",
        )
        .await
        .unwrap();
    let packed = |id: &str, seq: u64| Packed {
        at_ms: 7,
        type_no: 1,
        data: format!("{id} {seq}").into_bytes().into(),
    };
    for (no, id, first, last) in [(1i64, "a", 1u64, 2u64), (1, "a", 3, 4), (2, "b", 1, 3)] {
        let mut encoder = Encoder::new(no, first);
        (first..=last).for_each(|seq| encoder.push(&packed(id, seq)));
        sqlx::query("INSERT INTO segment VALUES (?, ?, ?, ?)")
            .bind(no)
            .bind(first as i64)
            .bind(last as i64)
            .bind(encoder.finish().data)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    for (off, no, id, seq) in [(2i64, 2i64, "b", 3u64), (3, 1, "a", 5), (4, 2, "b", 4)] {
        sqlx::query("INSERT INTO journal VALUES (?, ?, ?, 7, 1, ?)")
            .bind(off)
            .bind(no)
            .bind(seq as i64)
            .bind(seal(&[no as u64, seq, 7, 1], &packed(id, seq).data))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
    let store = open(dir.path()).await;
    let expected = "1:a@1 2:a@2 3:a@3 4:a@4 5:b@1 6:b@2 8:b@3 9:a@5 10:b@4";
    assert_eq!(fed(&store).await, expected);
    store.pack_now().await;
    assert_eq!(fed(&store).await, expected);
    store.commit(&[write("a", 5, 1)], &[]).await.unwrap();
    assert_eq!(fed(&store).await, format!("{expected} 11:a@6"));
    for (id, count) in [("a", 6), ("b", 4)] {
        let events = read(&store, id).await.unwrap();
        assert_eq!(events.len(), count);
        assert!(events.iter().all(|stored| stored.event == event(format!("{id} {}", stored.seq))));
    }
}
