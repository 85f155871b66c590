//! Events that their owner does not need any more.

use super::*;
use crate::journal::error::StoreError;

fn forgetting(after: u64, count: usize, before: u64) -> Write {
    Write { forget_before: Some(Seq(before)), ..write("a", after, count) }
}

/// What is read from a number on: it has no gap, ends with the newest, and begins at `kept` at the latest.
async fn assert_kept(store: &impl Store, kept: u64, head: u64) {
    let a = Address::new("carts", "a");
    assert_eq!(store.load(&a, None).await.unwrap().seq, Seq(head));
    // In one page: between two, more may be dropped.
    let events = store.events(&a, Seq(1), usize::MAX >> 1, usize::MAX >> 1).await.unwrap().events;
    let first = events[0].seq.0;
    assert!(first <= kept, "event {kept} is gone, the first is {first}");
    assert_eq!(numbers(&events), (first..=head).collect::<Vec<_>>());
    for stored in &events {
        assert_eq!(stored.event, event(format!("a {}", stored.seq)));
    }
    // More may be dropped in the meantime, but nothing that is kept.
    for from in [first.saturating_sub(1), kept, head] {
        let page = store.events(&a, Seq(from), 1, 1).await.unwrap();
        let [found] = numbers(&page.events)[..] else { panic!("{:?}", page.events) };
        assert!((from..=from.max(kept)).contains(&found), "event {found} instead of {from}");
        assert_eq!(page.more, found < head);
    }
    let page = store.events(&a, Seq(head + 1), 9, 999).await.unwrap();
    assert_eq!((numbers(&page.events), page.more), (vec![], false));
    let filter = EntityFilter { limit: 10, ..EntityFilter::default() };
    assert_eq!(store.entities(&filter).await.unwrap().entities[0].seq, Seq(head));
}

pub async fn starts_with_the_first_event_that_is_kept(mut fixture: impl Fixture) {
    fixture.commit(&[write("a", 0, 30)]).await;
    fixture.commit(&[forgetting(30, 1, 12)]).await;
    assert_kept(fixture.store(), 12, 31).await;
    for after in 31..40 {
        fixture.commit(&[write("a", after, 1)]).await;
    }
    fixture.commit(&[forgetting(40, 0, 39)]).await;
    assert_kept(fixture.store(), 39, 40).await;
    fixture.commit(&[write("a", 40, 100)]).await;
    assert_kept(fixture.store(), 39, 140).await;
    fixture.commit(&[forgetting(140, 1, 141)]).await;
    assert_kept(fixture.store(), 141, 141).await;
}

pub async fn keeps_the_newest_event_whatever_is_forgotten(mut fixture: impl Fixture) {
    fixture.commit(&[forgetting(0, 3, u64::MAX)]).await;
    assert_kept(fixture.store(), 3, 3).await;
    fixture.commit(&[forgetting(3, 0, u64::MAX)]).await;
    assert_kept(fixture.store(), 3, 3).await;
    // Nothing to forget, and nothing there.
    fixture.commit(&[Write { forget_before: Some(Seq(9)), ..write("b", 0, 0) }]).await;
    fixture.commit(&[write("b", 0, 1), write("a", 3, 1)]).await;
    assert_kept(fixture.store(), 3, 4).await;
}

pub async fn checks_numbers_as_if_nothing_were_forgotten(mut fixture: impl Fixture) {
    fixture.commit(&[write("a", 0, 5), forgetting(5, 5, 10)]).await;
    for after in [0, 1, 9, 11] {
        let error = fixture.store().commit(&[write("a", after, 1)], &[]).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    }
    fixture.commit(&[write("a", 10, 1)]).await;
    assert_kept(fixture.store(), 10, 11).await;
}

pub async fn forgets_in_the_batch_that_stores(mut fixture: impl Fixture) {
    for round in 0..8 {
        let batch: Vec<Write> = (0..64)
            .map(|n| {
                let after = round * 64 + n;
                let before = (after % 16 == 15).then_some(Seq(after + 1));
                Write { forget_before: before, ..write("a", after, 1) }
            })
            .collect();
        fixture.commit(&batch).await;
        assert_kept(fixture.store(), (round + 1) * 64, (round + 1) * 64).await;
    }
}

pub async fn begins_a_copy_at_the_first_event_that_is_kept(mut fixture: impl Fixture) {
    let batch = [forgetting(20, 1, 21), write("a", 21, 5), write("b", 0, 1)];
    let error = fixture.store().commit(&batch, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(fixture.store().import(&batch).await.unwrap(), []);
    fixture.settle().await;
    assert_kept(fixture.store(), 21, 26).await;
    // An entity that is there goes on where it is.
    let error = fixture.store().import(&[forgetting(30, 1, 31)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    fixture.commit(&[write("a", 26, 1)]).await;
    assert_kept(fixture.store(), 21, 27).await;
}

/// Stores may sweep behind the hot path.
async fn assert_places(fixture: &impl Fixture, expected: i64) {
    let deadline = clock::now() + Duration::from_secs(60);
    loop {
        let places = fixture.places().await;
        if places == expected {
            return;
        }
        assert!(clock::now() < deadline, "{places} places instead of {expected}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn keeps_no_places_in_the_feed_for_what_is_forgotten(mut fixture: impl Fixture) {
    fixture.commit(&[write("a", 0, 20), write("b", 0, 2), write("c", 0, 1)]).await;
    assert_places(&fixture, 23).await;
    fixture.commit(&[forgetting(20, 1, 21)]).await;
    assert_places(&fixture, 4).await;
    // With no new event beside, and down to the newest place of all.
    let b = Write { forget_before: Some(Seq(u64::MAX)), ..write("b", 2, 0) };
    fixture.commit(&[b, forgetting(21, 0, u64::MAX)]).await;
    assert_places(&fixture, 3).await;
    fixture.commit(&[write("c", 1, 1)]).await;
    assert_places(&fixture, 4).await;
    let page = fixture.store().feed(Partition(0), 1, 100, 9_999).await.unwrap();
    let offs: Vec<u64> = page.entries.iter().map(|entry| entry.off).collect();
    assert_eq!((offs, page.next_off), (vec![22, 23, 24, 25], 26));
}
