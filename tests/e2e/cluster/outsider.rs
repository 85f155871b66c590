//! Who has another key is kept out.

use stead_tests::cart::GUEST;
use stead_tests::cluster::{KEY, Setup};

const OTHER: &str = "another key, that is not this cluster's";

#[tokio::test]
async fn a_node_with_another_key_is_refused() {
    let mut cluster = Setup::nodes(2).start(GUEST).await;
    cluster.host(0).add("ada", "kettle", 1).await.ok();
    let refused = cluster.try_add(|options| options.env("STEAD_CLUSTER_KEY", OTHER)).await;
    let refused = refused.expect_err("the node is refused");
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(refused.log.contains("has another cluster key"), "{refused}");
    assert!(!refused.log.contains(OTHER), "{refused}");
    assert_eq!(cluster.number("SELECT count(*) FROM node"), 2);
    assert_eq!(cluster.host(1).cart("ada").await["kettle"], 1);
}

#[tokio::test]
async fn a_key_is_replaced_one_node_at_a_time() {
    let mut cluster = Setup::nodes(1).start(GUEST).await;
    let both = |options: stead_tests::host::Options| {
        options.env("STEAD_CLUSTER_KEY", OTHER).env("STEAD_CLUSTER_KEY_PREVIOUS", KEY)
    };
    cluster.try_add(both).await.expect("a node that knows both keys");
    // From now on the new key is the cluster's.
    let new = cluster.try_add(|options| options.env("STEAD_CLUSTER_KEY", OTHER)).await;
    new.expect("a node that knows the new key");
    let old = cluster.try_add(|options| options).await;
    assert!(old.is_err(), "the old key is not good any more");
}
