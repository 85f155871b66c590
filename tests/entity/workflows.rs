//! Workflows: results of their steps come back, once in effect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use stead::entity::{Called, Caller, OutCall};
use stead::words::limits::SHARDS_LOOKED_AT_EVERY;
use stead::words::{Address, Epoch, Status};
use tokio::sync::{mpsc, oneshot};

use crate::house::{House, becomes, eventually, grant_all, shared, spawn};

const CHECKOUT: &str = "com.example.checkout.Checkout";
const STOCK: &str = "com.example.checkout.Stock";

async fn events(house: &House) -> Vec<String> {
    let address = Address::new("checkout", "o");
    let page = house.journal.events(&address, stead::words::Seq(1), 100, 1 << 20).await;
    let events = page.expect("events").events;
    events.into_iter().map(|stored| stored.event.type_name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_undoes_those_before_it() {
    let house = House::with(&["checkout"]).await;
    house.call(STOCK, "Restock", json!({"sku": "s", "quantity": 5})).await.unwrap();
    let order = json!({
        "orderId": "o", "customer": "poor", "sku": "s", "quantity": 2, "cents": 100
    });
    house.call(CHECKOUT, "Place", order).await.unwrap();
    let status = async || house.call(CHECKOUT, "Get", json!({"orderId": "o"})).await.unwrap();
    let ended = |status: &Value| {
        let state = status["state"].as_str().unwrap_or_default().to_uppercase();
        state.contains("FAILED") || state.contains("COMPENSATED")
    };
    becomes("the order fails", async || ended(&status().await)).await;
    let shelf = house.call(STOCK, "Get", json!({"sku": "s"})).await.unwrap();
    assert_eq!(shelf["available"], 5, "{shelf}");
    assert!(shelf["reserved"].as_object().unwrap().is_empty(), "{shelf}");
    // Restocked, reserved and released, each once.
    assert_eq!(house.stored_events(&Address::new("checkout-stock", "s")).await, 3);
    assert!(events(&house).await.iter().all(|name| name.starts_with("stead.workflow.v1.")));
}

/// What is left in the outbox after a crash is called again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_leaves_the_outbox_together_with_its_result() {
    let house = shared(House::with(&["checkout"]).await);
    house.call(STOCK, "Restock", json!({"sku": "s", "quantity": 5})).await.unwrap();
    let workflow = Address::new("checkout", "o");
    let mut hold = house.store.hold().await;
    let order = json!({
        "orderId": "o", "customer": "poor", "sku": "s", "quantity": 2, "cents": 100
    });
    let placed = spawn({
        let house = house.clone();
        async move { house.call(CHECKOUT, "Place", order).await }
    });
    let mut most = 0;
    // From one commit to the next.
    while !events(&house).await.iter().any(|name| name == "stead.workflow.v1.Completed") {
        eventually("a commit", || house.store.waiting() > 0).await;
        let mut next = Box::pin(house.store.hold());
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(hold);
        hold = next.await;
        let waiting = house.journal.outbox_of(&workflow, 10).await.expect("an outbox");
        most = most.max(waiting.len());
    }
    drop(hold);
    placed.await.unwrap().unwrap();
    assert_eq!(most, 1, "one step after the other");
}

/// Asks the test what calls come to.
struct Asking(mpsc::UnboundedSender<(OutCall, oneshot::Sender<Result<Bytes, Status>>)>);

impl Caller for Asking {
    fn call(&self, call: OutCall) -> Called {
        let (answer, answered) = oneshot::channel();
        self.0.send((call, answer)).expect("the test listens");
        Box::pin(async move { answered.await.expect("an answer") })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_step_that_outlives_its_epoch_the_second_result_counts() {
    let house = House::member(&["checkout"]).await;
    grant_all(&house, 1);
    let (asking, mut calls) = mpsc::unbounded_channel();
    house.entities.set_caller(Arc::new(Asking(asking)));
    let order = json!({
        "orderId": "o", "customer": "ada", "sku": "s", "quantity": 2, "cents": 100
    });
    house.call(CHECKOUT, "Place", order).await.unwrap();
    let mut next = async || {
        let call = tokio::time::timeout(Duration::from_secs(30), calls.recv()).await;
        call.expect("a call").expect("a caller")
    };
    let (reserve, rejected) = next().await;

    // As after an answer of the store that was lost: the same node has the shard again.
    let holdings = house.journal.holdings();
    let shard = holdings.shard_of(&Address::new("checkout", "o"));
    house.store.set_epoch(shard, Epoch(2));
    assert!(holdings.grant(shard, Epoch(2)));
    tokio::time::sleep(SHARDS_LOOKED_AT_EVERY * 3).await;
    rejected.send(Err(Status::failed_precondition("there is none"))).unwrap();
    let (again, accepted) = next().await;
    assert_eq!(again.idempotency_key, reserve.idempotency_key);
    accepted.send(Ok(Bytes::new())).unwrap();
    let (charge, _) = next().await;
    assert_eq!((&*reserve.method, &*charge.method), ("Reserve", "Charge"));
}
