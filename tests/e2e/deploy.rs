//! Versions: a second one takes over, an earlier one comes back, journals are never orphaned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::files::{self, another_version};

const WORKERS: usize = 8;

async fn deploy_version(host: &Host, version: u8) -> Value {
    let uploaded = host.upload_bytes(another_version(GUEST, version)).await.ok();
    host.deploy_digest(uploaded["digest"].as_str().expect("a digest"), false).await.ok()
}

#[tokio::test]
async fn a_new_version_takes_over_under_load_without_losing_a_command() {
    let host = Host::with_guest(GUEST).await;
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (services, stop) = (host.services.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Two workers share a cart, so that switching meets queued commands too.
                    let path = format!("/cart/user-{}/items/add", worker / 2);
                    let item = json!({"productId": "tea", "name": "Tea", "quantity": 1});
                    services.try_post(&path, &item).await.expect("no command fails");
                    acknowledged += 1;
                }
                acknowledged
            })
        })
        .collect();
    for version in 1..=5 {
        let before = host.metric("stead_commands_total").await;
        let deployed = deploy_version(&host, version).await;
        assert_eq!(deployed["changes"][0]["action"], "REPLACED", "{deployed}");
        // Every version serves some commands before the next one comes.
        while host.metric("stead_commands_total").await < before + 200.0 {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = 0;
    for worker in workers {
        acknowledged += worker.await.expect("a worker");
    }
    let mut stored = 0;
    for user in 0..WORKERS / 2 {
        let user = format!("user-{user}");
        let events = host.events(SERVICE, &user).await.len() as i64;
        assert_eq!(host.cart(&user).await["tea"], events);
        stored += events;
    }
    assert_eq!(stored, acknowledged);
}

#[tokio::test]
async fn a_component_built_for_wasi_runs_and_takes_over_the_journals_of_one_without() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "tea", 2).await.ok();
    let deployed = host.deploy("shopping-cart-wasip2").await;
    assert_eq!(deployed["changes"][0]["action"], "REPLACED", "{deployed}");
    assert_eq!(host.cart("ada").await["tea"], 2);
    host.add("ada", "tea", 1).await.ok();
    assert_eq!(host.cart("ada").await["tea"], 3);
    let removed = host.services.post("/cart/ada/items/cup/remove", &json!({})).await;
    assert_eq!(removed.status, 404);
}

#[tokio::test]
async fn an_upload_is_named_by_its_content_and_may_be_repeated() {
    let host = Host::start().await;
    let bytes = std::fs::read(files::guest(GUEST)).expect("the cart");
    let first = host.upload_bytes(bytes.clone()).await.ok();
    let again = host.upload_bytes(bytes).await.ok();
    assert_eq!(first["digest"], again["digest"]);
    assert_eq!((&first["alreadyPresent"], &again["alreadyPresent"]), (&json!(false), &json!(true)));
    assert_eq!(first["entityTypes"][0]["service"], SERVICE);
}

#[tokio::test]
async fn an_earlier_revision_comes_back_as_a_new_one() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 1).await.ok();
    deploy_version(&host, 1).await;
    let rolled_back = host.admin.post("/v1/revisions:rollBack", &json!({})).await.ok();
    assert_eq!(rolled_back["revision"], "3", "{rolled_back}");
    let revisions = host.admin.get("/v1/revisions").await.ok();
    let of = |at: usize| revisions["revisions"][at]["modules"][0]["digest"].clone();
    assert_eq!(of(0), of(2), "revision 3 is what revision 1 was: {revisions}");
    assert_ne!(of(0), of(1));
    assert_eq!(revisions["revisions"][0]["live"], true);
    assert_eq!(host.cart("ada").await["kettle"], 1);
}

#[tokio::test]
async fn deployments_survive_a_restart() {
    let host = Host::with_guest(GUEST).await;
    deploy_version(&host, 1).await;
    let before = host.admin.get("/v1/services").await.ok();
    let host = host.kill_and_restart().await;
    assert_eq!(host.admin.get("/v1/services").await.ok(), before);
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let host = Host::start().await;
    let digest = host.upload(&files::guest(GUEST)).await;
    let plan = json!({"modules": [digest], "plan": true});
    let planned = host.admin.post("/v1/deployments", &plan).await.ok();
    assert_eq!(planned["changes"][0]["action"], "ADDED", "{planned}");
    host.services.get("/carts/ada").await.refused(404, "not_found");
}

#[tokio::test]
async fn removing_a_type_that_has_entities_is_refused_unless_forced() {
    let host = Host::with_guest("tck-model").await;
    host.deploy(GUEST).await;
    host.add("ada", "kettle", 1).await.ok();
    let back = |force: bool| json!({"revision": "1", "force": force});
    let refused = host.admin.post("/v1/revisions:rollBack", &back(false)).await;
    let message = refused.refused(400, "failed_precondition");
    assert!(message.contains("shopping-cart") || message.contains(SERVICE), "{message}");
    assert_eq!(host.cart("ada").await["kettle"], 1, "a refused deployment changes nothing");
    host.admin.post("/v1/revisions:rollBack", &back(true)).await.ok();
    host.services.get("/carts/ada").await.refused(404, "not_found");
    host.deploy(GUEST).await;
    assert_eq!(host.cart("ada").await["kettle"], 1, "the journal is still there");
}

#[tokio::test]
async fn an_unknown_digest_cannot_be_deployed() {
    let host = Host::start().await;
    let refused = host.deploy_digest(&"0".repeat(64), false).await;
    refused.refused(404, "not_found");
}
