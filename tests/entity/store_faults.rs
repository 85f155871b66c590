//! What callers and entities see when the store fails.

use stead::journal::{AppendError, Fence, Store, StoreError, Write};
use stead::words::{Code, Message, Seq};

use crate::house::{House, cart, eventually, shared, spawn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_the_command_and_what_hung_on_it_and_nothing_else() {
    let house = shared(House::with(&["shopping-cart"]).await);
    house.add("ada", "kettle").await.unwrap();
    let hold = house.store.hold().await;
    let first = spawn({
        let house = house.clone();
        async move { house.add("ada", "cup").await }
    });
    eventually("the first turn", || house.entities.hot_one(&cart("ada")).unwrap().seq.0 == 2).await;
    let second = spawn({
        let house = house.clone();
        async move { house.add("ada", "pot").await }
    });
    eventually("the second turn", || house.entities.hot_one(&cart("ada")).unwrap().seq.0 == 3)
        .await;
    let read = spawn({
        let house = house.clone();
        async move { house.cart("ada").await }
    });
    house.store.fail_next(StoreError::Full { reason: "no space".into() });
    drop(hold);

    assert_eq!(first.await.unwrap().unwrap_err().code, Code::ResourceExhausted);
    // In the same batch, or in one after it.
    let second = second.await.unwrap().unwrap_err();
    assert!(matches!(second.code, Code::Aborted | Code::ResourceExhausted), "{second}");
    // The read saw what was not stored, or came after the instance had been replaced.
    match read.await.unwrap() {
        Ok(items) => assert_eq!(items, ["kettle x 1"]),
        Err(status) => {
            assert!(matches!(status.code, Code::Aborted | Code::ResourceExhausted), "{status}");
        }
    }
    assert_eq!(house.cart("ada").await.unwrap(), ["kettle x 1"]);
    house.add("ada", "cup").await.unwrap();
    assert_eq!(house.cart("ada").await.unwrap(), ["cup x 1", "kettle x 1"]);
    assert_eq!(house.stored_events(&cart("ada")).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_costs_the_first_its_instance_not_its_state() {
    let house = House::with(&["shopping-cart"]).await;
    house.add("ada", "kettle").await.unwrap();
    let stored = house.journal.events(&cart("ada"), Seq(1), 1, 1 << 20).await.unwrap();
    let event: Message = stored.events[0].event.clone();
    let write =
        Write { events: vec![event], ..Write::new(cart("ada"), Fence::default(), Seq(1), 0) };
    house.store.commit(&[write], &[]).await.unwrap();

    assert_eq!(house.add("ada", "cup").await.unwrap_err().code, Code::Aborted);
    assert_eq!(house.cart("ada").await.unwrap(), ["kettle x 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_commit_of_unknown_outcome_nothing_is_acknowledged() {
    let house = House::with(&["shopping-cart"]).await;
    house.add("ada", "kettle").await.unwrap();
    house.store.fail_next(StoreError::Poisoned { reason: "fsync failed".into() });
    assert_eq!(house.add("ada", "cup").await.unwrap_err().code, Code::Unknown);
    assert_eq!(house.add("ada", "cup").await.unwrap_err().code, Code::Unavailable);
    assert_eq!(house.add("bob", "cup").await.unwrap_err().code, Code::Unavailable);
    assert!(house.journal.stopped().unwrap().contains("fsync failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_the_full_queue_refuses_cost_nobody_a_write_before_them() {
    let house = shared(House::with(&["shopping-cart"]).await);
    house.add("ada", "kettle").await.unwrap();
    let hold = house.store.hold().await;
    let stored = spawn({
        let house = house.clone();
        async move { house.add("ada", "cup").await }
    });
    eventually("the turn", || house.entities.hot_one(&cart("ada")).unwrap().seq.0 == 2).await;
    // Others fill the queue behind it, without waiting for their commits.
    let filler = |n: u64, bytes: usize| Write {
        events: vec![Message::new("t.Filler", vec![0; bytes])],
        ..Write::new(cart(&format!("filler-{n}")), Fence::default(), Seq::ZERO, 0)
    };
    let mut commits = Vec::new();
    for bytes in [1 << 20, 1] {
        loop {
            let commit = house.journal.append(filler(commits.len() as u64, bytes));
            match commit.outcome() {
                None => commits.push(commit),
                Some(outcome) => break assert!(matches!(outcome, Err(AppendError::Busy))),
            }
        }
    }
    assert_eq!(house.add("ada", "pot").await.unwrap_err().code, Code::ResourceExhausted);
    // The instance that saw the refused write is gone; the next one must see the one before it.
    let read = spawn({
        let house = house.clone();
        async move { house.cart("ada").await }
    });
    drop(hold);
    stored.await.unwrap().unwrap();
    assert_eq!(read.await.unwrap().unwrap(), ["cup x 1", "kettle x 1"]);
    for commit in commits {
        commit.wait().await.unwrap();
    }
}
