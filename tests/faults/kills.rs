//! Nodes that die, and nodes that are told to end.

use std::time::{Duration, Instant};

use stead_tests::load::Load;
use stead_tests::rng::Rng;

use crate::support::{
    PROGRESS_WITHIN, SHUTDOWN, TAKE_OVER_MAX, alone, away, fill, seconds, tell, three,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_entity_of_a_killed_node_answers_again() {
    let _alone = alone().await;
    let mut cluster = three(|setup| setup).await;
    fill(&cluster.host(0).services, "before").await;
    cluster.kill(1);
    let away = away(&cluster.services(), "before", Instant::now()).await;
    tell("SIGKILL", &away);
    assert!(away[away.len() - 1] <= TAKE_OVER_MAX);
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn with_fast_failover_every_entity_answers_again() {
    let _alone = alone().await;
    let mut cluster = three(|setup| setup.argument("--fast-failover")).await;
    fill(&cluster.host(0).services, "before").await;
    cluster.kill(1);
    let away = away(&cluster.services(), "before", Instant::now()).await;
    tell("SIGKILL with --fast-failover", &away);
    assert!(away[away.len() - 1] <= TAKE_OVER_MAX);
}

async fn kill_under_load(kills: usize) {
    let mut rng = Rng::from_env();
    let mut cluster = three(|setup| setup).await;
    let load = Load::start(cluster.services(), &mut rng);
    for _ in 0..kills {
        load.progress(200, PROGRESS_WITHIN).await;
        let node = rng.below(3) as usize;
        tokio::time::sleep(Duration::from_millis(rng.below(1_000))).await;
        cluster.kill(node);
        tokio::time::sleep(Duration::from_millis(rng.below(9_000))).await;
        cluster.restart(node).await;
    }
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.progress(500, PROGRESS_WITHIN).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_by_two_kills() {
    let _alone = alone().await;
    kill_under_load(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn nothing_acknowledged_is_lost_or_doubled_by_thirty_kills() {
    let _alone = alone().await;
    kill_under_load(30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_cluster_that_died_as_a_whole_serves_within_fifteen_seconds() {
    let _alone = alone().await;
    let mut cluster = three(|setup| setup).await;
    fill(&cluster.host(0).services, "before").await;
    for _ in 0..5 {
        for node in 0..3 {
            cluster.kill(node);
        }
        let start = Instant::now();
        for node in 0..3 {
            cluster.restart(node).await;
        }
        let away = away(&cluster.services(), "before", start).await;
        tell("all killed", &away);
        assert!(away[away.len() - 1] <= Duration::from_secs(15));
    }
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ends_hands_over_without_a_failed_call() {
    let _alone = alone().await;
    let mut cluster = three(|setup| setup).await;
    let mut rng = Rng::from_env();
    let stay = vec![cluster.host(0).services.clone(), cluster.host(2).services.clone()];
    let load = Load::start(stay, &mut rng);
    load.progress(500, PROGRESS_WITHIN).await;
    cluster.terminate(1, SHUTDOWN).await;
    load.progress(500, PROGRESS_WITHIN).await;
    let told = load.told();
    assert_eq!(told.failed(), 0, "{told:#?}");
    cluster.restart(1).await;
    // Long enough for the node to be given shards again.
    seconds(20).await;
    let told = load.told();
    assert_eq!(told.failed(), 0, "{told:#?}");
    assert!(cluster.owned(1) > 0, "the node was given nothing back");
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}
