//! Events, snapshots, receipts, and lists of entities.

use super::*;
use crate::words::{JournalName, Seq};

pub async fn numbers_events_in_the_order_of_their_writes(mut fixture: impl Fixture) {
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

pub async fn keeps_time_type_and_bytes_of_every_event(mut fixture: impl Fixture) {
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

pub async fn refuses_a_batch_with_a_conflict_as_a_whole(mut fixture: impl Fixture) {
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

pub async fn pages_events_by_count_and_by_bytes(mut fixture: impl Fixture) {
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

pub async fn reads_entities_with_many_and_large_events(mut fixture: impl Fixture) {
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

pub async fn finds_the_newest_snapshot_up_to_a_number(mut fixture: impl Fixture) {
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

pub async fn keeps_receipts_until_they_expire(mut fixture: impl Fixture) {
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

pub async fn lists_entities_in_order_and_in_pages(mut fixture: impl Fixture) {
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

pub async fn stores_ids_verbatim(mut fixture: impl Fixture) {
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

pub async fn knows_nothing_of_an_unknown_entity(mut fixture: impl Fixture) {
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

pub async fn fails_when_closed(mut fixture: impl Fixture) {
    fixture.commit(&[write("a", 0, 1)]).await;
    let store = fixture.store();
    store.close().await;
    store.close().await;
    store.commit(&[write("a", 1, 1)], &[]).await.unwrap_err();
    store.events(&Address::new("carts", "b"), Seq(1), 1, 1).await.unwrap_err();
    store.modules().await.unwrap_err();
}
