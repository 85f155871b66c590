//! Who shows another key is kept out.

use std::time::Duration;

use stead_tests::cart::GUEST;
use stead_tests::cluster::Setup;

use crate::cluster::until;

const LOGGED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_node_with_another_key_is_kept_out() {
    let mut cluster = Setup::nodes(2).start(GUEST).await;
    cluster.host(0).add("ada", "kettle", 1).await.ok();
    let key = "another key, that is not this cluster's";
    let added = cluster.try_add(|options| options.env("STEAD_CLUSTER_KEY", key)).await;
    let outsider = added.expect("the store lets it in");
    let host = cluster.host(outsider);

    // Nothing was run, and the answer does not come late.
    let services = host.services.with_header("connect-timeout-ms", "2000");
    let refused = services.get("/carts/ada").await;
    let refused = refused.refused(504, "deadline_exceeded");
    assert!(refused.contains("the command was not run"), "{refused}");

    // Of gossip, and of the call that it tried to pass on.
    let logs = async || cluster.host(0).log() + &cluster.host(1).log() + &host.log();
    for sentence in ["a packet of gossip from", "its cluster key (STEAD_CLUSTER_KEY)"] {
        until(sentence, LOGGED_WITHIN, logs, |log| log.contains(sentence)).await;
    }
    let status = cluster.host(0).stead(&["cluster", "status", "--format", "json"]).await.ok();
    let members = status.json()["members"].clone();
    let id = cluster.node_id(outsider);
    let member =
        members.as_array().expect("members").iter().find(|member| {
            member["node_id"].as_str().is_some_and(|name| name.replace('-', "") == id)
        });
    assert!(member.is_none_or(|member| member["gossip"] != "alive"), "{members}");
    assert_eq!(cluster.host(1).cart("ada").await["kettle"], 1);
}
