//! The examples as a user meets them: over HTTP, in a real host that may be killed.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use stead_tests::Host;

/// Asks again until it is so.
async fn until(host: &Host, path: &str, so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = host.services.get(path).await.ok();
        if so(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} still answers {answer}; {}", host.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn send(host: &Host, method: Method, path: &str, body: &Value) -> Value {
    host.services.send(method, path, "application/json", body.to_string()).await.ok()
}

#[tokio::test]
async fn value_cart_forgets_a_cart_that_was_removed() {
    let host = Host::with_guest("value-cart").await;
    let kettle = json!({"productId": "kettle", "name": "Kettle", "quantity": 2});
    host.services.post("/value-carts/ada/items", &kettle).await.ok();
    let host = host.kill_and_restart().await;
    assert_eq!(host.services.get("/value-carts/ada").await.ok(), json!({"items": [kettle]}));
    send(&host, Method::DELETE, "/value-carts/ada", &json!({})).await;
    let host = host.kill_and_restart().await;
    assert_eq!(host.services.get("/value-carts/ada").await.ok(), json!({"items": []}));
}

#[tokio::test]
async fn reminders_ring_after_a_crash_too() {
    let host = Host::with_guest("reminders").await;
    let reminder = json!({"text": "it has drawn", "afterSeconds": 1});
    send(&host, Method::PUT, "/reminders/ada/tea", &reminder).await;
    let host = host.kill_and_restart().await;
    let list = until(&host, "/reminders/ada", |list| list["reminders"][0]["rung"] == 1).await;
    assert_eq!(list["reminders"][0]["pending"], false);
}

/// A host with five kettles in stock and 100.00 on Ada's account.
async fn shop() -> Host {
    let host = Host::with_guest("checkout").await;
    host.services.post("/stock/kettle", &json!({"quantity": 5})).await.ok();
    host.services.post("/accounts/ada", &json!({"cents": 10_000})).await.ok();
    host
}

fn order(address: &str, cents: u32) -> Value {
    json!({"customer": "ada", "sku": "kettle", "quantity": 2, "cents": cents, "address": address})
}

async fn left(host: &Host) -> (Value, Value) {
    let stock = host.services.get("/stock/kettle").await.ok();
    let account = host.services.get("/accounts/ada").await.ok();
    (stock["available"].clone(), account["cents"].clone())
}

#[tokio::test]
async fn checkout_reserves_charges_and_ships() {
    let host = shop().await;
    let status =
        host.services.post("/orders/o-1", &order("12 St James's Square", 4_000)).await.ok();
    assert_eq!(status["state"], "RUNNING");
    let status = until(&host, "/orders/o-1", |status| status["state"] == "COMPLETED").await;
    assert_eq!(status["result"]["tracking"], "parcel-o-1");
    assert_eq!(left(&host).await, (json!(3), json!("6000")));
    // A second time it answers and does nothing.
    let again = host.services.post("/orders/o-1", &order("elsewhere", 4_000)).await.ok();
    assert_eq!(again, status);
    assert_eq!(left(&host).await, (json!(3), json!("6000")));
}

#[tokio::test]
async fn checkout_undoes_an_order_that_cannot_be_shipped() {
    let host = shop().await;
    host.services.post("/orders/o-1", &order("", 4_000)).await.ok();
    let status = until(&host, "/orders/o-1", |status| status["state"] == "FAILED").await;
    assert_eq!(status["compensated"], json!(["charge", "reserve"]));
    assert_eq!(status["message"], "the parcel of order o-1 has no address");
    assert_eq!(left(&host).await, (json!(5), json!("10000")));
}

#[tokio::test]
async fn checkout_waits_for_its_approval_through_a_crash() {
    let host = shop().await;
    host.services.post("/accounts/ada", &json!({"cents": 500_000})).await.ok();
    host.services.post("/orders/o-1", &order("here", 200_000)).await.ok();
    let host = host.kill_and_restart().await;
    let status = host.services.get("/orders/o-1").await.ok();
    assert_eq!(status["waitingFor"], json!(["Approve"]));
    host.services.post("/orders/o-1/approval", &json!({"approved": true})).await.ok();
    until(&host, "/orders/o-1", |status| status["state"] == "COMPLETED").await;
    let late = host.services.post("/orders/o-1/approval", &json!({"approved": true})).await;
    assert_eq!(late.refused(400, "failed_precondition"), "the workflow o-1 is over");
}

#[tokio::test]
async fn fraud_check_keeps_a_window_for_each_card() {
    let host = Host::with_guest("fraud-check").await;
    let pay = |id: &'static str| json!({"paymentId": id, "card": "4711", "cents": 5});
    host.services.post("/com.example.fraud.Card/Paid", &pay("a")).await.ok();
    host.services.post("/com.example.fraud.Card/Paid", &pay("b")).await.ok();
    host.services.post("/com.example.fraud.Card/Paid", &pay("b")).await.ok();
    let window = host.services.get("/cards/4711/window").await.ok();
    assert_eq!(window, json!({"payments": 2, "cents": "10"}));
}
