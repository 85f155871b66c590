//! A command with an idempotency key takes effect once.

use serde_json::json;
use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::{Answer, Host};

async fn add_once(host: &Host, key: &str, quantity: i32) -> Answer {
    let item = json!({"productId": "kettle", "name": "Kettle", "quantity": quantity});
    host.services.with_header("idempotency-key", key).post("/cart/ada/items/add", &item).await
}

#[tokio::test]
async fn a_repeated_command_takes_effect_once_and_gets_the_first_answer() {
    let host = Host::with_guest(GUEST).await;
    let first = add_once(&host, "k1", 1).await.ok();
    assert_eq!(add_once(&host, "k1", 1).await.ok(), first);
    assert_eq!(host.cart("ada").await["kettle"], 1);
    add_once(&host, "k2", 1).await.ok();
    assert_eq!(host.cart("ada").await["kettle"], 2);
}

#[tokio::test]
async fn the_same_key_with_another_payload_is_refused() {
    let host = Host::with_guest(GUEST).await;
    add_once(&host, "k1", 1).await.ok();
    let refused = add_once(&host, "k1", 7).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert_eq!(host.cart("ada").await["kettle"], 1);
}

#[tokio::test]
async fn a_key_is_remembered_over_passivation_and_kill() {
    let host = Host::with_guest(GUEST).await;
    add_once(&host, "k1", 1).await.ok();
    host.passivate(SERVICE, "ada").await;
    add_once(&host, "k1", 1).await.ok();
    let host = host.kill_and_restart().await;
    add_once(&host, "k1", 1).await.ok();
    assert_eq!(host.cart("ada").await["kettle"], 1);
    assert_eq!(host.events(SERVICE, "ada").await.len(), 1);
}

#[tokio::test]
async fn keys_belong_to_one_entity() {
    let host = Host::with_guest(GUEST).await;
    let keyed = host.services.with_header("idempotency-key", "same");
    for user in ["ada", "grace"] {
        let item = json!({"productId": "kettle", "name": "Kettle", "quantity": 1});
        keyed.post(&format!("/cart/{user}/items/add"), &item).await.ok();
        assert_eq!(host.cart(user).await["kettle"], 1);
    }
}

#[tokio::test]
async fn concurrent_repeats_take_effect_once() {
    let host = Host::with_guest(GUEST).await;
    let repeats = (0..20).map(|_| add_once(&host, "k1", 1));
    for answer in futures_util::future::join_all(repeats).await {
        answer.ok();
    }
    assert_eq!(host.events(SERVICE, "ada").await.len(), 1);
}
