//! Hosts that die under a load of effects, timers, workflows, consumers and views.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use stead_tests::Host;
use stead_tests::cart;
use stead_tests::cluster::Setup;
use stead_tests::functions::{FunctionLoad, GUESTS, move_to};
use stead_tests::rng::Rng;

use crate::support::{PROGRESS_WITHIN, TAKE_OVER_MAX, alone};

async fn one_node_killed(kills: usize) {
    let mut rng = Rng::from_env();
    let mut host = Host::with_guest(GUESTS[0]).await;
    host.deploy(GUESTS[1]).await;
    let places = Arc::new(RwLock::new(vec![host.services.clone()]));
    let load = FunctionLoad::start(places.clone(), &mut rng).await;
    for _ in 0..kills {
        load.progress(60, PROGRESS_WITHIN).await;
        tokio::time::sleep(Duration::from_millis(rng.below(500))).await;
        host = host.kill_and_restart().await;
        move_to(&places, vec![host.services.clone()]);
    }
    load.progress(60, PROGRESS_WITHIN).await;
    load.stop_and_check(&host).await;
}

async fn one_of_three_killed(kills: usize) {
    let mut rng = Rng::from_env();
    // Whether a node serves is asked of a cart.
    let mut cluster = Setup::nodes(3).start(cart::GUEST).await;
    for guest in GUESTS {
        cluster.host(0).deploy(guest).await;
    }
    let places = Arc::new(RwLock::new(cluster.services()));
    let load = FunctionLoad::start(places.clone(), &mut rng).await;
    for _ in 0..kills {
        load.progress(60, PROGRESS_WITHIN).await;
        let node = rng.below(3) as usize;
        tokio::time::sleep(Duration::from_millis(rng.below(1_000))).await;
        cluster.kill(node);
        move_to(&places, cluster.services());
        tokio::time::sleep(Duration::from_millis(rng.below(9_000))).await;
        cluster.restart(node).await;
        move_to(&places, cluster.services());
    }
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.progress(60, PROGRESS_WITHIN).await;
    load.stop_and_check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_do_everything_once_over_three_kills_of_a_node() {
    let _alone = alone().await;
    one_node_killed(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn functions_do_everything_once_over_twenty_kills_of_a_node() {
    let _alone = alone().await;
    one_node_killed(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_do_everything_once_over_a_kill_of_one_of_three_nodes() {
    let _alone = alone().await;
    one_of_three_killed(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn functions_do_everything_once_over_twenty_kills_of_one_of_three_nodes() {
    let _alone = alone().await;
    one_of_three_killed(20).await;
}
