//! Entities and nodes come and go; what was acknowledged stays.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::client::{Client, Failure};

const SHUTDOWN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_passivated_entity_comes_back_as_it_was() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 3).await.ok();
    assert_eq!(host.entity(SERVICE, "ada").await["hot"], true);
    assert_eq!(host.passivate(SERVICE, "ada").await["wasHot"], true);
    assert_eq!(host.entity(SERVICE, "ada").await["hot"], false);
    assert_eq!(host.cart("ada").await["kettle"], 3);
}

#[tokio::test]
async fn an_activation_starts_at_the_newest_snapshot() {
    let host = Host::with_guest(GUEST).await;
    for _ in 0..250 {
        host.add("ada", "kettle", 1).await.ok();
    }
    let host = host.kill_and_restart().await;
    assert_eq!(host.cart("ada").await["kettle"], 250);
    let entity = host.entity(SERVICE, "ada").await;
    assert_eq!((&entity["seq"], &entity["snapshotSeq"]), (&json!("250"), &json!("200")));
    assert_eq!(host.metric("stead_replayed_events_total").await, 50.0);
}

#[tokio::test]
async fn concurrent_first_commands_share_one_activation() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 1).await.ok();
    host.passivate(SERVICE, "ada").await;
    let before = host.metric("stead_activations_total").await;
    let carts = futures_util::future::join_all((0..50).map(|_| host.cart("ada"))).await;
    assert!(carts.iter().all(|cart| cart["kettle"] == 1));
    assert_eq!(host.metric("stead_activations_total").await, before + 1.0);
}

#[tokio::test]
async fn sigterm_under_load_loses_nothing_that_was_acknowledged() {
    let host = Host::with_guest(GUEST).await;
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            let services = host.services.clone();
            tokio::spawn(async move {
                let mut acknowledged = 0;
                loop {
                    let item = json!({"productId": "tea", "name": "Tea", "quantity": 1});
                    let path = format!("/cart/user-{worker}/items/add");
                    match services.try_post(&path, &item).await {
                        Ok(_) => acknowledged += 1,
                        Err(Failure::Connection(_)) | Err(Failure::Answered(503, _)) => break,
                        Err(other) => panic!("not an answer of a host that stops: {other:?}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    while host.metric("stead_commands_total").await < 500.0 {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    let stopped = host.terminate(SHUTDOWN).await;
    assert!(start.elapsed() < SHUTDOWN);
    let host = stopped.start().await;
    for (worker, task) in workers.into_iter().enumerate() {
        let acknowledged: usize = task.await.expect("a worker");
        let stored = host.events(SERVICE, &format!("user-{worker}")).await.len();
        // The last command may be stored although the connection ended before its answer.
        assert!((acknowledged..=acknowledged + 1).contains(&stored), "{acknowledged} {stored}");
    }
}

#[tokio::test]
async fn sigterm_closes_idle_connections_and_ends() {
    let host = Host::with_guest(GUEST).await;
    let _idle = tokio::net::TcpStream::connect(host.services.address()).await.unwrap();
    host.cart("ada").await;
    host.terminate(SHUTDOWN).await;
}

#[tokio::test]
async fn sigterm_waits_neither_for_endless_loops_nor_for_what_is_queued_behind_them() {
    const MISBEHAVING: &str = "misbehaving.v1.Misbehaving";
    async fn ask(services: Client, what: &str) -> Result<Value, Failure> {
        let request = json!({"id": "victim", "what": what});
        services.try_post(&format!("/{MISBEHAVING}/Do"), &request).await
    }
    let host = Host::with_guest("misbehaving").await;
    ask(host.services.clone(), "ok").await.expect("a first event");
    // Each loop has a second, so all of them together would take longer than the host may.
    let tasks: Vec<_> = ["loop", "ok"]
        .into_iter()
        .cycle()
        .take(60)
        .map(|what| (what, tokio::spawn(ask(host.services.clone(), what))))
        .collect();
    while host.metric("stead_commands_in_flight").await < 30.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stopped = host.terminate(SHUTDOWN).await;
    let mut acknowledged = 1;
    for (what, task) in tasks {
        acknowledged += usize::from(task.await.expect("a task").is_ok() && what == "ok");
    }
    let host = stopped.start().await;
    assert!(!host.log().contains("panic"), "{}", host.log());
    // A command may be stored although the connection ended before its answer.
    let stored = host.events(MISBEHAVING, "victim").await.len();
    assert!((acknowledged..=31).contains(&stored), "{acknowledged} acknowledged, {stored} stored");
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 1).await.ok();
    host.add("ada", "kettle", 0).await.refused(400, "invalid_argument");
    host.passivate(SERVICE, "ada").await;
    host.cart("ada").await;
    let text = host.metrics().await;
    let labels = format!("service=\"{SERVICE}\",method=\"AddItem\",result=");
    for wanted in [
        &format!("stead_commands_total{{{labels}\"ok\"}} 1"),
        &format!("stead_commands_total{{{labels}\"invalid_argument\"}} 1"),
        &format!("stead_activations_total{{service=\"{SERVICE}\"}} 2"),
        &format!("stead_passivations_total{{service=\"{SERVICE}\"}} 1"),
        &format!("stead_replayed_events_total{{service=\"{SERVICE}\"}} 1"),
        "stead_hot_entities 1",
        "stead_commit_seconds_count",
        "stead_commit_rows_bucket",
        "stead_command_seconds_bucket",
        "stead_commit_queue",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing:\n{text}");
    }
}

#[tokio::test]
async fn probes_answer() {
    let host = Host::start().await;
    assert_eq!(host.admin.get("/live").await.status, 200);
    assert_eq!(host.admin.get("/ready").await.status, 200);
}

#[tokio::test]
async fn a_node_with_nothing_to_do_leaves_the_processors_alone() {
    for guest in [GUEST, "tck-every-kind"] {
        let host = Host::with_guest(guest).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (start, used) = (Instant::now(), host.processor_time());
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (used, elapsed) = (host.processor_time() - used, start.elapsed());
        // A loop that never waits takes one for itself.
        assert!(used < elapsed / 5, "{guest}: {used:?} of {elapsed:?}");
    }
}

#[tokio::test]
async fn the_hot_entities_stay_below_their_bound() {
    let host = stead_tests::host::Options::default().env("STEAD_HOT_ENTITIES", "20").start().await;
    host.deploy(GUEST).await;
    for user in 0..100 {
        host.add(&format!("user-{user}"), "kettle", 1).await.ok();
    }
    let hot = host.metric("stead_hot_entities").await;
    assert!(hot <= 20.0, "{hot} entities are hot");
    for user in 0..100 {
        assert_eq!(host.cart(&format!("user-{user}")).await["kettle"], 1);
    }
}

#[tokio::test]
async fn a_terminal_that_is_gone_stops_the_host_cleanly() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 3).await.ok();
    let host = host.stop_by(libc::SIGHUP, SHUTDOWN).await.start().await;
    assert_eq!(host.cart("ada").await["kettle"], 3);
}
