//! What a cluster says of itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use stead_tests::Host;
use stead_tests::cart::GUEST;
use stead_tests::cluster::{SHARDS, Setup};

use crate::cluster::until;

/// Of gossip, in a loaded machine.
const MET_WITHIN: Duration = Duration::from_secs(20);

async fn status(host: &Host) -> Value {
    host.stead(&["cluster", "status", "--format", "json"]).await.ok().json()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn every_node_knows_the_cluster() {
    let cluster = Setup::nodes(3).argument("--zone").argument("hall-7").start(GUEST).await;
    let met = |status: &Value| {
        let members = status["members"].as_array().expect("members");
        let met =
            |member: &&Value| member["node_id"] == status["node_id"] || member["gossip"] == "alive";
        // What a node tells is what it saw when it last looked at the store.
        let has_looked = status["store_silent"] == false && status["shards"]["owned"] == SHARDS;
        has_looked && members.len() == 3 && members.iter().filter(met).count() == 3
    };
    for node in cluster.up() {
        let host = cluster.host(node);
        let status = until("gossip", MET_WITHIN, async || status(host).await, met).await;
        let expected = "cluster_id disagreements lease_remaining_ms members node_id read_ago_ms \
                        revision shards store_silent";
        assert_eq!(keys(&status), expected.split(' ').collect(), "{status}");
        let expected = "free halted moving owned total";
        assert_eq!(keys(&status["shards"]), expected.split(' ').collect(), "{status}");
        assert_eq!(status["shards"]["total"], SHARDS);
        assert_eq!(status["revision"], 1);
        assert_eq!(status["disagreements"], serde_json::json!([]));
        for member in status["members"].as_array().expect("members") {
            let expected = "address broken capacity gossip incarnation lease_age_ms node_id \
                            revision shards start_time state version zone";
            assert_eq!(keys(member), expected.split(' ').collect(), "{status}");
            assert_eq!((&member["state"], &member["zone"]), (&"active".into(), &"hall-7".into()));
        }
        let text = host.stead(&["cluster", "status"]).await.ok().stdout;
        assert!(text.contains(&format!("shards: {SHARDS} of {SHARDS} owned")), "{text}");
        assert!(text.contains("(this)") && text.contains("hall-7"), "{text}");
        assert_eq!(text.matches("active").count(), 3, "{text}");
    }
}

#[tokio::test]
async fn a_cluster_with_nothing_to_do_leaves_the_processors_alone() {
    let cluster = Setup::nodes(3).start(GUEST).await;
    cluster.host(0).deploy("tck-every-kind").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = || {
        cluster.up().into_iter().map(|node| cluster.host(node).processor_time()).sum::<Duration>()
    };
    let (start, before) = (Instant::now(), used());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (used, elapsed) = (used() - before, start.elapsed());
    assert!(used < elapsed / 2, "the three: {used:?} of {elapsed:?}");
}

#[tokio::test]
async fn a_node_of_its_own_is_no_cluster() {
    let host = Host::start().await;
    for arguments in [&["cluster", "status"][..], &["cluster", "drain", "any"]] {
        let refused = host.stead(arguments).await;
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("no member of a cluster"), "{}", refused.stderr);
    }
}
