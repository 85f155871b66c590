//! What is stored beside events: fences, lost answers, and what is deleted later.

use super::*;
use crate::journal::postgres::append::text;
use crate::journal::postgres::aside::Sections;
use crate::journal::postgres::draft::{Draft, Evidence};
use crate::journal::postgres::reconcile::find;
use crate::journal::store::{
    Chore, Consumed, EffectId, NewEffect, Partition, Receipt, StoredCall, Task, Timer, TimerChange,
};

pub(super) fn effect(n: u64) -> NewEffect {
    NewEffect { id: EffectId::new(n, n), call: StoredCall::default() }
}

pub(super) fn timer(name: &str, token: u8) -> TimerChange {
    let set = Timer {
        due_ms: 1,
        every_ms: None,
        method: "M".into(),
        payload: Bytes::new(),
        token: [token; 16],
    };
    TimerChange { name: name.into(), set: Some(set) }
}

pub(super) fn cancel(name: &str) -> TimerChange {
    TimerChange { name: name.into(), set: None }
}

pub(super) fn step(fence: Fence, expected_off: u64, off: u64) -> Chore {
    let (group, partition) = (String::from("g"), Partition(fence.shard.0));
    let step = Consumed { group, partition, expected_off, off, ..Consumed::default() };
    Chore { fence, task: Task::Consumed(step) }
}

/// Of the first shard.
fn evidence<'a>(writes: &'a [Write], chores: &'a [Chore]) -> Evidence<'a> {
    Draft::of(writes, chores, false).unwrap().wants[0].evidence.clone()
}

#[tokio::test]
async fn a_fenced_shard_keeps_nothing_and_the_others_everything() {
    let opened = open(8).await;
    opened.sql("UPDATE shard SET epoch = 2 WHERE shard_id = 4").await;
    let all: Vec<Shard> = (0..8).map(Shard).collect();
    let writes = [0, 4].map(|shard| Write {
        effects: vec![effect(u64::from(shard) + 1)],
        timers: vec![timer("t", shard as u8)],
        ..write_to(&opened.holdings, shard, EPOCH, 0, 1)
    });
    let fence = |shard| Fence { shard: Shard(shard), epoch: EPOCH };
    let chores = [0, 4, 6].map(|shard| step(fence(shard), 0, 7));
    assert_eq!(opened.store.commit(&writes, &chores).await.unwrap(), [fence(4)]);
    let effects = opened.store.outbox(&all, None, 10).await.unwrap();
    assert_eq!(effects.iter().map(|row| row.shard).collect::<Vec<_>>(), [Shard(0)]);
    let timers = opened.store.timers(&all, 10, 10).await.unwrap();
    assert_eq!(timers.iter().map(|row| row.shard).collect::<Vec<_>>(), [Shard(0)]);
    let positions = opened.store.group_positions("g").await.unwrap();
    let places: Vec<_> = positions.iter().map(|at| (at.partition.0, at.off)).collect();
    assert_eq!(places, [(0, 7), (6, 7)]);
    // A shard with chores alone, and a step from elsewhere where nobody may write anyway.
    let done = Task::EffectDone(vec![effect(1).id]);
    let chores = [Chore { fence: fence(0), task: done }, step(fence(4), 99, 100)];
    assert_eq!(opened.store.commit(&[], &chores).await.unwrap(), [fence(4)]);
    assert_eq!(opened.store.outbox(&all, None, 10).await.unwrap(), []);
    opened.assert_gapless().await;
}

