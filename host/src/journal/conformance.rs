//! What every store must do: one suite, run by all of them.
//!
//! SQLite runs it four times, for between writing and reading a suite says [`Fixture::settle`]: where
//! nothing happens, where everything is packed, where the store is closed and opened again, and where
//! the store is opened as a crash would leave it.

mod catalogue;
mod effects;
mod events;
mod feed;
mod forget;
mod model;
mod timers;
mod views;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use crate::journal::error::OpenError;
use crate::journal::error::StoreError;
use crate::journal::memory::MemoryStore;
use crate::journal::postgres::PgStore;
use crate::journal::postgres::tests::open as open_postgres;
use crate::journal::sqlite::tests::functions::number;
use crate::journal::sqlite::{SqliteOptions, SqliteStore};
use crate::journal::store::{
    Chore, EntityFilter, Fence, Partition, Receipt, Snapshot, Store, StoredEvent, Task, Write,
};
use crate::words::{Address, Epoch, Message, Seq, Shard, clock};

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

const FENCE: Fence = Fence { shard: Shard(0), epoch: Epoch(1) };

fn chore(task: Task) -> Chore {
    Chore { fence: FENCE, task }
}

trait Fixture {
    type Store: Store;

    async fn new() -> Self;
    fn store(&self) -> &Self::Store;
    async fn settle(&mut self);
    /// Events that have a place in the feed, once there was time to sweep it.
    async fn places(&self) -> i64;

    async fn commit(&mut self, batch: &[Write]) {
        self.commit_with(batch, &[]).await;
    }

    async fn chores(&mut self, tasks: impl IntoIterator<Item = Task>) {
        let chores: Vec<Chore> = tasks.into_iter().map(chore).collect();
        self.commit_with(&[], &chores).await;
    }

    async fn commit_with(&mut self, batch: &[Write], chores: &[Chore]) {
        assert_eq!(self.store().commit(batch, chores).await.unwrap(), []);
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

    async fn places(&self) -> i64 {
        let partition = Partition(0);
        self.0.feed(partition, 1, usize::MAX >> 1, usize::MAX >> 1).await.unwrap().entries.len()
            as i64
    }
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
                self.store = reopened(self.dir.path()).await;
            }
            Settle::Crash => {
                let dir = copy(self.dir.path());
                self.store = SqliteStore::open_with(dir.path(), tiny()).await.unwrap();
                self.dir = dir;
            }
        }
    }
}

/// Opens a store that was closed. A process that was being started meanwhile, by another test, may hold a copy of
/// the lock until it runs.
async fn reopened(dir: &Path) -> SqliteStore {
    let deadline = clock::now() + Duration::from_secs(10);
    loop {
        match SqliteStore::open_with(dir, tiny()).await {
            Err(OpenError::InUse { .. }) if clock::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => return opened.unwrap(),
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

            async fn places(&self) -> i64 {
                self.0.store.pack_now().await;
                let places = "SELECT (SELECT count(*) FROM feed) + count(*) FROM journal";
                number(&self.0.store, places).await
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

    async fn places(&self) -> i64 {
        let mut connection = self.0.connection().await.unwrap();
        let places = sqlx::query_scalar("SELECT count(*) FROM journal");
        places.fetch_one(&mut connection).await.unwrap()
    }
}

macro_rules! conformance {
    ($($from:ident { $($test:ident)* })*) => {
        conformance!(@ memory Memory $($from { $($test)* })*);
        conformance!(@ sqlite Unpacked $($from { $($test)* })*);
        conformance!(@ sqlite_packed Packed $($from { $($test)* })*);
        conformance!(@ sqlite_reopened Reopened $($from { $($test)* })*);
        conformance!(@ sqlite_crashed Crashed $($from { $($test)* })*);
        conformance!(@ postgres Postgres $($from { $($test)* })*);
    };
    (@ $module:ident $fixture:ident $($from:ident { $($test:ident)* })*) => {
        mod $module {
            use super::Fixture as _;
            $($(
                #[tokio::test]
                async fn $test() {
                    super::$from::$test(super::$fixture::new().await).await;
                }
            )*)*
        }
    };
}

conformance! {
    events {
        numbers_events_in_the_order_of_their_writes
        keeps_time_type_and_bytes_of_every_event
        refuses_a_batch_with_a_conflict_as_a_whole
        pages_events_by_count_and_by_bytes
        reads_entities_with_many_and_large_events
        finds_the_newest_snapshot_up_to_a_number
        keeps_receipts_until_they_expire
        lists_entities_in_order_and_in_pages
        stores_ids_verbatim
        knows_nothing_of_an_unknown_entity
        fails_when_closed
    }
    catalogue {
        keeps_modules_by_digest
        keeps_deployments_in_order
    }
    effects {
        keeps_effects_in_order_with_their_calls
        keeps_effects_of_commands_without_events
        stores_neither_effects_nor_timers_of_a_batch_with_a_conflict
        forgets_effects_that_are_done
        forgets_an_effect_with_the_write_that_has_its_result
        puts_effects_off_parks_and_retries_them
        applies_the_chores_of_a_batch_in_order
        ends_a_page_of_effects_at_its_bytes
    }
    timers {
        finds_timers_that_are_due_earliest_first
        sets_a_timer_again_and_cancels_it
        puts_a_timer_off_unless_it_was_set_again
        keeps_everything_of_a_timer
        lists_timers_of_all_entities_in_order
    }
    forget {
        starts_with_the_first_event_that_is_kept
        keeps_the_newest_event_whatever_is_forgotten
        checks_numbers_as_if_nothing_were_forgotten
        forgets_in_the_batch_that_stores
        begins_a_copy_at_the_first_event_that_is_kept
        keeps_no_places_in_the_feed_for_what_is_forgotten
    }
    feed {
        feeds_events_of_every_journal_in_the_order_of_their_commits
        pages_the_feed_by_count_and_by_bytes
        leaves_forgotten_events_out_of_the_feed
        moves_a_group_from_the_place_where_it_is
        refuses_a_batch_with_a_step_from_elsewhere_as_a_whole
        keeps_laggards_until_they_have_caught_up
        forgets_a_group
    }
    views {
        keeps_rows_by_key
        lists_rows_by_an_indexed_field_in_both_directions
        pages_rows_by_value_and_key
        replaces_the_values_of_a_row
        lists_rows_with_all_of_their_values
        deletes_a_view_and_no_other
    }
}

async fn all_events(store: &impl Store, address: &Address) -> Vec<StoredEvent> {
    let mut events: Vec<StoredEvent> = Vec::new();
    loop {
        let from = events.last().map_or(Seq(1), |last| last.seq.plus(1));
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
