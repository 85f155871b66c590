//! The feed of all events, and the places of groups in it.

use super::*;
use crate::journal::error::StoreError;
use crate::journal::store::{Consumed, FeedEntry, GroupPosition, Laggard, Partition};

const PARTITION: Partition = Partition(0);

async fn feed(store: &impl Store, from: u64) -> Vec<FeedEntry> {
    let mut entries = Vec::new();
    let mut next = from;
    loop {
        let page = store.feed(PARTITION, next, 7, 200).await.unwrap();
        if page.entries.is_empty() && page.next_off == next {
            assert_eq!(store.feed_ends().await.unwrap(), [position(next)]);
            return entries;
        }
        assert!(page.entries.iter().all(|entry| (next..page.next_off).contains(&entry.off)));
        next = page.next_off;
        entries.extend(page.entries);
    }
}

fn told(entries: &[FeedEntry]) -> String {
    let tell = |entry: &FeedEntry| format!("{}:{}@{}", entry.off, entry.address, entry.seq);
    entries.iter().map(tell).collect::<Vec<_>>().join(" ")
}

fn position(off: u64) -> GroupPosition {
    GroupPosition { partition: PARTITION, off }
}

fn step(expected_off: u64, off: u64) -> Consumed {
    Consumed { group: "g".into(), expected_off, off, ..Consumed::default() }
}

pub async fn feeds_events_of_every_journal_in_the_order_of_their_commits(
    mut fixture: impl Fixture,
) {
    assert_eq!(fixture.store().feed_ends().await.unwrap(), [position(1)]);
    let game = Write { address: Address::new("games", "x"), ..write("x", 0, 1) };
    fixture.commit(&[write("b", 0, 2), game, write("b", 2, 1)]).await;
    fixture.commit(&[write("a", 0, 1), write("none", 0, 0)]).await;
    fixture.commit(&[write("b", 3, 1)]).await;
    let store = fixture.store();
    let entries = feed(store, 1).await;
    let all = "1:carts/b@1 2:carts/b@2 3:games/x@1 4:carts/b@3 5:carts/a@1 6:carts/b@4";
    assert_eq!(told(&entries), all);
    for entry in &entries {
        let events = all_events(store, &entry.address).await;
        let stored = &events[entry.seq.0 as usize - 1];
        assert_eq!((entry.at_ms, &entry.event), (stored.at_ms, &stored.event));
    }
    assert_eq!(told(&feed(store, 5).await), "5:carts/a@1 6:carts/b@4");
    assert_eq!(told(&feed(store, 0).await), all);
    // Whatever happened to the others in the meantime.
    fixture.commit(&[write("a", 1, 1)]).await;
    assert_eq!(told(&feed(fixture.store(), 1).await), format!("{all} 7:carts/a@2"));
}

pub async fn pages_the_feed_by_count_and_by_bytes(mut fixture: impl Fixture) {
    for after in [0, 10, 20] {
        fixture
            .commit(&[write("a", after, 5), write("b", after / 2, 5), write("a", after + 5, 5)])
            .await;
    }
    let store = fixture.store();
    let page = async |from, limit, bytes| {
        let page = store.feed(PARTITION, from, limit, bytes).await.unwrap();
        let offs: Vec<u64> = page.entries.iter().map(|entry| entry.off).collect();
        (offs, page.next_off)
    };
    assert_eq!(page(1, 4, usize::MAX).await, (vec![1, 2, 3, 4], 5));
    assert_eq!(page(44, 4, usize::MAX).await, (vec![44, 45], 46));
    assert_eq!(page(46, 4, usize::MAX).await, (vec![], 46));
    assert_eq!(page(9, 4, 0).await, (vec![9], 10));
    assert_eq!(page(9, 0, 0).await, (vec![9], 10));
    // An event counts 13 bytes or 14: its type and its data.
    assert_eq!(page(11, 100, 50).await, (vec![11, 12, 13, 14], 15));
    assert_eq!(page(1, 1_000, usize::MAX).await, ((1..=45).collect(), 46));
}

pub async fn leaves_forgotten_events_out_of_the_feed(mut fixture: impl Fixture) {
    fixture.commit(&[write("a", 0, 20), write("b", 0, 1)]).await;
    let forget = Write { forget_before: Some(Seq(21)), ..write("a", 20, 1) };
    fixture.commit(&[forget, write("b", 1, 1)]).await;
    fixture.commit(&[write("a", 21, 1)]).await;
    let store = fixture.store();
    // What is not dropped yet may be there.
    let entries = feed(store, 1).await;
    let kept: Vec<FeedEntry> = entries.into_iter().filter(|entry| entry.off > 20).collect();
    assert_eq!(told(&kept), "21:carts/b@1 22:carts/a@21 23:carts/b@2 24:carts/a@22");
}

