use bytes::Bytes;

use super::*;
use crate::journal::memory::MemoryStore;
use crate::journal::postgres::tests::open;
use crate::journal::sqlite::SqliteStore;
use crate::journal::store::{
    Consumed, DeploymentRecord, EffectId, Laggard, ModuleRecord, NewEffect, NewRow, Partition,
    RowChange, StoredCall, Timer, TimerChange,
};
use crate::journal::{conformance, postgres};
use crate::words::{Digest, Grants, Message, Revision};

async fn fill(store: &impl Store) -> Counts {
    let receipt = |key: &str, expires_at_ms| Receipt {
        key: key.into(),
        request_hash: [1; 32],
        reply: Bytes::from_static(b"reply"),
        expires_at_ms,
    };
    for id in 0..30 {
        let id = format!("cart {id}");
        let snapshot = Some(Message::new("test.State", id.clone()));
        let first = Write { snapshot, ..conformance::write(&id, 0, 3) };
        let receipt = Some(receipt(&id, u64::MAX >> 1));
        let second = Write { receipt, ..conformance::write(&id, 3, 4) };
        store.commit(&[first, second], &[]).await.unwrap();
    }
    fill_aside(store).await;
    let alone = Write { receipt: Some(receipt("k", 1 << 60)), ..conformance::write("x", 0, 0) };
    let expired = Write { receipt: Some(receipt("k", 9)), ..conformance::write("y", 0, 0) };
    store.commit(&[alone, expired], &[]).await.unwrap();
    let bytes = Bytes::from_static(b"module");
    let digest = Digest::of(&bytes);
    let module = ModuleRecord { digest, name: "m.wasm".into(), bytes: 6, uploaded_at_ms: 1 };
    store.put_module(&module, &bytes).await.unwrap();
    let modules = vec![digest];
    let note = String::from("deploy");
    let grants = format!("{digest} http=https://api.example.com\n");
    let revision = DeploymentRecord {
        revision: Revision(1),
        modules,
        created_at_ms: 2,
        note,
        grants: Grants::decode(&grants).unwrap(),
    };
    store.put_deployment(&revision).await.unwrap();
    Counts {
        entities: 31,
        events: 212,
        snapshots: 30,
        receipts: 31,
        effects: 4,
        timers: 3,
        groups: 1,
        view_rows: 2,
        modules: 1,
        revisions: 1,
    }
}

/// Effects and timers in every state, an entity that has forgotten its first events, a group at the end with an
/// entity that lags behind, and a view.
async fn fill_aside(store: &impl Store) {
    let fence = conformance::write("", 0, 0).fence;
    let chore = |task| Chore { fence, task };
    let id = |n| EffectId::new(n, n);
    let effect = |n| NewEffect { id: id(n), call: StoredCall::default() };
    let timer = |name: &str, token| {
        let (method, payload) = (String::from("Fire"), Bytes::from_static(b"payload"));
        let set = Timer { due_ms: 7, every_ms: Some(100), method, payload, token: [token; 16] };
        TimerChange { name: name.into(), set: Some(set) }
    };
    let value = Write { forget_before: Some(Seq(40)), ..conformance::write("value", 0, 41) };
    let first = Write {
        effects: (1..4).map(effect).collect(),
        timers: vec![timer("a", 1), timer("b", 2)],
        ..conformance::write("cart 0", 7, 0)
    };
    let second = Write {
        effects: vec![effect(4)],
        timers: vec![timer("a", 3)],
        ..conformance::write("without events", 0, 0)
    };
    store.commit(&[value, first, second], &[]).await.unwrap();
    let error = || String::from("away");
    let address = Address::new("carts", "cart 0");
    let (name, token) = (String::from("b"), [2; 16]);
    let row = |key: &str, value: u8| RowChange {
        view: "v".into(),
        key: key.into(),
        row: Some(NewRow {
            message: Message::new("test.Row", key.to_owned()),
            index: vec![("n".into(), vec![value]), ("z".into(), vec![])],
        }),
    };
    let laggard = Laggard {
        partition: Partition(0),
        address: address.clone(),
        next: Seq(3),
        tries: 2,
        due_ms: 9,
        error: error(),
        parked: false,
    };
    let step = Consumed {
        group: "g".into(),
        off: store.feed_ends().await.unwrap()[0].off,
        laggards: vec![laggard],
        rows: vec![row("a", 2), row("b", 1)],
        ..Consumed::default()
    };
    let chores = [
        chore(Task::EffectPark { id: id(2), tries: 20, error: error() }),
        chore(Task::EffectLater { id: id(3), tries: 2, due_ms: 9, error: error() }),
        chore(Task::TimerLater { address, name, token, due_ms: 99, tries: 1, error: error() }),
        chore(Task::Consumed(step)),
    ];
    store.commit(&[], &chores).await.unwrap();
}

