//! Turns, their order, and what answers wait for.

use serde_json::json;
use stead::words::Code;

use crate::house::{CART, House, cart, eventually, shared, spawn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_leaves_before_the_write_that_it_could_have_seen_is_durable() {
    let house = shared(House::with(&["shopping-cart"]).await);
    house.add("ada", "kettle").await.unwrap();

    let hold = house.store.hold().await;
    let write = spawn({
        let house = house.clone();
        async move { house.add("ada", "cup").await }
    });
    eventually("the write's turn", || house.entities.hot_one(&cart("ada")).unwrap().seq.0 == 2)
        .await;
    let read = spawn({
        let house = house.clone();
        async move { house.cart("ada").await }
    });
    let refused = spawn({
        let house = house.clone();
        async move {
            house.call(CART, "RemoveItem", json!({"userId": "ada", "productId": "none"})).await
        }
    });
    // Another entity has written nothing: its reads need not wait.
    assert_eq!(house.cart("bob").await.unwrap(), Vec::<String>::new());
    assert!(!write.is_finished() && !read.is_finished() && !refused.is_finished());
    assert_eq!(house.stored_events(&cart("ada")).await, 1);

    drop(hold);
    write.await.unwrap().unwrap();
    assert_eq!(read.await.unwrap().unwrap(), ["cup x 1", "kettle x 1"]);
    assert_eq!(refused.await.unwrap().unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_of_an_entity_go_on_while_its_commits_are_on_their_way() {
    let house = shared(House::with(&["shopping-cart"]).await);
    house.add("ada", "kettle").await.unwrap();
    let hold = house.store.hold().await;
    let writes: Vec<_> = (0..50)
        .map(|_| {
            spawn({
                let house = house.clone();
                async move { house.add("ada", "cup").await }
            })
        })
        .collect();
    eventually("all turns", || house.entities.hot_one(&cart("ada")).unwrap().seq.0 == 51).await;
    assert_eq!(house.stored_events(&cart("ada")).await, 1);
    drop(hold);
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(house.stored_events(&cart("ada")).await, 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_commands_share_one_activation() {
    let house = House::with(&["shopping-cart"]).await;
    let calls = (0..64).map(|_| house.cart("ada"));
    for answer in futures_util::future::join_all(calls).await {
        assert!(answer.unwrap().is_empty());
    }
    assert_eq!(house.metric("stead_activations_total{"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_take_their_turns_in_the_order_of_their_arrival() {
    let house = House::with(&["tck-model"]).await;
    // `join_all` polls its futures in order, and each offers its command when it is first polled.
    let calls = (0..200).map(|n| {
        let action = json!({"emit": {"value": format!("{n},")}});
        house.call(crate::house::MODEL, "Process", json!({"id": "e", "actions": [action]}))
    });
    let answers = futures_util::future::join_all(calls).await;
    let mut expected = String::new();
    for (n, answer) in answers.into_iter().enumerate() {
        expected.push_str(&format!("{n},"));
        assert_eq!(answer.unwrap()["message"], expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_full_refuses_at_once() {
    let house = shared(House::with(&["misbehaving"]).await);
    let endless =
        house.request(crate::house::MISBEHAVING, "Do", json!({"id": "e", "what": "loop"}));
    let endless = spawn({
        let house = house.clone();
        async move { house.send(endless).await }
    });
    eventually("the endless turn", || house.entities.hot_count() == 1).await;
    let limit = stead::words::limits::MAILBOX_COMMANDS_MAX;
    let calls = (0..=limit)
        .map(|_| house.call(crate::house::MISBEHAVING, "Do", json!({"id": "e", "what": "ok"})));
    let answers = futures_util::future::join_all(calls).await;
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    let refused: Vec<_> = refused.map(|status| status.code).collect();
    assert_eq!(refused, [Code::ResourceExhausted]);
    assert_eq!(endless.await.unwrap().unwrap_err().code, Code::Internal);
}
