//! A node is its data directory.

use std::time::Duration;

use stead_tests::cart::GUEST;
use stead_tests::cluster::{Cluster, Setup};

const STOPPED_WITHIN: Duration = Duration::from_secs(35);
const FAILED_WITHIN: Duration = Duration::from_secs(30);
const SERVED_WITHIN: Duration = Duration::from_secs(30);

fn copy_identity(cluster: &Cluster, to: &std::path::Path) {
    let from = cluster.host(0).data().join("node-id");
    std::fs::copy(from, to.join("node-id")).expect("the identity can be copied");
}

#[tokio::test]
async fn a_node_comes_back_as_itself() {
    let mut cluster = Setup::nodes(2).start(GUEST).await;
    cluster.host(0).add("ada", "kettle", 1).await.ok();
    let ids = [cluster.node_id(0), cluster.node_id(1)];
    cluster.terminate(0, STOPPED_WITHIN).await;
    cluster.restart(0).await;
    cluster.kill(1);
    cluster.restart(1).await;
    assert_eq!([cluster.node_id(0), cluster.node_id(1)], ids);
    assert_eq!(cluster.number("SELECT count(*) FROM node"), 2);
    cluster.all_owned(SERVED_WITHIN).await;
    for node in cluster.up() {
        assert_eq!(cluster.host(node).cart("ada").await["kettle"], 1);
    }
}

#[tokio::test]
async fn a_data_directory_is_for_one_process() {
    let mut cluster = Setup::nodes(1).start(GUEST).await;
    let data = cluster.host(0).data();
    let Err(refused) = cluster.try_add(|options| options.data(&data)).await else {
        panic!("two processes share a data directory");
    };
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(refused.log.contains("is in use by another stead"), "{refused}");
    cluster.host(0).add("ada", "kettle", 1).await.ok();
}

#[tokio::test]
async fn a_copied_identity_ends_one_of_the_two() {
    let mut cluster = Setup::nodes(1).start(GUEST).await;
    let dir = tempfile::tempdir().expect("a directory");
    copy_identity(&cluster, dir.path());
    let added = cluster.try_add(|options| options.data(dir.path())).await;
    let second = added.expect("the later one lives");
    let log = cluster.ended(0, FAILED_WITHIN).await;
    assert!(log.contains("another process has started as node"), "{log}");
    cluster.all_owned(SERVED_WITHIN).await;
    cluster.host(second).add("ada", "kettle", 1).await.ok();
}