#[tokio::test]
async fn a_group_that_has_more_to_consume_is_refused() {
    let source = MemoryStore::default();
    let fence = conformance::write("", 0, 0).fence;
    let step = Consumed { group: "g".into(), off: 1, ..Consumed::default() };
    let chore = Chore { fence, task: Task::Consumed(step) };
    source.commit(&[conformance::write("a", 0, 3)], &[chore]).await.unwrap();
    let target = MemoryStore::default();
    let copied = copy(&source, &target, |_| fence, true, 100, |_| {}).await;
    let error = copied.unwrap_err().to_string();
    assert!(
        error.starts_with("the consumer group g is at place 1 of 4 in partition 0; "),
        "{error}"
    );
    assert!(is_empty(&target).await.unwrap());
    let copied = copy(&source, &target, |_| fence, false, 100, |_| {}).await.unwrap();
    assert_eq!((copied.events, copied.groups), (3, 0));
    assert_eq!(target.groups(None, 10).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_copy_is_complete_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let source = SqliteStore::open(dir.path()).await.unwrap();
    let expected = fill(&source).await;
    source.pack_now().await;
    let cluster = open(8).await;
    let fence = |shard| Fence { shard, epoch: cluster.holdings.epoch(shard).unwrap() };
    assert!(is_empty(&cluster.store).await.unwrap());
    let mut steps = Vec::new();
    let told = |step| steps.push(step);
    let counts = copy(&source, &cluster.store, fence, true, 100, told).await.unwrap();
    assert_eq!(counts, expected);
    assert_eq!(steps.len(), 62);
    let lagging =
        cluster.store.laggards("g", &(0..8).map(Partition).collect::<Vec<_>>(), 10).await.unwrap();
    assert_eq!((lagging.len(), lagging[0].next), (1, Seq(3)));
    let shard = cluster.holdings.shard_of(&lagging[0].address);
    assert_eq!(lagging[0].partition, Partition(shard.0));
    assert!(!is_empty(&cluster.store).await.unwrap());
    // And back, as every other store can be read and written in the same way.
    let back = MemoryStore::default();
    let counts =
        copy(&cluster.store, &back, |shard| Fence { shard, ..Fence::default() }, true, 100, |_| {})
            .await
            .unwrap();
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn a_claim_is_refused_while_there_is_a_node_and_lets_go_of_every_shard() {
    let url = crate::words::config::Secret::new(postgres::server::Server::shared().database());
    postgres::prepare(&url, 4).await.unwrap();
    let claim = postgres::Claim::take(&url).await.unwrap();
    let second = postgres::Claim::take(&url).await.err().unwrap().to_string();
    assert!(second.contains("is in use: a node is registered"), "{second}");
    assert!(claim.release().await.unwrap());
    postgres::Claim::take(&url).await.unwrap();
}

#[tokio::test]
async fn a_claim_is_refused_if_a_node_takes_a_shard_just_before_it() {
    let server = postgres::server::Server::shared();
    let url = crate::words::config::Secret::new(server.database());
    postgres::prepare(&url, 4).await.unwrap();
    let mut node = postgres::Place::parse(&url).unwrap().connect().await.unwrap();
    let take = "BEGIN; UPDATE shard SET owner = 'a node', owner_inc = 1 WHERE shard_id = 0";
    sqlx::raw_sql(take).execute(&mut node).await.unwrap();
    let name = url.expose().rsplit('/').next().unwrap().to_owned();
    let claim = tokio::spawn(async move { postgres::Claim::take(&url).await.map(drop) });
    let waiting = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while server.sql(&name, waiting) != "1" {
        assert!(!claim.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    sqlx::raw_sql("COMMIT").execute(&mut node).await.unwrap();
    let refused = claim.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("is in use: a node is registered"), "{refused}");
    assert_eq!(server.sql(&name, "SELECT count(*) FROM shard WHERE owner IS NOT NULL"), "1");
    assert_eq!(server.sql(&name, "SELECT count(*) FROM node"), "0");
}
