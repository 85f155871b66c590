//! Workflows: results of their steps come back, once in effect.

use serde_json::{Value, json};
use stead::words::Address;

use crate::house::{House, becomes, shared, spawn};

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
        let next = spawn({
            let house = house.clone();
            async move { house.store.hold().await }
        });
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        drop(hold);
        hold = next.await.unwrap();
        let waiting = house.journal.outbox_of(&workflow, 10).await.expect("an outbox");
        most = most.max(waiting.len());
    }
    drop(hold);
    placed.await.unwrap().unwrap();
    assert_eq!(most, 1, "one step after the other");
}
