//! A store that stops, starts again, and fails over to a standby.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use stead_tests::cart::GUEST;
use stead_tests::cluster::{Cluster, Setup};
use stead_tests::load::{Load, Outcome, try_once};
use stead_tests::postgres::{Server, wait_for};
use stead_tests::rng::Rng;

use crate::support::{
    ENTITIES, PROGRESS_WITHIN, TAKE_OVER_MAX, alone, away, entity, fill, seconds, tell,
};

/// Durable: what it loses is our fault.
fn durable() -> Server {
    Server::start(&["max_connections=200"])
}

async fn outage(length: Duration) {
    let mut rng = Rng::from_env();
    let cluster = Setup::nodes(3).server(durable()).start(GUEST).await;
    fill(&cluster.host(0).services, "before").await;
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(200, PROGRESS_WITHIN).await;
    let lives = cluster.lives();
    cluster.server().stop_immediate();
    tokio::time::sleep(length).await;
    cluster.server().restart();
    let away = away(&cluster.services(), "before", Instant::now()).await;
    tell("the store was stopped", &away);
    assert!(away[away.len() - 1] <= Duration::from_secs(10));
    load.progress(500, PROGRESS_WITHIN).await;
    assert_eq!(cluster.lives(), lives, "an outage ended in theft");
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_store_that_was_away_for_thirty_seconds_is_used_again() {
    let _alone = alone().await;
    outage(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_store_that_is_killed_loses_nothing() {
    let _alone = alone().await;
    let mut rng = Rng::from_env();
    let cluster = Setup::nodes(3).server(durable()).start(GUEST).await;
    let load = Load::start(cluster.services(), &mut rng);
    for _ in 0..3 {
        load.progress(300, PROGRESS_WITHIN).await;
        tokio::time::sleep(Duration::from_millis(rng.below(1_000))).await;
        cluster.server().restart();
    }
    load.progress(500, PROGRESS_WITHIN).await;
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

/// Ends the primary, and leads every node to the standby.
fn fail_over(cluster: &Cluster, standby: &Server) {
    cluster.server().stop_immediate();
    standby.promote();
    for node in 0..cluster.len() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, standby.port()));
        cluster.node(node).store.lead_to(address);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_synchronous_standby_takes_over_and_nothing_is_lost() {
    let _alone = alone().await;
    let mut rng = Rng::from_env();
    let mut cluster = Setup::nodes(3).server(durable()).start(GUEST).await;
    let standby = cluster.server().standby(true);
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(1_000, PROGRESS_WITHIN).await;
    fail_over(&cluster, &standby);
    cluster.is_served_by(standby);
    load.progress(500, PROGRESS_WITHIN).await;
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lacks_acknowledged_writes_halts_their_shards() {
    let _alone = alone().await;
    let mut cluster = Setup::nodes(3).server(durable()).start(GUEST).await;
    let standby = cluster.server().standby(false);
    fill(&cluster.host(0).services, "before").await;
    seconds(2).await;
    // From here on the standby follows nobody.
    standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
    standby.sql("postgres", "SELECT pg_reload_conf()");
    let followers = || cluster.number("SELECT count(*) FROM pg_stat_replication");
    wait_for("the standby to fall behind", || followers() == 0);
    fill(&cluster.host(0).services, "lost").await;
    let offsets =
        "SELECT string_agg(shard_id || ' ' || next_off, ',' ORDER BY shard_id) FROM shard";
    let offsets = |server: &Server| -> Vec<String> {
        server.sql(cluster.database(), offsets).split(',').map(str::to_owned).collect()
    };
    let (before, after) = (offsets(cluster.server()), offsets(&standby));
    let lost = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!(lost > 0 && before.len() == after.len());
    fail_over(&cluster, &standby);
    cluster.is_served_by(standby);
    // Nobody has to write for it.
    let halted = "SELECT count(*) FROM shard WHERE halted IS NOT NULL";
    let start = Instant::now();
    while cluster.number(halted) < lost as i64 {
        let halted = cluster.number(halted);
        assert!(start.elapsed() < PROGRESS_WITHIN, "{halted} of {lost} shards are halted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{lost} shards that lack events were halted after {:?}", start.elapsed());
    assert_eq!(cluster.number(halted), lost as i64, "shards that lack nothing are halted");
    // Nothing is answered as if nothing had happened.
    for number in 0..ENTITIES / 50 {
        let path = format!("/carts/{}", entity(number));
        if let Outcome::Done(answer) =
            try_once(&cluster.host(1).services, "GET", &path, None, "").await
        {
            let items = stead_tests::cart::items(&answer.json());
            assert_eq!(items.get("lost"), Some(&1), "{path} forgot what was acknowledged");
        }
    }
}
