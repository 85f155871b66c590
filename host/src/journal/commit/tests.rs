use super::*;
use crate::journal::conformance::write;
use crate::journal::store::{Consumed, EffectId, NewEffect, Partition, StoredCall, Task};
use crate::words::{Address, Epoch, Seq, Shard};

fn journal() -> Journal {
    Journal::start(AnyStore::Memory(MemoryStore::default()), Holdings::alone(), Metrics::default())
}

async fn seq(journal: &Journal, id: &str) -> u64 {
    journal.load(&Address::new("carts", id), None).await.unwrap().seq.0
}

#[tokio::test]
async fn writes_of_an_entity_are_stored_in_the_order_of_their_calls() {
    let journal = journal();
    let commits: Vec<Commit> = (0..100).map(|n| journal.append(write("a", n, 1))).collect();
    assert!(commits[99].outcome().is_none());
    for commit in commits {
        commit.wait().await.unwrap();
        assert!(commit.outcome().is_some());
    }
    assert_eq!(seq(&journal, "a").await, 100);
}

#[tokio::test]
async fn a_conflict_fails_the_entity_and_nobody_else() {
    let journal = journal();
    journal.append(write("a", 0, 1)).wait().await.unwrap();
    let good = [
        journal.append(write("a", 1, 1)),
        journal.append(write("b", 0, 1)),
        journal.append(write("c", 0, 1)),
    ];
    // All of these come in one batch with the others.
    let bad = [
        journal.append(write("a", 3, 1)),
        journal.append(write("a", 4, 1)),
        journal.append(write("d", 7, 1)),
        journal.append(write("d", 8, 1)),
    ];
    let also_good = journal.append(write("b", 1, 1));
    for commit in good.into_iter().chain([also_good]) {
        commit.wait().await.unwrap();
    }
    for commit in bad {
        assert!(matches!(commit.wait().await, Err(AppendError::Conflict)));
    }
    assert_eq!(seq(&journal, "a").await, 2);
    assert_eq!(seq(&journal, "b").await, 2);
    assert_eq!(seq(&journal, "d").await, 0);
    assert!(journal.stopped().is_none());
}

#[tokio::test]
async fn a_refused_write_fails_with_those_after_it_and_nobody_else() {
    let store = MemoryStore::default();
    let journal =
        Journal::start(AnyStore::Memory(store.clone()), Holdings::alone(), Metrics::default());
    store.fail_next(StoreError::Refused {
        address: Box::new(Address::new("carts", "a")),
        after: Seq(1),
        reason: "its rows are damaged".into(),
    });
    let good = [journal.append(write("a", 0, 1)), journal.append(write("b", 0, 1))];
    let bad = [journal.append(write("a", 1, 1)), journal.append(write("a", 2, 1))];
    for commit in good {
        commit.wait().await.unwrap();
    }
    for commit in bad {
        assert!(matches!(commit.wait().await, Err(AppendError::Conflict)));
    }
    assert_eq!(seq(&journal, "a").await, 1);
}

#[tokio::test]
async fn a_failed_check_fails_its_writes_and_the_journal_goes_on() {
    let store = MemoryStore::default();
    let journal =
        Journal::start(AnyStore::Memory(store.clone()), Holdings::alone(), Metrics::default());
    store.fail_next(StoreError::Read { reason: "busy".into() });
    let failed = journal.append(write("a", 0, 1));
    assert!(matches!(failed.wait().await, Err(AppendError::Conflict)));
    journal.append(write("a", 0, 1)).wait().await.unwrap();
    assert!(journal.stopped().is_none());
}

