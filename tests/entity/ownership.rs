//! Shards that come, close, leave and are lost, under the entities in them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stead::entity::{CallError, Consistency, Request};
use stead::journal::memory::Hold;
use stead::journal::{Fence, Holdings, StoreError};
use stead::words::{Code, Epoch, Shard, Status, clock};
use tokio::task::JoinHandle;

use crate::house::{CART, House, cart, eventually, shared, spawn};

const ADA: &str = "ada";

fn shard(house: &House) -> Shard {
    house.journal.holdings().shard_of(&cart(ADA))
}

fn holdings(house: &House) -> &Holdings {
    house.journal.holdings()
}

/// A member that holds Ada's shard at epoch 1, with a lease.
async fn owner() -> House {
    let house = House::member(&["shopping-cart"]).await;
    holdings(&house).grant(shard(&house), Epoch(1));
    holdings(&house).extend_lease(clock::boot_time() + Duration::from_secs(600));
    house
}

fn reading(house: &House, consistency: Consistency) -> Request {
    Request { consistency, ..house.request(CART, "GetCart", json!({"userId": ADA})) }
}

async fn call(house: &House, request: Request) -> Result<(), CallError> {
    house.entities.call(request).await.map(drop)
}

fn code(result: Result<(), CallError>) -> Code {
    match result {
        Ok(()) => Code::Ok,
        Err(CallError::Status(status)) => status.code,
        Err(CallError::NotHere) => panic!("not here"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_whose_shard_is_not_held_is_not_here() {
    let house = House::member(&["shopping-cart"]).await;
    holdings(&house).extend_lease(clock::boot_time() + Duration::from_secs(600));
    assert_eq!(call(&house, house.adding(ADA, "kettle")).await, Err(CallError::NotHere));
    assert_eq!(house.stored_events(&cart(ADA)).await, 0);
    holdings(&house).grant(shard(&house), Epoch(1));
    house.add(ADA, "kettle").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_shard_lets_nobody_in_and_everybody_out() {
    let house = shared(owner().await);
    house.add(ADA, "kettle").await.unwrap();
    let hold = house.store.hold().await;
    let inside = spawn({
        let house = house.clone();
        async move { house.add(ADA, "cup").await }
    });
    eventually("the turn", || house.entities.hot_one(&cart(ADA)).unwrap().seq.0 == 2).await;
    assert!(holdings(&house).close(shard(&house), Epoch(1)));
    assert_eq!(call(&house, house.adding(ADA, "pot")).await, Err(CallError::NotHere));
    let emptied = spawn({
        let house = house.clone();
        async move { house.entities.empty_shard(shard(&house)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!emptied.is_finished(), "left before its write was durable");
    drop(hold);
    inside.await.unwrap().unwrap();
    assert_eq!(emptied.await.unwrap(), [cart(ADA)]);
    assert!(house.entities.hot_one(&cart(ADA)).is_none());
    assert_eq!(house.stored_events(&cart(ADA)).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_caller_went_away_is_durable_before_its_shard_leaves() {
    let house = shared(owner().await);
    house.add(ADA, "kettle").await.unwrap();
    let hold = house.store.hold().await;
    let request = house.adding(ADA, "cup");
    let gone = tokio::time::timeout(Duration::from_millis(50), house.entities.call(request)).await;
    assert!(gone.is_err());
    holdings(&house).close(shard(&house), Epoch(1));
    let emptied = spawn({
        let house = house.clone();
        async move { house.entities.empty_shard(shard(&house)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!emptied.is_finished());
    drop(hold);
    emptied.await.unwrap();
    assert_eq!(house.stored_events(&cart(ADA)).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_an_earlier_epoch_is_never_asked_again() {
    let house = owner().await;
    house.add(ADA, "kettle").await.unwrap();
    let write = house.journal.events(&cart(ADA), stead::words::Seq(1), 1, 1 << 20).await.unwrap();
    // The shard was away, and came back with one more event.
    holdings(&house).revoke(shard(&house), Epoch(1));
    let elsewhere = stead::journal::Write {
        events: vec![write.events[0].event.clone()],
        ..stead::journal::Write::new(
            cart(ADA),
            stead::journal::Fence { shard: shard(&house), epoch: Epoch(2) },
            stead::words::Seq(1),
            0,
        )
    };
    house.journal.append(elsewhere).wait().await.unwrap();
    holdings(&house).grant(shard(&house), Epoch(3));
    assert_eq!(house.cart(ADA).await.unwrap(), ["kettle x 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_write_is_not_stored_and_its_command_may_be_routed_again() {
    let house = owner().await;
    house.add(ADA, "kettle").await.unwrap();
    let lost = holdings(&house).lost();
    house.store.set_epoch(shard(&house), Epoch(2));
    assert_eq!(call(&house, house.adding(ADA, "cup")).await, Err(CallError::NotHere));
    assert!(lost.has_changed().unwrap());
    assert_eq!(holdings(&house).epoch(shard(&house)), None);
    assert_eq!(house.stored_events(&cart(ADA)).await, 1);
    // With the shard back, the state is that of the journal, not of the lost instance.
    holdings(&house).grant(shard(&house), Epoch(2));
    assert_eq!(house.cart(ADA).await.unwrap(), ["kettle x 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_may_be_stored_is_said_to_be_unknown_and_not_routed_again() {
    let house = owner().await;
    house.add(ADA, "kettle").await.unwrap();
    let unknown = vec![Fence { shard: shard(&house), epoch: Epoch(1) }];
    let (fenced, reason) = (Vec::new(), "it was lost".into());
    house.store.fail_next(StoreError::InDoubt { fenced, unknown, reason });
    let Err(CallError::Status(status)) = call(&house, house.adding(ADA, "cup")).await else {
        panic!("it is not told")
    };
    assert_eq!(status.code, Code::Unknown);
    assert!(status.message.contains("retry it only with its idempotency key"), "{status}");
    assert_eq!(holdings(&house).epoch(shard(&house)), None);
    // With the shard back, the state is that of the journal, not of the lost instance.
    holdings(&house).grant(shard(&house), Epoch(2));
    assert_eq!(house.cart(ADA).await.unwrap(), ["kettle x 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_from_memory_without_a_lease() {
    let house = owner().await;
    house.add(ADA, "kettle").await.unwrap();
    holdings(&house).end_lease();
    assert_eq!(code(call(&house, reading(&house, Consistency::Leased)).await), Code::Unavailable);
    assert_eq!(code(call(&house, reading(&house, Consistency::Stale)).await), Code::Ok);
    assert_eq!(code(call(&house, reading(&house, Consistency::Fenced)).await), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_read_asks_the_store_and_a_leased_one_does_not() {
    let house = owner().await;
    house.add(ADA, "kettle").await.unwrap();
    house.store.set_epoch(shard(&house), Epoch(2));
    // Within the lease nobody can have taken it: this store is not a real one.
    assert_eq!(code(call(&house, reading(&house, Consistency::Leased)).await), Code::Ok);
    let fenced = call(&house, reading(&house, Consistency::Fenced)).await;
    assert_eq!(fenced, Err(CallError::NotHere));
    assert_eq!(holdings(&house).epoch(shard(&house)), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_shard_was_lost_before_it_is_answered_is_not_answered() {
    let house = shared(owner().await);
    house.add(ADA, "kettle").await.unwrap();
    let hold = house.store.hold().await;
    let write = spawn({
        let house = house.clone();
        async move { house.add(ADA, "cup").await }
    });
    eventually("the turn", || house.entities.hot_one(&cart(ADA)).unwrap().seq.0 == 2).await;
    // It has seen the second item, and waits for it to be durable.
    let read = spawn({
        let house = house.clone();
        async move { call(&house, reading(&house, Consistency::Leased)).await }
    });
    eventually("the read's turn", || holdings(&house).inside(shard(&house)) == 2).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    // A later life of this node has a lease, but not this shard.
    holdings(&house).revoke(shard(&house), Epoch(1));
    drop(hold);
    write.await.unwrap().unwrap();
    assert_eq!(read.await.unwrap(), Err(CallError::NotHere));
}

/// A command whose write is in a commit that is held; the one after it was refused, because that takes too long.
async fn stalled(house: &Arc<House>) -> (Hold, JoinHandle<Result<Value, Status>>) {
    house.add(ADA, "kettle").await.unwrap();
    let hold = house.store.hold().await;
    let stalled = spawn({
        let house = house.clone();
        async move { house.add(ADA, "cup").await }
    });
    eventually("the commit", || house.store.waiting() == 1).await;
    assert_eq!(house.add(ADA, "pot").await.unwrap_err().code, Code::Unavailable);
    (hold, stalled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_refused_behind_a_stalled_commit_hides_none_that_is_in_it() {
    let house = shared(owner().await);
    let (hold, stalled) = stalled(&house).await;
    // The instance that saw the refused write is gone; the next one must see the one before it.
    let read = spawn({
        let house = house.clone();
        async move { house.cart(ADA).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!read.is_finished(), "read without a write that was on its way");
    drop(hold);
    stalled.await.unwrap().unwrap();
    assert_eq!(read.await.unwrap().unwrap(), ["cup x 1", "kettle x 1"]);
    assert_eq!(house.cart(ADA).await.unwrap(), ["cup x 1", "kettle x 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_with_a_write_in_a_stalled_commit_stays_although_a_later_one_was_refused() {
    let house = shared(owner().await);
    let (hold, stalled) = stalled(&house).await;
    let passivated = spawn({
        let house = house.clone();
        async move { house.entities.passivate(&cart(ADA)).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!passivated.is_finished(), "passivated before its write was durable");
    drop(hold);
    assert!(passivated.await.unwrap());
    stalled.await.unwrap().unwrap();
    assert_eq!(house.cart(ADA).await.unwrap(), ["cup x 1", "kettle x 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_owner_loads_what_was_hot_before_it_is_asked() {
    let house = owner().await;
    for user in [ADA, "bob"] {
        let shard = holdings(&house).shard_of(&cart(user));
        holdings(&house).grant(shard, Epoch(1));
        house.add(user, "kettle").await.unwrap();
        holdings(&house).close(shard, Epoch(1));
        assert!(house.entities.empty_shard(shard).await.contains(&cart(user)));
        holdings(&house).grant(shard, Epoch(2));
    }
    let nobody = holdings(&house).shard_of(&cart("nobody"));
    holdings(&house).revoke(nobody, Epoch(1));
    house.entities.warm(vec![cart(ADA), cart("bob")]).await;
    assert!(house.entities.hot_one(&cart(ADA)).is_some());
    assert!(house.entities.hot_one(&cart("bob")).is_some());
    assert_eq!(house.cart(ADA).await.unwrap(), ["kettle x 1"]);
}
