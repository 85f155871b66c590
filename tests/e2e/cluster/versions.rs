//! Nodes of neighbouring minor versions work together, others do not.

use std::time::Duration;

use stead_tests::cart::GUEST;
use stead_tests::cluster::{Cluster, Setup};
use stead_tests::host::{Options, Refused};

use crate::cluster::until;

const SHARED_WITHIN: Duration = Duration::from_secs(90);

/// This version's number of the minor version so many later.
fn later(minors: u64) -> String {
    let mut parts = env!("CARGO_PKG_VERSION").split('.');
    let mut part = || parts.next().and_then(|part| part.parse::<u64>().ok()).expect("a number");
    let (major, minor) = (part(), part());
    format!("{major}.{}.7", minor + minors)
}

fn of_version(version: &str) -> impl FnOnce(Options) -> Options {
    let version = version.to_owned();
    move |options| options.argument("--version-for-tests").argument(&version)
}

async fn refused(cluster: &mut Cluster, version: &str) -> Refused {
    let refused = cluster.try_add(of_version(version)).await;
    refused.expect_err("the node is refused")
}

#[tokio::test]
async fn nodes_of_neighbouring_minor_versions_are_one_cluster() {
    let mut cluster = Setup::nodes(1).start(GUEST).await;
    cluster.host(0).add("ada", "kettle", 1).await.ok();
    let next = later(1);
    let updated = cluster.try_add(of_version(&next)).await.expect("it may join");
    let owned = async || (cluster.owned(0), cluster.owned(updated));
    until("both own shards", SHARED_WITHIN, owned, |(old, new)| *old > 0 && *new > 0).await;
    // Some of these are the one's, some the other's.
    for number in 0..20 {
        for node in [0, updated] {
            cluster.host(node).add(&format!("user-{number}"), "tea", 1).await.ok();
        }
    }
    for node in [0, updated] {
        for number in 0..20 {
            assert_eq!(cluster.host(node).cart(&format!("user-{number}")).await["tea"], 2);
        }
        let status = cluster.host(node).stead(&["cluster", "status", "--format", "json"]).await;
        let status = status.ok().json();
        let members = status["members"].as_array().expect("members");
        let mut versions: Vec<_> =
            members.iter().map(|member| member["version"].as_str().expect("a version")).collect();
        versions.sort_unstable();
        let mut expected = [env!("CARGO_PKG_VERSION"), &next];
        expected.sort_unstable();
        assert_eq!(versions, expected);
    }
    cluster.check_rows();
}

#[tokio::test]
async fn a_node_of_a_version_further_away_is_refused_while_others_run() {
    let mut cluster = Setup::nodes(1).start(GUEST).await;
    cluster.host(0).add("ada", "kettle", 1).await.ok();
    let far = later(2);
    let refused = refused(&mut cluster, &far).await;
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    for part in [
        &format!("this is Stead {far}"),
        &format!("runs {}", env!("CARGO_PKG_VERSION")),
        "update one minor version at a time",
    ] {
        assert!(refused.log.contains(part), "{part:?} is not in {refused}");
    }
    // It has left no trace.
    assert_eq!(cluster.number("SELECT count(*) FROM node"), 1);
    cluster.host(0).add("ada", "kettle", 1).await.ok();

    // Nodes that are dead keep nobody out.
    cluster.kill(0);
    let updated = cluster.try_add(of_version(&far)).await.expect("it may start");
    let look = async || cluster.host(updated).services.try_get("/carts/ada").await;
    until("it serves", SHARED_WITHIN, look, |status| {
        status.as_ref().is_ok_and(|status| *status == 200)
    })
    .await
    .expect("it serves");
    assert_eq!(cluster.host(updated).cart("ada").await["kettle"], 2);
}
