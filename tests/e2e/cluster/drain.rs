//! A node that gives its shards away and runs on.

use std::time::Duration;

use stead_tests::Host;
use stead_tests::cart::GUEST;
use stead_tests::cluster::{SHARDS, Setup};

use crate::cluster::until;

const TOLD_WITHIN: Duration = Duration::from_secs(10);

async fn ready(host: &Host) -> (u16, String) {
    let answer = host.admin.get("/ready").await;
    (answer.status.as_u16(), answer.text())
}

#[tokio::test]
async fn a_drained_node_holds_nothing_and_still_routes() {
    let cluster = Setup::nodes(2).start(GUEST).await;
    let (first, second) = (cluster.host(0), cluster.host(1));
    first.add("ada", "kettle", 1).await.ok();
    let id = cluster.node_id(0);
    assert_eq!(ready(first).await.0, 200);

    // Any node can be told, by the start of an id.
    let drained = second.stead(&["cluster", "drain", &id[..8], "--format", "json"]).await.ok();
    let told = drained.json();
    assert_eq!((&told["draining"], &told["shards"]), (&true.into(), &0.into()), "{told}");
    assert_eq!((cluster.owned(0), cluster.owned(1)), (0, SHARDS.into()));
    let look = async || ready(first).await;
    let (_, text) = until("not ready", TOLD_WITHIN, look, |(status, _)| *status == 503).await;
    assert!(text.contains("draining: the node holds 0 shards"), "{text}");
    assert_eq!(ready(second).await.0, 200);
    for user in 0..20 {
        first.add(&format!("user-{user}"), "tea", 1).await.ok();
    }
    assert_eq!(first.cart("ada").await["kettle"], 1);
    assert_eq!(cluster.owned(0), 0);

    // There is nobody left to take the shards of the other.
    let other = cluster.node_id(1);
    first.stead(&["cluster", "drain", &other, "--no-wait"]).await.ok();
    first.stead(&["cluster", "drain", &other, "--cancel"]).await.ok();

    let cancelled = first.stead(&["cluster", "drain", &id, "--cancel"]).await.ok();
    assert!(cancelled.stderr.contains("takes shards again"), "{}", cancelled.stderr);
    until("ready", TOLD_WITHIN, look, |(status, _)| *status == 200).await;
    assert_eq!(first.cart("user-7").await["tea"], 1);
}

#[tokio::test]
async fn a_node_must_be_named_well() {
    let mut cluster = Setup::nodes(0).prepare();
    let dir = tempfile::tempdir().expect("a directory");
    for node in 0..2 {
        let data = dir.path().join(node.to_string());
        std::fs::create_dir(&data).expect("a data directory");
        let id = format!("abababab-0000-4000-8000-00000000000{node}\n");
        std::fs::write(data.join("node-id"), id).expect("an identity");
        cluster.try_add(|options| options.data(&data)).await.expect("the node starts");
    }
    let host = cluster.host(0);
    let both = async || {
        let status = host.stead(&["cluster", "status", "--format", "json"]).await.ok().json();
        status["members"].as_array().map(Vec::len)
    };
    until("both are seen", TOLD_WITHIN, both, |members| *members == Some(2)).await;
    for (name, code, sentence) in [
        ("abab", 3, "several nodes have an id that starts with \"abab\""),
        ("cdcd", 3, "the cluster has no node \"cdcd\""),
        ("10.1.2.3:7834", 3, "the cluster has no node \"10.1.2.3:7834\""),
        ("", 3, "node must not be empty"),
    ] {
        let refused = host.stead(&["cluster", "drain", name]).await;
        assert_eq!(refused.code, code, "{name}: {}", refused.stderr);
        assert!(refused.stderr.contains(sentence), "{name}: {}", refused.stderr);
    }
    let full = "abababab-0000-4000-8000-000000000001";
    host.stead(&["cluster", "drain", full, "--cancel"]).await.ok();
}
