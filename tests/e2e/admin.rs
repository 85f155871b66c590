//! The admin API: a look at every entity, at any time of its life, and who may look.

use serde_json::json;
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE, items};
use stead_tests::host::Options;

#[tokio::test]
async fn events_are_decoded_and_numbered() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 2).await.ok();
    host.services.post("/cart/ada/items/kettle/remove", &json!({})).await.ok();
    let events = host.events(SERVICE, "ada").await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["type"], "com.example.shoppingcart.persistence.ItemAdded");
    assert_eq!(events[0]["json"]["item"]["quantity"], 2);
    assert_eq!(events[1]["json"]["productId"], "kettle");
    assert!(events[0]["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    assert_eq!(host.events("shopping-cart", "ada").await, events, "the journal's name works too");
}

#[tokio::test]
async fn the_state_can_be_seen_as_it_was_after_any_event() {
    let host = Host::with_guest(GUEST).await;
    for _ in 0..120 {
        host.add("ada", "kettle", 1).await.ok();
    }
    for at in [1, 50, 99, 100, 101, 120] {
        let state = host.state(SERVICE, "ada", Some(at)).await;
        assert_eq!(state["seq"], at.to_string());
        assert_eq!(items(&state["json"])["kettle"], at as i64, "at {at}");
    }
    let empty = host.state(SERVICE, "ada", Some(0)).await;
    assert!(items(&empty["json"]).is_empty(), "{empty}");
    let beyond = host.admin.get(&format!("/v1/entities/{SERVICE}/ada/state?at=121")).await;
    assert_eq!(beyond.status, 400, "{}", beyond.text());
    assert_eq!(host.cart("ada").await["kettle"], 120, "looking changes nothing");
}

#[tokio::test]
async fn entities_are_listed_in_pages_by_prefix_and_temperature() {
    let host = Host::with_guest(GUEST).await;
    for user in ["ada", "alan", "barbara", "grace"] {
        host.add(user, "kettle", 1).await.ok();
    }
    host.passivate(SERVICE, "alan").await;
    let ids = async |query: &str| {
        let page = host.admin.get(&format!("/v1/entities?{query}")).await.ok();
        let ids: Vec<_> = page["entities"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|entity| entity["id"].as_str().unwrap_or_default().to_owned())
            .collect();
        (ids, page["nextPageToken"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(ids("").await.0, ["ada", "alan", "barbara", "grace"]);
    assert_eq!(ids("idPrefix=a").await.0, ["ada", "alan"]);
    assert_eq!(ids("temperature=COLD").await.0, ["alan"]);
    assert_eq!(ids("temperature=HOT&idPrefix=a").await.0, ["ada"]);
    let (first, token) = ids("pageSize=3").await;
    assert_eq!(first.len(), 3);
    assert_eq!(
        ids(&format!("pageSize=3&pageToken={token}")).await,
        (vec!["grace".into()], "".into())
    );
}

#[tokio::test]
async fn an_entity_that_is_not_there_is_not_found() {
    let host = Host::with_guest(GUEST).await;
    host.admin.get(&format!("/v1/entities/{SERVICE}/nobody")).await.refused(404, "not_found");
    host.admin.get("/v1/entities/no.such.Service/ada").await.refused(404, "not_found");
}

#[tokio::test]
async fn the_node_tells_about_itself() {
    let host = Host::with_guest(GUEST).await;
    let node = host.admin.get("/v1/node").await.ok();
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&node["revision"], &node["store"]), (&json!("1"), &json!("sqlite")));
    assert_eq!(node["journalStopped"], "");
}

#[tokio::test]
async fn with_a_token_nothing_is_told_without_it() {
    let host = Options::default().env("STEAD_ADMIN_TOKEN", "correct horse battery").start().await;
    for token in [None, Some("wrong"), Some("")] {
        let client = match token {
            Some(token) => host.admin.with_header("authorization", &format!("Bearer {token}")),
            None => host.admin.clone(),
        };
        client.get("/v1/node").await.refused(401, "unauthenticated");
        let path = "/stead.admin.v1.Admin/GetNode";
        client.post(path, &json!({})).await.refused(401, "unauthenticated");
    }
    let right = host.admin.with_header("authorization", "Bearer correct horse battery");
    right.get("/v1/node").await.ok();
    assert_eq!(host.admin.get("/live").await.status, 200, "a probe has no secrets");
    assert!(!host.log().contains("correct horse"), "the token is in the log");
}

#[tokio::test]
async fn without_a_token_the_admin_port_stays_on_loopback() {
    let refused = Options::default()
        .admin("0.0.0.0:0")
        .try_start()
        .await
        .err()
        .expect("the host does not start");
    assert!(refused.log.contains("STEAD_ADMIN_TOKEN"), "{refused}");
}
