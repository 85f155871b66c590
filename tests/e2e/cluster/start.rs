//! A node that cannot start keeps nothing from the others.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use stead_tests::Host;
use stead_tests::cart::GUEST;
use stead_tests::client::Client;
use stead_tests::cluster::{Cluster, SHARDS, Setup};

use crate::cluster::until;

const SHARED_WITHIN: Duration = Duration::from_secs(90);
/// A lease, on a machine that is busy.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);

/// Two nodes that both own shards.
async fn shared() -> Cluster {
    let cluster = Setup::nodes(2).start(GUEST).await;
    let owned = async || (cluster.owned(0), cluster.owned(1));
    until("both own shards", SHARED_WITHIN, owned, |(one, other)| *one > 0 && *other > 0).await;
    cluster.host(0).add("ada", "kettle", 1).await.ok();
    cluster
}

/// Starts the second node again and again, as a supervisor does, until the first owns every shard.
async fn taken_over(cluster: &Cluster, sentence: &str) {
    let start = Instant::now();
    while cluster.owned(0) < i64::from(SHARDS) {
        let refused = cluster.refuses(1).await;
        assert_eq!(refused.status.code(), Some(1), "{refused}");
        assert!(refused.log.contains(sentence), "{refused}");
        let owned = cluster.owned(0);
        let is_late = start.elapsed() > TAKEN_OVER_WITHIN;
        assert!(!is_late, "{owned} of {SHARDS} shards after {TAKEN_OVER_WITHIN:?}");
    }
    for number in 0..20 {
        cluster.host(0).add(&format!("user-{number}"), "tea", 1).await.ok();
    }
}

async fn comes_back(cluster: &mut Cluster) {
    cluster.restart(1).await;
    assert_eq!(cluster.host(1).cart("ada").await["kettle"], 1);
    cluster.check_rows();
}

async fn loses_its_shards_without(port: impl Fn(&Host) -> &Client) {
    let mut cluster = shared().await;
    let address = port(cluster.host(1)).address().to_owned();
    cluster.kill(1);
    let other = TcpListener::bind(&address).expect("the port is free");
    taken_over(&cluster, "is in use by another program").await;
    drop(other);
    comes_back(&mut cluster).await;
}

#[tokio::test]
async fn a_node_whose_services_port_is_taken_loses_its_shards_to_the_others() {
    loses_its_shards_without(|host| &host.services).await;
}

#[tokio::test]
async fn a_node_whose_admin_port_is_taken_loses_its_shards_to_the_others() {
    loses_its_shards_without(|host| &host.admin).await;
}

#[tokio::test]
async fn a_node_that_cannot_write_its_ports_file_does_not_register() {
    let mut cluster = Setup::nodes(1).start(GUEST).await;
    let id = cluster.node_id(0);
    let process = format!("SELECT encode(process, 'hex') FROM node WHERE node_id = '\\x{id}'");
    let before = cluster.sql(&process);
    // The file is written here first.
    let partial = cluster.host(0).dir().join("ports.json.partial");
    std::fs::create_dir(&partial).expect("a directory");
    cluster.kill(0);
    let refused = cluster.refuses(0).await;
    assert!(refused.log.contains("ports.json cannot be written"), "{refused}");
    assert_eq!(cluster.sql(&process), before);
}

#[tokio::test]
async fn a_node_whose_start_fails_after_it_registered_leaves() {
    let mut cluster = shared().await;
    let id = cluster.node_id(1);
    let ports = cluster.host(1).dir().join("ports.json");
    cluster.kill(1);
    std::fs::remove_file(&ports).expect("it was told where it listens");
    // A file can be written beside it, and cannot take its place.
    std::fs::create_dir(&ports).expect("a directory");
    let refused = cluster.refuses(1).await;
    assert!(refused.log.contains("ports.json cannot be written"), "{refused}");
    let state = cluster.sql(&format!("SELECT state FROM node WHERE node_id = '\\x{id}'"));
    assert_eq!(state, "gone");
    let others = async || i64::from(SHARDS) - cluster.owned(0);
    until("the first owns all", TAKEN_OVER_WITHIN, others, |others| *others == 0).await;
    std::fs::remove_dir(&ports).expect("an empty directory");
    comes_back(&mut cluster).await;
}
