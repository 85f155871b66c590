//! Whatever happens to a store on a disk, it reads like the one in memory.

use proptest::prelude::*;

use super::*;
use crate::journal::store::{FeedEntry, Partition};

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
    /// How many of the newest events stay, if any are to be forgotten.
    keep: Option<u64>,
}

fn step() -> impl Strategy<Value = Step> {
    let turn = (
        0..5u8,
        prop::collection::vec(0..120usize, 0..5),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.05),
        prop::option::weighted(0.1, 0..10u64),
    );
    let turn = turn.prop_map(|(id, sizes, has_snapshot, has_receipt, is_conflict, keep)| Turn {
        id,
        sizes,
        has_snapshot,
        has_receipt,
        is_conflict,
        keep,
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
        // Numbers never go back.
        let before = turn.keep.map(|keep| Seq((write.head().0 + 1).saturating_sub(keep)));
        write.forget_before = before;
        *head += turn.sizes.len() as u64;
        writes.push(write);
    }
    writes
}

async fn feed(store: &impl Store) -> Vec<FeedEntry> {
    let end = store.feed_ends().await.unwrap()[0].off;
    let mut entries = Vec::new();
    let mut next = 1;
    while next < end {
        let page = store.feed(Partition(0), next, 9, 500).await.unwrap();
        assert!(page.next_off > next);
        next = page.next_off;
        entries.extend(page.entries);
    }
    assert_eq!(next, end);
    entries
}

async fn assert_same(one: &impl Store, other: &impl Store) {
    let entries = feed(one).await;
    let mut others = feed(other).await;
    others.retain(|other| entries.iter().any(|entry| entry.off == other.off));
    assert_eq!(entries, others);
    let filter = EntityFilter { limit: 100, ..EntityFilter::default() };
    let page = one.entities(&filter).await.unwrap();
    assert_eq!(page.entities, other.entities(&filter).await.unwrap().entities);
    for id in 0..5u8 {
        let address = Address::new("carts", id.to_string());
        // One drops what may be forgotten at once, the other when it packs.
        let events = all_events(one, &address).await;
        let others = all_events(other, &address).await;
        assert!(others.ends_with(&events), "{:?} {:?}", numbers(&events), numbers(&others));
        let head = events.last().map_or(0, |last| last.seq.0);
        for at in (0..=head + 1).map(|at| Some(Seq(at))).chain([None]) {
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
