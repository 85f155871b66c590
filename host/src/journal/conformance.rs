//! What every store must do: one suite, run by all of them.
//!
//! SQLite runs it four times, for between writing and reading a suite says [`Fixture::settle`]: where
//! nothing happens, where everything is packed, where the store is closed and opened again, and where
//! the store is opened as a crash would leave it.

use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::journal::error::StoreError;
use crate::journal::memory::MemoryStore;
use crate::journal::postgres::PgStore;
use crate::journal::postgres::tests::open as open_postgres;
use crate::journal::sqlite::{SqliteOptions, SqliteStore};
use crate::journal::store::{
    DeploymentRecord, EntityFilter, Fence, ModuleRecord, Receipt, Snapshot, Store, StoredEvent,
    Write,
};
use crate::words::{Address, Digest, Epoch, JournalName, Message, Revision, Seq, Shard};

/// A store may forget what has expired by its own clock.
const FUTURE_MS: u64 = 1 << 42;

/// Small enough that a few events fill many slices and segments.
pub(super) fn tiny() -> SqliteOptions {
    SqliteOptions {
        tail_rows_max: usize::MAX,
        tail_bytes_max: 512,
        segment_bytes_max: 256,
        segment_merge_bytes_max: 128,
        pack_slice_bytes: 300,
        pack_slice_entities: 2,
        message_types_max: 1_000,
    }
}

/// What a crash would leave of a directory. Nothing is written to it meanwhile.
pub(super) fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

pub(super) fn event(text: impl Into<String>) -> Message {
    Message::new("test.Event", Bytes::from(text.into()))
}

pub(super) fn write(id: &str, after: u64, count: usize) -> Write {
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    let at_ms = 1_700_000_000_000 + after;
    Write {
        events: (0..count).map(|n| event(format!("{id} {}", after + 1 + n as u64))).collect(),
        ..Write::new(Address::new("carts", id), fence, Seq(after), at_ms)
    }
}

trait Fixture {
    type Store: Store;

    async fn new() -> Self;
    fn store(&self) -> &Self::Store;
    async fn settle(&mut self);

    async fn commit(&mut self, batch: &[Write]) {
        assert_eq!(self.store().commit(batch, &[]).await.unwrap(), []);
        self.settle().await;
    }
}

#[derive(Default)]
struct Memory(MemoryStore);

impl Fixture for Memory {
    type Store = MemoryStore;

    async fn new() -> Self {
        Self::default()
    }

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    async fn settle(&mut self) {}
}

#[derive(Clone, Copy, Debug)]
enum Settle {
    Stay,
    Pack,
    Reopen,
    Crash,
}

struct Sqlite {
    store: SqliteStore,
    dir: TempDir,
}

impl Sqlite {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open_with(dir.path(), tiny()).await.unwrap();
        Self { store, dir }
    }

    async fn settle(&mut self, how: Settle) {
        match how {
            Settle::Stay => {}
            Settle::Pack => self.store.pack_now().await,
            Settle::Reopen => {
                self.store.close().await;
                self.store = SqliteStore::open_with(self.dir.path(), tiny()).await.unwrap();
            }
            Settle::Crash => {
                let dir = copy(self.dir.path());
                self.store = SqliteStore::open_with(dir.path(), tiny()).await.unwrap();
                self.dir = dir;
            }
        }
    }
}

macro_rules! sqlite_fixture {
    ($name:ident, $settle:expr) => {
        struct $name(Sqlite);

        impl Fixture for $name {
            type Store = SqliteStore;

            async fn new() -> Self {
                Self(Sqlite::open().await)
            }

            fn store(&self) -> &SqliteStore {
                &self.0.store
            }

            async fn settle(&mut self) {
                self.0.settle($settle).await;
            }
        }
    };
}

sqlite_fixture!(Unpacked, Settle::Stay);
sqlite_fixture!(Packed, Settle::Pack);
sqlite_fixture!(Reopened, Settle::Reopen);
sqlite_fixture!(Crashed, Settle::Crash);

/// One shard, which is owned.
struct Postgres(PgStore);

impl Fixture for Postgres {
    type Store = PgStore;

