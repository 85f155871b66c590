//! SIGTERM hands over, and nothing fails for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::cluster::{SHARDS, Setup};

const STOPPED_WITHIN: Duration = Duration::from_secs(30);
const WORKERS: usize = 8;
const BEFORE_AND_AFTER: Duration = Duration::from_secs(1);

#[tokio::test]
async fn sigterm_under_load_fails_no_call_of_the_other_nodes() {
    let mut cluster = Setup::nodes(3).start(GUEST).await;
    // The shards of the first are asked for through the others, whose connections stay.
    assert!(cluster.owned(0) > 0);
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let services = cluster.host(1 + worker % 2).services.clone();
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut acknowledged = 0;
                while !stop.load(Ordering::Relaxed) {
                    let path = format!("/cart/user-{worker}-{}/items/add", acknowledged % 8);
                    let item = json!({"productId": "tea", "name": "Tea", "quantity": 1});
                    services.try_post(&path, &item).await.expect("no command fails");
                    acknowledged += 1;
                }
                acknowledged
            })
        })
        .collect();
    tokio::time::sleep(BEFORE_AND_AFTER).await;
    let idle = cluster.host(0).services.clone();
    idle.get("/carts/nobody").await.ok();
    cluster.terminate(0, STOPPED_WITHIN).await;
    assert_eq!(cluster.owned(1) + cluster.owned(2), i64::from(SHARDS));
    tokio::time::sleep(BEFORE_AND_AFTER).await;
    stop.store(true, Ordering::Relaxed);
    let mut stored = 0;
    let mut total = 0;
    for (worker, task) in workers.into_iter().enumerate() {
        total += task.await.expect("a worker");
        for cart in 0..8 {
            let events = cluster.host(1).events(SERVICE, &format!("user-{worker}-{cart}")).await;
            stored += events.len();
        }
    }
    assert_eq!(stored, total);
    cluster.check_rows();
}