#[tokio::test]
async fn closing_commits_what_is_queued_and_refuses_what_comes() {
    let journal = journal();
    let queued = journal.append(write("a", 0, 1));
    journal.close().await;
    queued.wait().await.unwrap();
    let late = journal.append(write("a", 1, 1));
    assert!(matches!(late.wait().await, Err(AppendError::Stopped { .. })));
    assert!(journal.stopped().is_some());
    journal.close().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let journal = journal();
    // Nothing runs before the first await.
    let commits: Vec<Commit> =
        (0..=COMMIT_QUEUE_MAX as u64).map(|n| journal.append(write("a", n, 1))).collect();
    let last = &commits[COMMIT_QUEUE_MAX];
    assert!(matches!(last.outcome(), Some(Err(AppendError::Busy))));
    commits[COMMIT_QUEUE_MAX - 1].wait().await.unwrap();
}

#[tokio::test]
async fn commits_are_counted() {
    let metrics = Metrics::default();
    let journal = Journal::start(
        AnyStore::Memory(MemoryStore::default()),
        Holdings::alone(),
        metrics.clone(),
    );
    journal.append(write("a", 0, 2)).wait().await.unwrap();
    assert_eq!(metrics.commit_bytes.get(), 2 * ("test.Event".len() as u64 + 3));
    assert!(metrics.render().contains("stead_commit_rows_sum 2.0"));
}

#[tokio::test]
async fn a_write_that_nobody_commits_any_more_fails() {
    let commit = Commit(Arc::default());
    drop(Promise(commit.clone()));
    assert!(matches!(commit.wait().await, Err(AppendError::Unknown { .. })));
}

