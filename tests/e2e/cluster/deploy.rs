//! What is deployed through one node is live on all.

use std::time::Duration;

use serde_json::Value;
use stead_tests::Host;
use stead_tests::cart::GUEST;
use stead_tests::cluster::{Cluster, Setup};
use stead_tests::files::another_version;

use crate::cluster::until;

const LIVE_WITHIN: Duration = Duration::from_secs(10);

async fn digest(host: &Host) -> String {
    let services = host.stead(&["services", "--format", "json"]).await.ok().json();
    services["services"][0]["module_digest"].as_str().unwrap_or_default().to_owned()
}

async fn live_on_all(cluster: &Cluster, wanted: &str) {
    for node in cluster.up() {
        let what = format!("node {node} serves {wanted}");
        let look = async || digest(cluster.host(node)).await;
        until(&what, LIVE_WITHIN, look, |digest| digest == wanted).await;
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[tokio::test]
async fn a_deployment_is_live_on_every_node_and_can_be_rolled_back_on_any() {
    let mut cluster = Setup::nodes(2).start(GUEST).await;
    cluster.host(1).add("ada", "kettle", 1).await.ok();
    let first = digest(cluster.host(0)).await;
    live_on_all(&cluster, &first).await;

    // A module that one node was given can be deployed by another.
    let uploaded = cluster.host(1).upload_bytes(another_version(GUEST, 2)).await.ok();
    let second = text(&uploaded["digest"]).to_owned();
    assert_ne!(first, second);
    let deployed = cluster.host(0).deploy_digest(&second, false).await.ok();
    assert_eq!(deployed["revision"], "2", "{deployed}");
    live_on_all(&cluster, &second).await;

    let late = cluster.add().await;
    live_on_all(&cluster, &second).await;
    assert_eq!(cluster.host(late).cart("ada").await["kettle"], 1);

    let rolled_back = cluster.host(late).stead(&["rollback", "1", "--format", "json"]).await.ok();
    assert_eq!(rolled_back.json()["revision"], 3, "{}", rolled_back.stdout);
    live_on_all(&cluster, &first).await;
    let mut versions = Vec::new();
    for node in cluster.up() {
        versions.push(cluster.host(node).admin.get("/v1/revisions").await.ok());
        assert_eq!(cluster.host(node).cart("ada").await["kettle"], 1);
    }
    assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
}