#[tokio::test]
async fn a_row_of_another_epoch_does_not_hide_one_of_this() {
    let opened = open(1).await;
    opened.sql("UPDATE shard SET epoch = 2").await;
    let fence = |epoch| Fence { shard: Shard(0), epoch: Epoch(epoch) };
    let write = |id: &str, epoch, token| Write {
        fence: fence(epoch),
        timers: vec![timer("t", token)],
        ..conformance::write(id, 0, 0)
    };
    // The old owner's writes come last.
    let batch = [write("a", 2, 2), write("a", 1, 1)];
    let chores = [step(fence(2), 0, 5), step(fence(1), 0, 9)];
    assert_eq!(opened.store.commit(&batch, &chores).await.unwrap(), [fence(1)]);
    let found = opened.store.timer(&batch[0].address, "t").await.unwrap().unwrap();
    assert_eq!(found.timer.token, [2; 16]);
    assert_eq!(opened.store.group_positions("g").await.unwrap()[0].off, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chore_whose_answer_is_lost_cannot_come_later() {
    let opened = open(1).await;
    let fence = Fence { shard: Shard(0), epoch: EPOCH };
    let effects = vec![effect(1)];
    let first = Write { effects, ..conformance::write("a", 0, 1) };
    opened.store.commit(&[first], &[]).await.unwrap();
    let mut other = opened.store.connection().await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("SELECT * FROM shard FOR UPDATE").await.unwrap();
    let store = opened.store.clone();
    let park = Task::EffectPark { id: effect(1).id, tries: 9, error: String::new() };
    let commit =
        tokio::spawn(async move { store.commit(&[], &[Chore { fence, task: park }]).await });
    let blocked = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while opened.number(blocked).await == 0 {
        tokio::task::yield_now().await;
    }
    other.execute("COMMIT").await.unwrap();
    let error = commit.await.unwrap().unwrap_err();
    let StoreError::InDoubt { fenced, unknown, .. } = error else { panic!("{error}") };
    assert_eq!((fenced, unknown), (vec![], vec![fence]));
    assert_eq!(opened.holdings.epoch(Shard(0)), None);
    assert_eq!(opened.number("SELECT epoch FROM shard WHERE owner = 'me'").await, 2);
    assert!(!opened.store.effect(effect(1).id).await.unwrap().unwrap().parked);
}

#[tokio::test]
async fn the_evidence_of_a_batch_is_there_if_it_was_stored() {
    let opened = open(1).await;
    let receipt = |key: &str| Receipt {
        key: key.into(),
        request_hash: [1; 32],
        reply: Bytes::new(),
        expires_at_ms: u64::MAX >> 1,
    };
    let plain = conformance::write("a", 0, 0);
    let before = Write { timers: vec![timer("old", 8)], ..conformance::write("a", 0, 0) };
    opened.store.commit(&[before], &[]).await.unwrap();
    for write in [
        conformance::write("b", 0, 2),
        Write { receipt: Some(receipt("k")), ..plain.clone() },
        Write { effects: vec![effect(7)], ..plain.clone() },
        Write { timers: vec![timer("new", 3)], ..plain.clone() },
        Write { timers: vec![timer("old", 4), cancel("none")], ..plain.clone() },
    ] {
        let batch = [write];
        let draft = Draft::of(&batch, &[], false).unwrap();
        let mut connection = opened.store.connection().await.unwrap();
        let want = &draft.wants[0];
        let found = find(&mut connection, want.fence, &want.evidence).await.unwrap();
        assert_eq!(found, Some(false), "{:?}", want.evidence);
        opened.store.commit(&batch, &[]).await.unwrap();
        let found = find(&mut connection, want.fence, &want.evidence).await.unwrap();
        assert_eq!(found, Some(true), "{:?}", want.evidence);
    }
    let fence = plain.fence;
    let chores = [step(fence, 0, 1)];
    let batch = [plain.clone(), Write { effects: vec![effect(8)], ..plain }];
    assert_eq!(evidence(&batch[..1], &[]), Evidence::Nothing);
    assert_eq!(evidence(&batch[..1], &chores), Evidence::Chores);
    assert_eq!(evidence(&batch, &chores), Evidence::Effect(effect(8).id));
}

#[test]
fn only_a_timer_that_is_still_set_after_the_batch_is_evidence() {
    let timed = |timers| Write { timers, ..conformance::write("a", 0, 0) };
    let set = timed(vec![timer("x", 1), timer("y", 2), cancel("z")]);
    let batch = [set, timed(vec![cancel("y")])];
    let x = Evidence::Timer(&batch[0].address, "x", &[1; 16]);
    assert_eq!(evidence(&batch, &[]), x);
    let chores = [step(batch[1].fence, 0, 1)];
    assert_eq!(evidence(&batch[1..], &chores), Evidence::Cancelled);
}

#[test]
fn a_plain_batch_takes_the_statement_without_any_section() {
    let batch = [conformance::write("a", 0, 3)];
    assert!(Draft::of(&batch, &[], false).unwrap().aside.is_none());
    let plain = text(Sections::default());
    for table in ["outbox", "timer", "forgotten", "consumed", "laggard", "view_", "{"] {
        assert!(!plain.contains(table), "{table}");
    }
    let batch = [Write { effects: vec![effect(1)], ..conformance::write("a", 0, 3) }];
    let sections = Draft::of(&batch, &[], false).unwrap().aside.unwrap().sections();
    assert!(text(sections).contains("outbox") && !text(sections).contains("timer"));
}

#[tokio::test]
async fn forgotten_events_are_deleted() {
    let opened = open(1).await;
    for after in 0..32 {
        let forget_before = (after % 16 == 15).then_some(Seq(after + 1));
        let write = Write { forget_before, ..conformance::write("a", after, 1) };
        opened.store.commit(&[write, conformance::write("b", after, 1)], &[]).await.unwrap();
    }
    let deadline = clock::now() + Duration::from_secs(60);
    while opened.number("SELECT count(*) FROM journal").await != 33 {
        assert!(clock::now() < deadline, "nobody deleted them");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(opened.number("SELECT min(seq) FROM journal WHERE id = 'a'").await, 32);
    // What is gone on purpose is no loss, and what is gone otherwise is.
    let a = Address::new("carts", "a");
    let page = opened.store.events(&a, Seq(1), 9, 999).await.unwrap();
    assert_eq!((page.events.len(), page.events[0].seq, page.more), (1, Seq(32), false));
    let feed = opened.store.feed(Partition(0), 1, 100, 99_999).await.unwrap();
    assert_eq!((feed.entries.len(), feed.next_off), (33, 65));
    opened.sql("DELETE FROM journal WHERE id = 'b' AND seq < 3").await;
    let b = Address::new("carts", "b");
    let error = opened.store.events(&b, Seq(1), 9, 999).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn every_shard_is_a_part_of_the_feed() {
    let opened = open(8).await;
    assert_eq!(opened.store.partitions(), 8);
    let batch = [2, 6].map(|shard| write_to(&opened.holdings, shard, EPOCH, 0, shard as usize));
    opened.store.commit(&batch, &[]).await.unwrap();
    for write in &batch {
        let partition = Partition(write.fence.shard.0);
        let page = opened.store.feed(partition, 1, 100, 9_999).await.unwrap();
        assert!(page.entries.iter().all(|entry| entry.address == write.address));
        assert_eq!((page.entries.len(), page.next_off), (write.events.len(), write.head().0 + 1));
    }
    let page = opened.store.feed(Partition(3), 1, 100, 9_999).await.unwrap();
    assert_eq!((page.entries.len(), page.next_off), (0, 1));
    let ends = opened.store.feed_ends().await.unwrap();
    let ends: Vec<u64> = ends.iter().map(|end| end.off).collect();
    assert_eq!(ends, [1, 1, 3, 1, 1, 1, 7, 1]);
}
