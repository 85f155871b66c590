//! One fault after another under load, whatever comes.

use std::time::Duration;

use stead_tests::cluster::Cluster;
use stead_tests::cluster::net::Drops;
use stead_tests::cluster::relay::Conditions;
use stead_tests::load::Load;
use stead_tests::rng::Rng;

use crate::support::{PROGRESS_WITHIN, SHUTDOWN, TAKE_OVER_MAX, alone, has_networks, three};

/// Breaks something for a while, and mends it.
async fn fault(cluster: &mut Cluster, rng: &mut Rng) {
    let node = rng.below(cluster.len() as u64) as usize;
    let other = (node + 1) % cluster.len();
    let time = Duration::from_millis(500 + rng.below(9_500));
    let kind = rng.below(9);
    println!("fault {kind} on node {node} for {time:?}");
    match kind {
        0 => {
            cluster.kill(node);
            tokio::time::sleep(time).await;
            cluster.restart(node).await;
        }
        1 => {
            cluster.terminate(node, SHUTDOWN).await;
            tokio::time::sleep(time).await;
            cluster.restart(node).await;
        }
        2 => {
            cluster.freeze(node);
            tokio::time::sleep(time).await;
            cluster.thaw(node);
        }
        3 | 4 => {
            let blocks_there = rng.below(2) == 0;
            let conditions =
                Conditions { blocks_there, blocks_back: true, ..Conditions::default() };
            cluster.node(node).store.set(conditions);
            tokio::time::sleep(time).await;
            cluster.node(node).store.heal();
        }
        5 => {
            for _ in 0..5 {
                cluster.node(node).store.cut();
                tokio::time::sleep(time / 10).await;
            }
        }
        6 => {
            let drops = [Drops::Incoming, Drops::Outgoing, Drops::Both][rng.below(3) as usize];
            cluster.net().cut(node, cluster.net().address(other), drops);
            tokio::time::sleep(time).await;
            cluster.net().heal(node);
        }
        7 => {
            cluster.net().lose(node, 30);
            tokio::time::sleep(time).await;
            cluster.net().heal(node);
        }
        _ => cluster.server().restart(),
    }
}

async fn faults(count: usize) {
    let mut rng = Rng::from_env();
    let server = stead_tests::postgres::Server::start(&["max_connections=200"]);
    let mut cluster = three(|setup| setup.networked().server(server)).await;
    let load = Load::start(cluster.services(), &mut rng);
    for _ in 0..count {
        load.progress(100, PROGRESS_WITHIN).await;
        fault(&mut cluster, &mut rng).await;
    }
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.progress(500, PROGRESS_WITHIN).await;
    let histories = load.stop().await;
    println!("{} calls over {count} faults", histories.calls());
    histories.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_linearizable_over_four_random_faults() {
    let _alone = alone().await;
    if has_networks() {
        faults(4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn answers_are_linearizable_over_twenty_random_faults() {
    let _alone = alone().await;
    if has_networks() {
        faults(20).await;
    }
}