    async fn new() -> Self {
        Self(open_postgres(1).await.store)
    }

    fn store(&self) -> &PgStore {
        &self.0
    }

    async fn settle(&mut self) {}
}

macro_rules! conformance {
    ($($test:ident)*) => {
        conformance!(@ memory Memory $($test)*);
        conformance!(@ sqlite Unpacked $($test)*);
        conformance!(@ sqlite_packed Packed $($test)*);
        conformance!(@ sqlite_reopened Reopened $($test)*);
        conformance!(@ sqlite_crashed Crashed $($test)*);
        conformance!(@ postgres Postgres $($test)*);
    };
    (@ $module:ident $fixture:ident $($test:ident)*) => {
        mod $module {
            use super::Fixture as _;
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(super::$fixture::new().await).await;
                }
            )*
        }
    };
}

conformance! {
    numbers_events_in_the_order_of_their_writes
    keeps_time_type_and_bytes_of_every_event
    refuses_a_batch_with_a_conflict_as_a_whole
    pages_events_by_count_and_by_bytes
    reads_entities_with_many_and_large_events
    finds_the_newest_snapshot_up_to_a_number
    keeps_receipts_until_they_expire
    lists_entities_in_order_and_in_pages
    stores_ids_verbatim
    keeps_modules_by_digest
    keeps_deployments_in_order
    knows_nothing_of_an_unknown_entity
    fails_when_closed
}

async fn all_events(store: &impl Store, address: &Address) -> Vec<StoredEvent> {
    let mut events: Vec<StoredEvent> = Vec::new();
    loop {
        let from = Seq(events.len() as u64 + 1);
        let page = store.events(address, from, 7, 200).await.unwrap();
        events.extend(page.events);
        if !page.more {
            return events;
        }
    }
}

fn numbers(events: &[StoredEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq.0).collect()
}

async fn numbers_events_in_the_order_of_their_writes(mut fixture: impl Fixture) {
    fixture.commit(&[write("a", 0, 2), write("b", 0, 1), write("a", 2, 1)]).await;
    fixture.commit(&[write("a", 3, 3)]).await;
    let store = fixture.store();
    let events = all_events(store, &Address::new("carts", "a")).await;
    assert_eq!(numbers(&events), [1, 2, 3, 4, 5, 6]);
    for stored in &events {
        assert_eq!(stored.event, event(format!("a {}", stored.seq)));
    }
    assert_eq!(store.load(&Address::new("carts", "a"), None).await.unwrap().seq, Seq(6));
    assert_eq!(store.load(&Address::new("carts", "b"), None).await.unwrap().seq, Seq(1));
    // The same id in another journal is another entity.
    assert_eq!(store.load(&Address::new("games", "a"), None).await.unwrap().seq, Seq(0));
}

async fn keeps_time_type_and_bytes_of_every_event(mut fixture: impl Fixture) {
    let bytes: Vec<u8> = (0..=255).collect();
    let mut written = write("a", 0, 0);
    written.events = vec![
        Message::new("test.Bytes", bytes.clone()),
        Message::new("test.Empty", Bytes::new()),
        Message::new("test.Bytes", Bytes::from_static(b"\0")),
    ];
    written.at_ms = 42;
    let later = Write { at_ms: 7, ..write("a", 3, 1) };
    fixture.commit(std::slice::from_ref(&written)).await;
    fixture.commit(std::slice::from_ref(&later)).await;
    let events = all_events(fixture.store(), &written.address).await;
    let found: Vec<_> = events.iter().map(|stored| (stored.at_ms, stored.event.clone())).collect();
    let expected: Vec<_> = [written, later]
        .into_iter()
        .flat_map(|write| write.events.into_iter().map(move |event| (write.at_ms, event)))
        .collect();
    assert_eq!(found, expected);
}