/// Returns when a commit waits for the hold.
async fn held(store: &MemoryStore) {
    while store.waiting() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_refused_behind_a_stalled_commit_ends_after_those_of_its_entity_in_it() {
    let store = MemoryStore::default();
    let holdings = Holdings::of_member(1);
    holdings.grant(Shard(0), Epoch(1));
    let journal = Journal::start(AnyStore::Memory(store.clone()), holdings, Metrics::default());
    let hold = store.hold().await;
    let stalled = journal.append(write("a", 0, 1));
    held(&store).await;
    let behind = journal.append(write("a", 1, 1));
    let elsewhere = journal.append(write("b", 0, 1));
    for refused in [&behind, &elsewhere] {
        assert!(matches!(refused.wait().await, Err(AppendError::Unavailable)));
    }
    assert!(elsewhere.has_ended());
    assert!(stalled.outcome().is_none() && !behind.has_ended());
    drop(hold);
    behind.ended().await;
    assert!(matches!(stalled.outcome(), Some(Ok(()))) && behind.has_ended());
    assert_eq!(seq(&journal, "a").await, 1);
}

#[tokio::test]
async fn a_write_that_the_store_refuses_ends_after_those_before_it_that_are_stored_without_it() {
    let store = MemoryStore::default();
    let journal =
        Journal::start(AnyStore::Memory(store.clone()), Holdings::alone(), Metrics::default());
    store.fail_next(StoreError::Refused {
        address: Box::new(Address::new("carts", "a")),
        after: Seq(1),
        reason: "its rows are damaged".into(),
    });
    let hold = store.hold().await;
    let kept = journal.append(write("a", 0, 1));
    let refused = journal.append(write("a", 1, 1));
    held(&store).await;
    drop(hold);
    // Comes between the batch and what is left of it: the gate lets nobody overtake.
    let hold = store.hold().await;
    assert!(matches!(refused.wait().await, Err(AppendError::Conflict)));
    assert!(kept.outcome().is_none() && !refused.has_ended());
    drop(hold);
    refused.ended().await;
    assert!(matches!(kept.outcome(), Some(Ok(()))));
}

fn step(expected_off: u64, off: u64) -> Chore {
    let group = String::from("g");
    let task = Task::Consumed(Consumed { group, expected_off, off, ..Consumed::default() });
    Chore { fence: Fence { shard: Shard(0), epoch: Epoch(1) }, task }
}

#[tokio::test]
async fn chores_are_committed_without_writes_and_with_them() {
    let journal = journal();
    let id = EffectId::new(1, 1);
    let effects = vec![NewEffect { id, call: StoredCall::default() }];
    journal.append(Write { effects, ..write("a", 0, 0) }).wait().await.unwrap();
    assert!(journal.effect(id).await.unwrap().is_some());
    let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
    journal.chore(Chore { fence, task: Task::EffectDone(vec![id]) }).wait().await.unwrap();
    assert!(journal.effect(id).await.unwrap().is_none());
    let both = [journal.append(write("a", 0, 1)), journal.chore(step(0, 2))];
    for commit in both {
        commit.wait().await.unwrap();
    }
    assert_eq!(journal.group_positions("g").await.unwrap()[0].off, 2);
}

#[tokio::test]
async fn a_step_from_elsewhere_fails_with_those_after_it_and_nobody_else() {
    let journal = journal();
    let good = [journal.chore(step(0, 5)), journal.append(write("a", 0, 1))];
    let bad = [journal.chore(step(4, 6)), journal.chore(step(6, 7))];
    for commit in good {
        commit.wait().await.unwrap();
    }
    for commit in bad {
        assert!(matches!(commit.wait().await, Err(AppendError::Conflict)));
    }
    let positions = journal.group_positions("g").await.unwrap();
    assert_eq!((positions[0].partition, positions[0].off), (Partition(0), 5));
    assert_eq!(seq(&journal, "a").await, 1);
}

#[tokio::test]
async fn a_chore_whose_fence_is_lost_fails_and_is_not_stored() {
    let store = MemoryStore::default();
    let holdings = Holdings::of_member(1);
    holdings.grant(Shard(0), Epoch(1));
    let metrics = Metrics::default();
    let journal = Journal::start(AnyStore::Memory(store.clone()), holdings.clone(), metrics);
    store.set_epoch(Shard(0), Epoch(2));
    let commit = journal.chore(step(0, 5));
    assert!(matches!(commit.wait().await, Err(AppendError::Fenced)));
    assert_eq!(holdings.epoch(Shard(0)), None);
    assert_eq!(journal.group_positions("g").await.unwrap(), []);
}

#[tokio::test]
async fn of_a_commit_that_cannot_be_looked_up_each_shard_is_told_what_is_known() {
    let store = MemoryStore::default();
    let holdings = Holdings::of_member(3);
    let fence = |shard| Fence { shard: Shard(shard), epoch: Epoch(1) };
    for shard in 0..3 {
        holdings.grant(Shard(shard), Epoch(1));
    }
    let metrics = Metrics::default();
    let journal = Journal::start(AnyStore::Memory(store.clone()), holdings.clone(), metrics);
    let (fenced, unknown) = (vec![fence(1)], vec![fence(2)]);
    store.fail_next(StoreError::InDoubt { fenced, unknown, reason: "it was lost".into() });
    let commits = [0, 1, 2].map(|shard: u32| {
        let write = write(&shard.to_string(), 0, 1);
        journal.append(Write { fence: fence(shard), ..write })
    });
    assert!(matches!(commits[0].wait().await, Ok(())));
    assert!(matches!(commits[1].wait().await, Err(AppendError::Fenced)));
    assert!(matches!(commits[2].wait().await, Err(AppendError::Unknown { .. })));
    assert_eq!(holdings.held(), [(Shard(0), Epoch(1))]);
    assert!(journal.stopped().is_none());
}

#[tokio::test]
async fn the_feed_is_announced_after_events_and_after_nothing_else() {
    let journal = journal();
    let mut fed = journal.feed_news().watch();
    journal.append(write("a", 0, 0)).wait().await.unwrap();
    journal.chore(step(0, 1)).wait().await.unwrap();
    assert!(!fed.has_changed().unwrap());
    journal.append(write("a", 0, 1)).wait().await.unwrap();
    assert!(fed.has_changed().unwrap());
    fed.mark_unchanged();
    assert_eq!(journal.feed(Partition(0), 1, 10, 1_000).await.unwrap().next_off, 2);
}
