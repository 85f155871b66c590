//! Nodes that stand still for longer than their lease, and wake up believing that nothing happened.

use std::time::{Duration, Instant};

use stead_tests::cart;
use stead_tests::load::{Load, Outcome, try_once};
use stead_tests::rng::Rng;
use tokio::task::JoinSet;

use crate::support::{
    ENTITIES, LEASE, PROGRESS_WITHIN, TAKE_OVER_MAX, alone, away, entity, fill, tell, three,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_woken_node_serves_no_old_state_and_appends_nothing() {
    let _alone = alone().await;
    let cluster = three(|setup| setup).await;
    let woken = cluster.host(1).services.clone();
    // Everything is hot on its owner, and node 1 has connections open.
    fill(&woken, "before").await;
    cluster.freeze(1);
    let start = Instant::now();
    let others = [cluster.host(0).services.clone(), cluster.host(2).services.clone()];
    let away = away(&others, "before", start).await;
    tell("SIGSTOP", &away);
    assert!(away[away.len() - 1] <= TAKE_OVER_MAX);
    fill(&others[0], "meanwhile").await;
    // The others count from its last renewal, which was some time before it stood still.
    tokio::time::sleep(LEASE.saturating_sub(start.elapsed())).await;
    // These wait in the sockets of the node that stands still.
    let mut calls = JoinSet::new();
    for number in 0..ENTITIES {
        let woken = woken.clone();
        calls.spawn(async move {
            let path = format!("/carts/{}", entity(number));
            let read = try_once(&woken, "GET", &path, None, "").await;
            let item = r#"{"productId":"late","name":"late","quantity":1}"#;
            let path = format!("/cart/{}/items/add", entity(number));
            (number, read, try_once(&woken, "POST", &path, None, item).await)
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.thaw(1);
    let told = calls.join_all().await;
    for (number, read, add) in told {
        if let Outcome::Done(answer) = read {
            let items = cart::items(&answer.json());
            assert_eq!(items.get("meanwhile"), Some(&1), "{}: an old state", entity(number));
        }
        let events = cluster.host(0).events(cart::SERVICE, &entity(number)).await;
        let late = events.iter().filter(|event| event["json"]["item"]["productId"] == "late");
        let expected = match add {
            Outcome::Done(_) => 1..=1,
            Outcome::Refused(_) => 0..=0,
            Outcome::Unknown(_) => 0..=1,
        };
        assert!(expected.contains(&late.count()), "{}: {add:?}", entity(number));
    }
    cluster.check_rows();
}

async fn pause_under_load(pauses: &[u64]) {
    let mut rng = Rng::from_env();
    let cluster = three(|setup| setup).await;
    let load = Load::start(cluster.services(), &mut rng);
    for pause in pauses {
        load.progress(200, PROGRESS_WITHIN).await;
        let node = rng.below(3) as usize;
        cluster.freeze(node);
        tokio::time::sleep(Duration::from_secs(*pause)).await;
        cluster.thaw(node);
    }
    load.progress(500, PROGRESS_WITHIN).await;
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn answers_are_linearizable_over_a_pause_longer_than_the_lease() {
    let _alone = alone().await;
    pause_under_load(&[8]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn answers_are_linearizable_over_many_pauses() {
    let _alone = alone().await;
    pause_under_load(&[3, 7, 20, 3, 7, 20, 5, 6, 6, 6, 7, 3]).await;
}
