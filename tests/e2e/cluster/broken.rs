//! A node that cannot load what is deployed leaves the shards to those that can.

use std::time::Duration;

use stead_tests::cart::GUEST;
use stead_tests::cluster::{SHARDS, Setup};

use crate::cluster::until;

const TOLD_WITHIN: Duration = Duration::from_secs(20);
/// More than the rest that a node needs before it gets a share.
const NO_SHARE_FOR: Duration = Duration::from_secs(16);

#[tokio::test]
async fn a_node_that_cannot_load_a_module_takes_no_shards() {
    let mut cluster = Setup::nodes(1).start(GUEST).await;
    cluster.host(0).add("ada", "kettle", 1).await.ok();
    cluster.sql("UPDATE module SET data = '\\x00'");
    // The first has it in memory, the second has no copy.
    let late = cluster.add().await;
    let id = cluster.node_id(late);
    let look = async || {
        let status = cluster.host(0).stead(&["cluster", "status", "--format", "json"]).await;
        let members = status.ok().json()["members"].clone();
        let mut members = members.as_array().cloned().unwrap_or_default().into_iter();
        let is_late = |member: &serde_json::Value| {
            member["node_id"].as_str().is_some_and(|name| name.replace('-', "") == id)
        };
        members.find(is_late).unwrap_or_default()
    };
    let told = |member: &serde_json::Value| {
        member["broken"].as_str().is_some_and(|broken| !broken.is_empty())
    };
    let member = until("the node says what is broken", TOLD_WITHIN, look, told).await;
    assert!(member["broken"].as_str().is_some_and(|broken| broken.contains("module")), "{member}");
    tokio::time::sleep(NO_SHARE_FOR).await;
    assert_eq!((cluster.owned(0), cluster.owned(late)), (SHARDS.into(), 0));
    let text = cluster.host(late).stead(&["cluster", "status"]).await.ok();
    assert!(text.stderr.contains("module"), "{}{}", text.stdout, text.stderr);
    cluster.host(0).add("ada", "kettle", 1).await.ok();
}
