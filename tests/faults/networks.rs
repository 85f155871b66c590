//! Networks that lose, delay and double what nodes say to each other. That makes calls slow, and
//! kills nobody.

use std::time::Duration;

use stead_tests::cluster::Cluster;
use stead_tests::cluster::relay::Conditions;
use stead_tests::load::Load;
use stead_tests::rng::Rng;

use crate::support::{PROGRESS_WITHIN, alone, has_networks, seconds, three};

async fn nobody_dies(
    cluster: &Cluster,
    worsen: impl FnOnce(&Cluster),
    heal: impl FnOnce(&Cluster),
) {
    let mut rng = Rng::from_env();
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(200, PROGRESS_WITHIN).await;
    let lives = cluster.lives();
    worsen(cluster);
    seconds(20).await;
    assert_eq!(cluster.lives(), lives, "a node was declared dead");
    heal(cluster);
    load.progress(300, PROGRESS_WITHIN).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn thirty_per_cent_of_loss_kills_no_node() {
    let _alone = alone().await;
    if !has_networks() {
        return;
    }
    let cluster = three(|setup| setup.networked()).await;
    let each = |what: fn(&Cluster, usize)| {
        move |cluster: &Cluster| (0..cluster.len()).for_each(|node| what(cluster, node))
    };
    let worsen = each(|cluster, node| cluster.net().lose(node, 30));
    nobody_dies(&cluster, worsen, each(|cluster, node| cluster.net().heal(node))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn late_doubled_and_overtaking_packets_kill_no_node() {
    let _alone = alone().await;
    let cluster = three(|setup| setup.relayed()).await;
    let set = |conditions: Conditions| {
        move |cluster: &Cluster| {
            for node in 0..cluster.len() {
                cluster.node(node).peer.as_ref().expect("a relay").set(conditions);
            }
        }
    };
    let bad = Conditions {
        delay: Duration::from_millis(500),
        jitter: Duration::from_millis(200),
        loss_percent: 5,
        duplicates_percent: 10,
        ..Conditions::default()
    };
    nobody_dies(&cluster, set(bad), set(Conditions::default())).await;
}