async fn refuses_a_batch_with_a_conflict_as_a_whole(mut fixture: impl Fixture) {
    fixture.commit(&[write("a", 0, 2)]).await;
    for batch in [
        vec![write("new", 0, 1), write("a", 1, 1)],
        vec![write("new", 0, 1), write("a", 3, 1)],
        vec![write("new", 0, 1), write("new", 0, 1)],
        vec![write("a", 2, 1), write("new", 1, 1)],
    ] {
        let error = fixture.store().commit(&batch, &[]).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
    fixture.settle().await;
    let store = fixture.store();
    assert_eq!(store.load(&Address::new("carts", "new"), None).await.unwrap().seq, Seq(0));
    assert_eq!(numbers(&all_events(store, &Address::new("carts", "a")).await), [1, 2]);
    fixture.commit(&[write("new", 0, 1), write("a", 2, 1)]).await;
}

async fn pages_events_by_count_and_by_bytes(mut fixture: impl Fixture) {
    let a = Address::new("carts", "a");
    for after in [0, 10, 20] {
        fixture.commit(&[write("a", after, 10)]).await;
    }
    let store = fixture.store();
    let page = store.events(&a, Seq(1), 4, usize::MAX).await.unwrap();
    assert_eq!((numbers(&page.events), page.more), (vec![1, 2, 3, 4], true));
    let page = store.events(&a, Seq(9), 4, usize::MAX).await.unwrap();
    assert_eq!((numbers(&page.events), page.more), (vec![9, 10, 11, 12], true));
    let page = store.events(&a, Seq(27), 4, usize::MAX).await.unwrap();
    assert_eq!((numbers(&page.events), page.more), (vec![27, 28, 29, 30], false));
    let page = store.events(&a, Seq(0), 100, usize::MAX).await.unwrap();
    assert_eq!((page.events.len(), page.more), (30, false));
    let page = store.events(&a, Seq(31), 4, usize::MAX).await.unwrap();
    assert_eq!((numbers(&page.events), page.more), (vec![], false));
    // At least one, however few bytes are asked for.
    let page = store.events(&a, Seq(5), 4, 0).await.unwrap();
    assert_eq!((numbers(&page.events), page.more), (vec![5], true));
    let page = store.events(&a, Seq(5), 0, 0).await.unwrap();
    assert_eq!((numbers(&page.events), page.more), (vec![5], true));
    // An event counts 13 bytes or 14: its type and its data.
    let page = store.events(&a, Seq(1), 100, 50).await.unwrap();
    assert_eq!((numbers(&page.events), page.more), (vec![1, 2, 3, 4], true));
}

async fn reads_entities_with_many_and_large_events(mut fixture: impl Fixture) {
    let mut large = write("large", 0, 3);
    large.events.insert(1, event("x".repeat(100_000)));
    let batch: Vec<Write> = (0..40).map(|n| write("many", n * 10, 10)).collect();
    fixture.commit(std::slice::from_ref(&large)).await;
    fixture.commit(&batch).await;
    fixture.commit(&[write("many", 400, 300), write("large", 4, 1)]).await;
    let store = fixture.store();
    let many = all_events(store, &Address::new("carts", "many")).await;
    assert_eq!(numbers(&many), (1..=700).collect::<Vec<_>>());
    assert!(many.iter().all(|stored| stored.event == event(format!("many {}", stored.seq))));
    let found = all_events(store, &large.address).await;
    assert_eq!(numbers(&found), [1, 2, 3, 4, 5]);
    assert_eq!(found[1].event, large.events[1]);
}

async fn finds_the_newest_snapshot_up_to_a_number(mut fixture: impl Fixture) {
    let state = |text: &str| Message::new("test.State", text.to_owned());
    for (after, text) in [(0, "two"), (2, "four"), (4, "six")] {
        let snapshot = Some(state(text));
        fixture.commit(&[Write { snapshot, ..write("a", after, 2) }]).await;
    }
    fixture.commit(&[write("a", 6, 1)]).await;
    let store = fixture.store();
    let a = Address::new("carts", "a");
    let six = Some(Snapshot { seq: Seq(6), state: state("six") });
    let four = Some(Snapshot { seq: Seq(4), state: state("four") });
    for (at, expected) in [
        (None, &six),
        (Some(Seq(7)), &six),
        (Some(Seq(99)), &six),
        (Some(Seq(6)), &six),
        (Some(Seq(5)), &four),
        (Some(Seq(4)), &four),
        // Only the newest two are kept: the events tell the rest.
        (Some(Seq(3)), &None),
        (Some(Seq(0)), &None),
    ] {
        let loaded = store.load(&a, at).await.unwrap();
        assert_eq!((&loaded.snapshot, loaded.seq), (expected, Seq(7)), "at {at:?}");
    }
}

async fn keeps_receipts_until_they_expire(mut fixture: impl Fixture) {
    let receipt = |key: &str, reply: &'static [u8]| Receipt {
        key: key.into(),
        request_hash: [7; 32],
        reply: Bytes::from_static(reply),
        expires_at_ms: FUTURE_MS + 5_000,
    };
    let a = Address::new("carts", "a");
    let first = receipt("k", b"reply");
    fixture.commit(&[Write { receipt: Some(first.clone()), ..write("a", 0, 1) }]).await;
    let store = fixture.store();
    assert_eq!(store.receipt(&a, "k", FUTURE_MS + 4_999).await.unwrap(), Some(first));
    assert_eq!(store.receipt(&a, "k", FUTURE_MS + 5_000).await.unwrap(), None);
    assert_eq!(store.receipt(&a, "K", 0).await.unwrap(), None);
    assert_eq!(store.receipt(&Address::new("carts", "b"), "k", 0).await.unwrap(), None);
    // A key that has expired may be used again; a command without events has a receipt too.
    let second = Receipt { expires_at_ms: FUTURE_MS + 9_000, ..receipt("k", b"") };
    fixture.commit(&[Write { receipt: Some(second.clone()), ..write("a", 1, 0) }]).await;
    assert_eq!(fixture.store().receipt(&a, "k", FUTURE_MS + 8_000).await.unwrap(), Some(second));
}