pub async fn moves_a_group_from_the_place_where_it_is(mut fixture: impl Fixture) {
    assert_eq!(fixture.store().group_positions("g").await.unwrap(), []);
    fixture.chores([Task::Consumed(step(0, 1))]).await;
    assert_eq!(fixture.store().group_positions("g").await.unwrap(), [position(1)]);
    // Steps of one batch follow one another.
    let other = Consumed { group: "h\0ä".into(), ..step(0, 9) };
    let tasks = [step(1, 5), other, step(5, 5), step(5, 8)];
    fixture.chores(tasks.map(Task::Consumed)).await;
    let store = fixture.store();
    assert_eq!(store.group_positions("g").await.unwrap(), [position(8)]);
    assert_eq!(store.group_positions("h\0ä").await.unwrap(), [position(9)]);
    assert_eq!(store.groups(None, 10).await.unwrap(), ["g", "h\0ä"]);
    assert_eq!(store.groups(None, 1).await.unwrap(), ["g"]);
    assert_eq!(store.groups(Some("g"), 10).await.unwrap(), ["h\0ä"]);
    // It may go back.
    fixture.chores([Task::Consumed(step(8, 2))]).await;
    assert_eq!(fixture.store().group_positions("g").await.unwrap(), [position(2)]);
}

pub async fn refuses_a_batch_with_a_step_from_elsewhere_as_a_whole(mut fixture: impl Fixture) {
    fixture.chores([Task::Consumed(step(0, 5))]).await;
    for steps in [
        vec![step(0, 6)],
        vec![step(4, 6)],
        vec![step(5, 6), step(5, 7)],
        vec![step(6, 7)],
        vec![Consumed { group: "h".into(), ..step(1, 6) }],
    ] {
        let wrong = steps.last().unwrap().clone();
        let chores: Vec<Chore> = steps.into_iter().map(Task::Consumed).map(chore).collect();
        let error = fixture.store().commit(&[write("a", 0, 1)], &chores).await.unwrap_err();
        let StoreError::Moved { group, partition, expected } = error else { panic!("{error}") };
        assert_eq!((&*group, partition, expected), (&*wrong.group, PARTITION, wrong.expected_off));
    }
    fixture.settle().await;
    let store = fixture.store();
    assert_eq!(store.load(&Address::new("carts", "a"), None).await.unwrap().seq, Seq(0));
    assert_eq!(store.group_positions("g").await.unwrap(), [position(5)]);
    assert_eq!(store.groups(None, 10).await.unwrap(), ["g"]);
    fixture.commit_with(&[write("a", 0, 1)], &[chore(Task::Consumed(step(5, 6)))]).await;
}

fn laggard(id: &str, due_ms: u64, parked: bool) -> Laggard {
    Laggard {
        partition: PARTITION,
        address: Address::new("carts", id),
        next: Seq(due_ms + 1),
        tries: 3,
        due_ms,
        error: format!("no\0 {id}"),
        parked,
    }
}

pub async fn keeps_laggards_until_they_have_caught_up(mut fixture: impl Fixture) {
    let laggards = vec![laggard("a", 9, false), laggard("b", 5, false), laggard("ä", 1, true)];
    fixture.chores([Task::Consumed(Consumed { laggards, ..step(0, 1) })]).await;
    let other =
        Consumed { group: "h".into(), laggards: vec![laggard("a", 2, false)], ..step(0, 1) };
    fixture.chores([Task::Consumed(other)]).await;
    let store = fixture.store();
    let all = [laggard("b", 5, false), laggard("a", 9, false), laggard("ä", 1, true)];
    assert_eq!(store.laggards("g", &[PARTITION], 10).await.unwrap(), all);
    assert_eq!(store.laggards("g", &[PARTITION], 2).await.unwrap(), all[..2]);
    assert_eq!(store.laggards("g", &[Partition(1)], 10).await.unwrap(), []);
    let (a, c) = (laggard("a", 4, false), laggard("c", 3, false));
    let address = |id: &str| Address::new("carts", id);
    // Of a batch the last word counts.
    let first = Consumed {
        laggards: vec![a.clone(), c],
        caught_up: vec![address("b"), address("nobody")],
        ..step(1, 2)
    };
    let second = Consumed { caught_up: vec![address("c")], ..step(2, 3) };
    fixture.chores([first, second].map(Task::Consumed)).await;
    let store = fixture.store();
    let rest = [a, laggard("ä", 1, true)];
    assert_eq!(store.laggards("g", &[PARTITION], 10).await.unwrap(), rest);
    assert_eq!(store.laggards("h", &[PARTITION], 10).await.unwrap(), [laggard("a", 2, false)]);
}

pub async fn forgets_a_group(mut fixture: impl Fixture) {
    let laggards = vec![laggard("a", 9, false)];
    let first = Consumed { laggards: laggards.clone(), ..step(0, 7) };
    let other = Consumed { group: "h".into(), laggards, ..step(0, 7) };
    fixture.chores([first, other].map(Task::Consumed)).await;
    fixture.store().delete_group("g").await.unwrap();
    fixture.store().delete_group("nothing").await.unwrap();
    fixture.settle().await;
    let store = fixture.store();
    assert_eq!(store.groups(None, 10).await.unwrap(), ["h"]);
    assert_eq!(store.laggards("g", &[PARTITION], 10).await.unwrap(), []);
    assert_eq!(store.laggards("h", &[PARTITION], 10).await.unwrap().len(), 1);
    fixture.chores([Task::Consumed(step(0, 1))]).await;
    assert_eq!(fixture.store().group_positions("g").await.unwrap(), [position(1)]);
}
