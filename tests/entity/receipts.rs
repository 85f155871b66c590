//! Idempotency keys.

use serde_json::json;

use crate::house::{House, cart};

fn keyed(house: &House, key: &str, product: &str) -> stead::entity::Request {
    let mut request = house.adding("ada", product);
    request.idempotency_key = Some(key.into());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_takes_effect_once_even_among_concurrent_commands() {
    let house = House::with(&["shopping-cart"]).await;
    let hold = house.store.hold().await;
    let calls = (0..20).map(|_| house.send(keyed(&house, "k", "cup")));
    let calls = futures_util::future::join_all(calls);
    let release = async {
        crate::house::eventually("the first turn", || house.entities.hot_count() == 1).await;
        drop(hold);
    };
    let (answers, ()) = futures_util::future::join(calls, release).await;
    for answer in answers {
        answer.unwrap();
    }
    assert_eq!(house.cart("ada").await.unwrap(), ["cup x 1"]);
    assert_eq!(house.stored_events(&cart("ada")).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_remembered_after_passivation() {
    let house = House::with(&["shopping-cart"]).await;
    house.send(keyed(&house, "k", "cup")).await.unwrap();
    assert!(house.entities.passivate(&cart("ada")).await);
    assert_eq!(house.send(keyed(&house, "k", "cup")).await.unwrap(), json!({}));
    assert_eq!(house.stored_events(&cart("ada")).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_with_another_payload_is_refused() {
    let house = House::with(&["shopping-cart"]).await;
    house.send(keyed(&house, "k", "cup")).await.unwrap();
    let status = house.send(keyed(&house, "k", "kettle")).await.unwrap_err();
    assert_eq!(status.http_status(), 422);
    assert_eq!(house.cart("ada").await.unwrap(), ["cup x 1"]);
}