async fn lists_entities_in_order_and_in_pages(mut fixture: impl Fixture) {
    let mut batch: Vec<Write> =
        ["b", "a/2", "a/1", "a", "B", "ä", "a/10"].map(|id| write(id, 0, 2)).into();
    batch.push(Write { address: Address::new("games", "a/3"), ..write("a/3", 0, 1) });
    batch.push(Write { address: Address::new("cart", "z"), ..write("z", 0, 1) });
    let receipt = Receipt {
        key: "k".into(),
        request_hash: [0; 32],
        reply: Bytes::new(),
        expires_at_ms: u64::MAX >> 1,
    };
    batch.push(Write { receipt: Some(receipt), ..write("a/no-events", 0, 0) });
    fixture.commit(&batch).await;
    fixture.commit(&[write("a/2", 2, 1)]).await;
    let store = fixture.store();
    let list = async |journal: Option<&str>, id_prefix: &str, after: Option<Address>, limit| {
        let filter = EntityFilter {
            journal: journal.map(JournalName::from),
            id_prefix: id_prefix.into(),
            after,
            limit,
        };
        let page = store.entities(&filter).await.unwrap();
        let names: Vec<String> =
            page.entities.iter().map(|e| format!("{}/{}@{}", e.journal, e.id, e.seq)).collect();
        (names.join(" "), page.more)
    };
    let listed = |text: &str, more| (text.to_owned(), more);
    let carts = "carts/B@2 carts/a@2 carts/a/1@2 carts/a/10@2 carts/a/2@3 carts/b@2 carts/ä@2";
    assert_eq!(list(Some("carts"), "", None, 10).await, listed(carts, false));
    let all = format!("cart/z@1 {carts} games/a/3@1");
    assert_eq!(list(None, "", None, 9).await, (all.clone(), false));
    let with_prefix = "carts/a/1@2 carts/a/10@2 carts/a/2@3";
    assert_eq!(list(Some("carts"), "a/", None, 3).await, listed(with_prefix, false));
    let everywhere = format!("{with_prefix} games/a/3@1");
    assert_eq!(list(None, "a/", None, 4).await, (everywhere, false));
    assert_eq!(list(Some("carts"), "ä", None, 4).await, listed("carts/ä@2", false));
    assert_eq!(list(Some("nothing"), "", None, 4).await, listed("", false));
    // Another journal's place in the order is not this one's.
    let after = Some(Address::new("cart", "zz"));
    assert_eq!(list(Some("carts"), "", after, 1).await, listed("carts/B@2", true));
    let after = Some(Address::new("games", "a"));
    assert_eq!(list(Some("carts"), "", after, 1).await, listed("", false));
    // Pages of one make the same list.
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let filter = EntityFilter { after, limit: 1, ..EntityFilter::default() };
        let page = store.entities(&filter).await.unwrap();
        let entity = page.entities[0].clone();
        pages.push(format!("{}/{}@{}", entity.journal, entity.id, entity.seq));
        after = Some(Address { journal: entity.journal, id: entity.id });
        if !page.more {
            break;
        }
    }
    assert_eq!(pages.join(" "), all);
    let count = async |journal, limit| {
        store.count_entities(&JournalName::from(journal), limit).await.unwrap()
    };
    assert_eq!(count("carts", 100).await, 7);
    assert_eq!(count("carts", 3).await, 3);
    assert_eq!(count("nothing", 3).await, 0);
}

