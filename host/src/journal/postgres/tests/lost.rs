//! What is found out about batches whose answer was lost.

use super::functions::{cancel, effect, step, timer};
use super::*;
use crate::journal::postgres::draft::Draft;

/// Whatever became of a batch: the store has not heard of it.
async fn look_up(
    opened: &Opened,
    batch: &[Write],
    chores: &[Chore],
) -> Result<Vec<Fence>, StoreError> {
    let store = &opened.store.0;
    let draft = Draft::of(batch, chores, false).unwrap();
    let mut lane = store.lanes[0].lock().await;
    store.reconcile(&mut lane, &draft, "it was lost").await
}

/// The fences of which nothing was stored, and those of which nobody can tell.
async fn unsettled(opened: &Opened, batch: &[Write]) -> (Vec<Fence>, Vec<Fence>) {
    let error = look_up(opened, batch, &[]).await.unwrap_err();
    let StoreError::InDoubt { fenced, unknown, .. } = error else { panic!("{error}") };
    (fenced, unknown)
}

fn fence(shard: u32, epoch: u64) -> Fence {
    Fence { shard: Shard(shard), epoch: Epoch(epoch) }
}

fn plain() -> Write {
    conformance::write("a", 0, 0)
}

impl Opened {
    /// Another node owns a shard, after a time without an owner.
    async fn takes_over(&self, shard: u32) {
        let mut connection = self.store.connection().await.unwrap();
        let take = "UPDATE shard SET owner = 'other', epoch = epoch + 2 WHERE shard_id = $1";
        sqlx::query(take).bind(shard as i32).execute(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn a_timer_that_never_was_does_not_vouch_for_the_batch_that_cancels_it() {
    let opened = open(1).await;
    let timers = vec![timer("a", 1), cancel("b")];
    let batch = [Write { timers, ..plain() }];
    let error = look_up(&opened, &batch, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let batch = batch.map(|write| Write { fence: fence(0, 2), ..write });
    assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), []);
    assert_eq!(look_up(&opened, &batch, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn what_the_next_owner_may_have_taken_away_is_unknown() {
    for write in [
        Write { effects: vec![effect(1)], ..plain() },
        Write { timers: vec![timer("t", 1)], ..plain() },
        Write { timers: vec![cancel("t")], ..plain() },
    ] {
        let opened = open(1).await;
        let batch = [write];
        assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), []);
        opened.takes_over(0).await;
        opened.sql("DELETE FROM outbox").await;
        opened.sql("DELETE FROM timer").await;
        let unknown = (vec![], vec![fence(0, 1)]);
        assert_eq!(unsettled(&opened, &batch).await, unknown, "{batch:?}");
        assert_eq!(opened.holdings.epoch(Shard(0)), None);
    }
}

#[tokio::test]
async fn what_the_next_owner_has_left_there_was_stored() {
    for write in [
        conformance::write("a", 0, 1),
        Write { effects: vec![effect(1)], ..plain() },
        Write { timers: vec![timer("t", 1), cancel("u")], ..plain() },
    ] {
        let opened = open(1).await;
        let batch = [write];
        assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), []);
        opened.takes_over(0).await;
        assert_eq!(look_up(&opened, &batch, &[]).await.unwrap(), [], "{batch:?}");
    }
}

#[tokio::test]
async fn a_timer_that_the_next_owner_fired_does_not_vouch_for_its_cancellation() {
    let opened = open(1).await;
    let batch = [Write { timers: vec![cancel("t")], ..plain() }];
    opened.takes_over(0).await;
    assert_eq!(unsettled(&opened, &batch).await, (vec![], vec![fence(0, 1)]));
}

#[tokio::test]
async fn an_event_that_is_missing_was_not_stored_unless_it_may_have_been_forgotten() {
    let opened = open(1).await;
    let stored = [conformance::write("a", 0, 1)];
    assert_eq!(opened.store.commit(&stored, &[]).await.unwrap(), []);
    opened.takes_over(0).await;
    let next =
        Write { fence: fence(0, 3), forget_before: Some(Seq(2)), ..conformance::write("a", 1, 1) };
    assert_eq!(opened.store.commit(&[next], &[]).await.unwrap(), []);
    let deadline = clock::now() + Duration::from_secs(60);
    while opened.number("SELECT min(seq) FROM journal").await == 1 {
        assert!(clock::now() < deadline, "nobody deleted it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(unsettled(&opened, &stored).await, (vec![], vec![fence(0, 1)]));
    let missing = [conformance::write("b", 0, 1)];
    assert_eq!(look_up(&opened, &missing, &[]).await.unwrap(), [fence(0, 1)]);
}

#[tokio::test]
async fn what_is_certain_of_one_shard_is_said_though_another_is_unknown() {
    let opened = open(8).await;
    opened.sql("UPDATE shard SET epoch = 2 WHERE shard_id = 5").await;
    let batch = [
        write_to(&opened.holdings, 0, EPOCH, 0, 1),
        Write { effects: vec![effect(1)], ..write_to(&opened.holdings, 4, EPOCH, 0, 0) },
        write_to(&opened.holdings, 5, EPOCH, 0, 1),
        Write { timers: vec![cancel("t")], ..write_to(&opened.holdings, 6, EPOCH, 0, 0) },
    ];
    assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), [fence(5, 1)]);
    opened.takes_over(4).await;
    opened.sql("DELETE FROM outbox").await;
    let told = unsettled(&opened, &batch).await;
    assert_eq!(told, (vec![fence(5, 1)], vec![fence(4, 1)]));
}

#[tokio::test]
async fn what_a_shard_lacks_that_nobody_took_over_no_shard_has() {
    let opened = open(8).await;
    let batch = [
        Write { effects: vec![effect(1)], ..write_to(&opened.holdings, 0, EPOCH, 0, 0) },
        Write { effects: vec![effect(2)], ..write_to(&opened.holdings, 4, EPOCH, 0, 0) },
    ];
    opened.takes_over(4).await;
    let error = look_up(&opened, &batch, &[step(fence(6, 1), 0, 1)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}
