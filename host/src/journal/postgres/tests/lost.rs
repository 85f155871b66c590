//! What is found out about batches whose answer was lost.

use super::functions::{cancel, timer};
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

#[tokio::test]
async fn a_timer_that_never_was_does_not_vouch_for_the_batch_that_cancels_it() {
    let opened = open(1).await;
    let timers = vec![timer("a", 1), cancel("b")];
    let batch = [Write { timers, ..conformance::write("x", 0, 0) }];
    let error = look_up(&opened, &batch, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let fence = Fence { epoch: Epoch(2), ..batch[0].fence };
    let batch = batch.map(|write| Write { fence, ..write });
    assert_eq!(opened.store.commit(&batch, &[]).await.unwrap(), []);
    assert_eq!(look_up(&opened, &batch, &[]).await.unwrap(), []);
}