async fn stores_ids_verbatim(mut fixture: impl Fixture) {
    let long = "é".repeat(32 * 1024);
    let ids = ["a\0b", "a\0", "a", "../../etc/passwd", "' OR 1=1 --", "%", "🛒", " ", "", &long];
    let batch: Vec<Write> = ids.iter().map(|id| write(id, 0, 1)).collect();
    fixture.commit(&batch).await;
    let store = fixture.store();
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let filter = EntityFilter { limit: 100, ..EntityFilter::default() };
    let page = store.entities(&filter).await.unwrap();
    let listed: Vec<&str> = page.entities.iter().map(|entity| entity.id.as_str()).collect();
    assert_eq!(listed, sorted);
    for id in ids {
        let events = all_events(store, &Address::new("carts", id)).await;
        assert_eq!(events[0].event, event(format!("{id} 1")));
    }
}

async fn keeps_modules_by_digest(mut fixture: impl Fixture) {
    let bytes = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    let records = [1, 2].map(|n: usize| ModuleRecord {
        digest: Digest::of(&bytes[n - 1]),
        name: format!("cart-{n}.wasm"),
        bytes: 3,
        uploaded_at_ms: n as u64,
    });
    for (record, bytes) in records.iter().zip(&bytes).rev() {
        fixture.store().put_module(record, bytes).await.unwrap();
    }
    let again = ModuleRecord { name: "other.wasm".into(), ..records[0].clone() };
    fixture.store().put_module(&again, &bytes[0]).await.unwrap();
    fixture.settle().await;
    let store = fixture.store();
    assert_eq!(store.modules().await.unwrap(), records);
    let found = store.module(&records[1].digest).await.unwrap();
    assert_eq!(found, Some((records[1].clone(), bytes[1].clone())));
    assert_eq!(store.module(&Digest([0; 32])).await.unwrap(), None);
}

async fn keeps_deployments_in_order(mut fixture: impl Fixture) {
    let record = |revision| DeploymentRecord {
        revision: Revision(revision),
        modules: (0..revision as u8).map(|n| Digest([n; 32])).collect(),
        created_at_ms: revision * 10,
        note: format!("deploy {revision}"),
    };
    for revision in [1, 2, 3] {
        fixture.store().put_deployment(&record(revision)).await.unwrap();
    }
    for revision in [0, 2, 3, 5] {
        let error = fixture.store().put_deployment(&record(revision)).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
    fixture.settle().await;
    let found = fixture.store().deployments().await.unwrap();
    assert_eq!(found, [record(1), record(2), record(3)]);
}

async fn knows_nothing_of_an_unknown_entity(mut fixture: impl Fixture) {
    fixture.settle().await;
    let store = fixture.store();
    let unknown = Address::new("carts", "unknown");
    let loaded = store.load(&unknown, None).await.unwrap();
    assert_eq!((loaded.snapshot, loaded.seq), (None, Seq::ZERO));
    let page = store.events(&unknown, Seq(1), 10, 1000).await.unwrap();
    assert_eq!((page.events, page.more), (vec![], false));
    assert_eq!(store.receipt(&unknown, "k", 0).await.unwrap(), None);
    // Having asked for it does not keep it from being written.
    fixture.commit(&[write("unknown", 0, 1)]).await;
    assert_eq!(fixture.store().load(&unknown, None).await.unwrap().seq, Seq(1));
}

async fn fails_when_closed(mut fixture: impl Fixture) {
    fixture.commit(&[write("a", 0, 1)]).await;
    let store = fixture.store();
    store.close().await;
    store.close().await;
    store.commit(&[write("a", 1, 1)], &[]).await.unwrap_err();
    store.events(&Address::new("carts", "b"), Seq(1), 1, 1).await.unwrap_err();
    store.modules().await.unwrap_err();
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Turn>),
    Settle(Settle),
}

