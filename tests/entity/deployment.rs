//! A new module takes over entities that are hot.

use crate::house::{House, cart, eventually, shared, spawn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_module_takes_over_without_losing_a_command() {
    let house = shared(House::with(&["shopping-cart"]).await);
    let users = 5;
    let writers: Vec<_> = (0..users)
        .map(|user| {
            let house = house.clone();
            spawn(async move {
                for _ in 0..200 {
                    house.add(&format!("user-{user}"), "cup").await.unwrap();
                }
            })
        })
        .collect();
    for version in 0_u8..4 {
        house.deploy("shopping-cart", &[version, 1, 2]).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for user in 0..users {
        assert_eq!(house.cart(&format!("user-{user}")).await.unwrap(), ["cup x 200"]);
    }
    assert_eq!(house.registry.live().revision.0, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_instance_of_an_older_module_is_dropped() {
    let house = House::with(&["shopping-cart"]).await;
    house.add("ada", "cup").await.unwrap();
    house.deploy("shopping-cart", b"new").await;
    eventually("the instance is dropped", || house.entities.hot_one(&cart("ada")).is_none()).await;
    assert_eq!(house.cart("ada").await.unwrap(), ["cup x 1"]);
}
