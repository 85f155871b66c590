//! A node cut off from the others, from the store, from both, in one direction or in both.

use std::time::{Duration, Instant};

use stead_tests::cluster::Cluster;
use stead_tests::cluster::net::Drops;
use stead_tests::cluster::relay::Conditions;
use stead_tests::load::{Load, Outcome, try_once};
use stead_tests::rng::Rng;

use crate::support::{
    ENTITIES, LEASE, PROGRESS_WITHIN, TAKE_OVER_MAX, alone, away, entity, fill, has_networks,
    seconds, tell, three,
};

/// Cuts node 0 off from the other nodes.
fn isolate(cluster: &Cluster, drops: Drops) {
    for other in 1..cluster.len() {
        cluster.net().cut(0, cluster.net().address(other), drops);
    }
}

async fn others_out_of_reach(drops: Drops) {
    let mut rng = Rng::from_env();
    let cluster = three(|setup| setup.networked()).await;
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(200, PROGRESS_WITHIN).await;
    let lives = cluster.lives();
    isolate(&cluster, drops);
    seconds(15).await;
    assert_eq!(cluster.lives(), lives, "gossip alone declared a node dead");
    cluster.net().heal(0);
    load.progress(500, PROGRESS_WITHIN).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_node_that_only_the_store_can_reach_keeps_its_shards() {
    let _alone = alone().await;
    if has_networks() {
        others_out_of_reach(Drops::Both).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_node_that_hears_nobody_keeps_its_shards() {
    let _alone = alone().await;
    if has_networks() {
        others_out_of_reach(Drops::Incoming).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_node_that_nobody_hears_keeps_its_shards() {
    let _alone = alone().await;
    if has_networks() {
        others_out_of_reach(Drops::Outgoing).await;
    }
}

/// Whether a node answers a leased read of some entity.
async fn answers(cluster: &Cluster, node: usize) -> bool {
    let services = cluster.host(node).services.clone();
    for number in 0..ENTITIES / 10 {
        let path = format!("/carts/{}", entity(number));
        if matches!(try_once(&services, "GET", &path, None, "").await, Outcome::Done(_)) {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_node_without_the_store_loses_its_shards_and_comes_back() {
    let _alone = alone().await;
    let cluster = three(|setup| setup).await;
    fill(&cluster.host(0).services, "before").await;
    cluster.node(0).store.block();
    let start = Instant::now();
    let others = [cluster.host(1).services.clone(), cluster.host(2).services.clone()];
    let away = away(&others, "before", start).await;
    tell("cut off from the store", &away);
    assert!(away[away.len() - 1] <= TAKE_OVER_MAX);
    fill(&others[0], "meanwhile").await;
    cluster.node(0).store.heal();
    let start = Instant::now();
    while cluster.owned(0) == 0 {
        assert!(start.elapsed() < PROGRESS_WITHIN, "the node was given nothing back");
        seconds(1).await;
    }
    self::away(&cluster.services(), "meanwhile", Instant::now()).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_linearizable_while_a_node_has_neither_store_nor_others() {
    let _alone = alone().await;
    if !has_networks() {
        return;
    }
    let mut rng = Rng::from_env();
    let cluster = three(|setup| setup.networked()).await;
    fill(&cluster.host(0).services, "before").await;
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(200, PROGRESS_WITHIN).await;
    cluster.node(0).store.block();
    isolate(&cluster, Drops::Both);
    tokio::time::sleep(LEASE).await;
    assert!(!answers(&cluster, 0).await, "a node without a lease answers from memory");
    seconds(4).await;
    cluster.node(0).store.heal();
    cluster.net().heal(0);
    load.progress(500, PROGRESS_WITHIN).await;
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

/// What the node says arrives and takes effect, but it hears no answer; or the other way round.
async fn one_way_to_the_store(conditions: Conditions) {
    let mut rng = Rng::from_env();
    let cluster = three(|setup| setup).await;
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(200, PROGRESS_WITHIN).await;
    cluster.node(0).store.set(conditions);
    tokio::time::sleep(LEASE * 2).await;
    cluster.node(0).store.heal();
    load.progress(500, PROGRESS_WITHIN).await;
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_whose_answers_never_come_lose_and_double_nothing() {
    let _alone = alone().await;
    one_way_to_the_store(Conditions { blocks_back: true, ..Conditions::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn statements_that_never_arrive_lose_and_double_nothing() {
    let _alone = alone().await;
    one_way_to_the_store(Conditions { blocks_there: true, ..Conditions::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn connections_to_the_store_that_are_cut_lose_and_double_nothing() {
    let _alone = alone().await;
    let mut rng = Rng::from_env();
    let cluster = three(|setup| setup).await;
    let load = Load::start(cluster.services(), &mut rng);
    for _ in 0..100 {
        load.progress(10, PROGRESS_WITHIN).await;
        tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
        cluster.node(rng.below(3) as usize).store.cut();
    }
    load.progress(500, PROGRESS_WITHIN).await;
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_flapping_node_is_not_declared_dead() {
    let _alone = alone().await;
    if !has_networks() {
        return;
    }
    let cluster = three(|setup| setup.networked()).await;
    let lives = cluster.lives();
    for _ in 0..60 {
        isolate(&cluster, Drops::Both);
        seconds(1).await;
        cluster.net().heal(0);
        seconds(1).await;
    }
    assert_eq!(cluster.lives(), lives, "a node that had its lease was declared dead");
}