#[derive(Clone, Debug)]
struct Turn {
    id: u8,
    sizes: Vec<usize>,
    has_snapshot: bool,
    has_receipt: bool,
    is_conflict: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let turn = (
        0..5u8,
        prop::collection::vec(0..120usize, 0..5),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.05),
    );
    let turn = turn.prop_map(|(id, sizes, has_snapshot, has_receipt, is_conflict)| Turn {
        id,
        sizes,
        has_snapshot,
        has_receipt,
        is_conflict,
    });
    prop_oneof![
        6 => prop::collection::vec(turn, 1..8).prop_map(Step::Commit),
        2 => Just(Step::Settle(Settle::Pack)),
        1 => Just(Step::Settle(Settle::Reopen)),
        1 => Just(Step::Settle(Settle::Crash)),
    ]
}

fn batch(turns: &[Turn], heads: &mut [u64; 5]) -> Vec<Write> {
    let mut writes = Vec::new();
    for turn in turns {
        let head = &mut heads[usize::from(turn.id)];
        let after = *head + u64::from(turn.is_conflict);
        let mut write = write(&turn.id.to_string(), after, 0);
        write.events = turn.sizes.iter().map(|size| event("x".repeat(*size))).collect();
        write.snapshot = turn.has_snapshot.then(|| event(format!("state after {after}")));
        write.receipt = turn.has_receipt.then(|| Receipt {
            key: format!("key {}", after % 3),
            request_hash: [after as u8; 32],
            reply: Bytes::from(vec![turn.id; 10]),
            expires_at_ms: FUTURE_MS + after,
        });
        *head += turn.sizes.len() as u64;
        writes.push(write);
    }
    writes
}

async fn assert_same(one: &impl Store, other: &impl Store) {
    let filter = EntityFilter { limit: 100, ..EntityFilter::default() };
    let page = one.entities(&filter).await.unwrap();
    assert_eq!(page.entities, other.entities(&filter).await.unwrap().entities);
    for id in 0..5u8 {
        let address = Address::new("carts", id.to_string());
        let events = all_events(one, &address).await;
        assert_eq!(events, all_events(other, &address).await);
        for at in (0..=events.len() as u64 + 1).map(|at| Some(Seq(at))).chain([None]) {
            let (one, other) = (one.load(&address, at).await, other.load(&address, at).await);
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!((one.snapshot, one.seq), (other.snapshot, other.seq));
        }
        for key in ["key 0", "key 1", "key 2"] {
            let receipts = (
                one.receipt(&address, key, FUTURE_MS + 3).await,
                other.receipt(&address, key, FUTURE_MS + 3).await,
            );
            assert_eq!(receipts.0.unwrap(), receipts.1.unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stores_read_the_same_whatever_happens(steps in prop::collection::vec(step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let memory = MemoryStore::default();
            let mut sqlite = Sqlite::open().await;
            let mut heads = [0; 5];
            for step in steps {
                match step {
                    Step::Commit(turns) => {
                        let mut after = heads;
                        let batch = batch(&turns, &mut after);
                        let stored = memory.commit(&batch, &[]).await.is_ok();
                        assert_eq!(stored, sqlite.store.commit(&batch, &[]).await.is_ok());
                        if stored {
                            heads = after;
                        }
                    }
                    Step::Settle(how) => {
                        sqlite.settle(how).await;
                        assert_same(&memory, &sqlite.store).await;
                    }
                }
            }
            assert_same(&memory, &sqlite.store).await;
        });
    }
}
