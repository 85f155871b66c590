//! The protocol abuse rows of the acceptance list: what a client or a guest must not say. A handler that is
//! missing is among the bad modules, one that traps among the bad guests.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::eventually::becomes;
use stead_tests::grpc::frame;

use crate::bad_guests::{self, ask, count};

const MIB: usize = 1024 * 1024;
// Of gRPC.
const INVALID_ARGUMENT: &str = "3";
const RESOURCE_EXHAUSTED: &str = "8";
const UNIMPLEMENTED: &str = "12";

fn add_item() -> String {
    format!("/{SERVICE}/AddItem")
}

fn item(user: &str) -> Value {
    json!({"userId": user, "productId": "kettle", "name": "Kettle", "quantity": 1})
}

#[tokio::test]
async fn wrong_entity_id() {
    let host = Host::with_guest(GUEST).await;
    let mut without = item("");
    without.as_object_mut().expect("an item").remove("userId");
    let large = "a".repeat(MIB);
    for (item, word) in [(item(""), "user_id"), (without, "user_id"), (item(&large), "1024")] {
        let message = host.services.post(&add_item(), &item).await.refused(400, "invalid_argument");
        assert!(message.len() < 4096, "the key comes back in the message");
        assert!(message.contains(word), "{message}");
    }
    let entities = host.admin.get("/v1/entities").await.ok();
    assert!(entities["entities"].as_array().is_none_or(Vec::is_empty), "{entities}");
}

#[tokio::test]
async fn wrong_entity_id_of_a_forward_or_an_effect() {
    let host = bad_guests::host().await;
    ask(&host, "victim", "ok", 0).await.ok();
    // Both are for an entity without a name.
    let message = ask(&host, "victim", "forward", 0).await.refused(400, "invalid_argument");
    assert!(message.contains("id"), "{message}");
    ask(&host, "victim", "effect", 0).await.ok();
    let rejected = async || {
        let metrics = host.metrics().await;
        let of_rejected = |line: &str| {
            line.strip_prefix("stead_effects_total{result=\"rejected\"} ").map(str::to_owned)
        };
        metrics.lines().find_map(of_rejected).unwrap_or_default()
    };
    becomes("effects that were rejected", "1".to_owned(), rejected).await;
    assert_eq!(count(&host, "victim").await, "1");
}

#[tokio::test]
async fn wrong_entity_id_in_a_timer() {
    let host = bad_guests::host().await;
    ask(&host, "another", "ok", 0).await.ok();
    // Its command names another entity, and still is for the one whose timer it is.
    ask(&host, "victim", "timer", 1).await.ok();
    becomes("the count of the victim", "1".to_owned(), async || count(&host, "victim").await).await;
    assert_eq!(count(&host, "another").await, "1");
    assert_eq!(host.events(bad_guests::SERVICE, "another").await.len(), 1);
}

#[tokio::test]
async fn unknown_service() {
    let host = Host::with_guest(GUEST).await;
    let path = "/com.example.NoSuchService/AddItem";
    let message = host.services.post(path, &item("ada")).await.refused(404, "not_found");
    assert!(message.contains("NoSuchService"), "{message}");
    let ended = host.grpc(path, &frame(b""), &[]).await;
    assert_eq!(ended.status, UNIMPLEMENTED, "{ended:?}");
    assert!(ended.message.contains("NoSuchService"), "{ended:?}");
}

#[tokio::test]
async fn unknown_method() {
    let host = Host::with_guest(GUEST).await;
    let path = format!("/{SERVICE}/Fly");
    let message = host.services.post(&path, &item("ada")).await.refused(404, "not_found");
    assert!(message.contains("Fly"), "{message}");
    let ended = host.grpc(&path, &frame(b""), &[]).await;
    assert_eq!(ended.status, UNIMPLEMENTED, "{ended:?}");
    assert!(ended.message.contains("Fly"), "{ended:?}");
}

#[tokio::test]
async fn missing_payload() {
    let host = Host::with_guest(GUEST).await;
    for content_type in ["application/json", "application/proto"] {
        let sent = host.services.send(Method::POST, &add_item(), content_type, "").await;
        sent.refused(400, "invalid_argument");
    }
    for body in [frame(b""), Vec::new()] {
        let ended = host.grpc(&add_item(), &body, &[]).await;
        assert_eq!(ended.status, INVALID_ARGUMENT, "{body:?}: {ended:?}");
        assert!(!ended.message.is_empty(), "{body:?}: {ended:?}");
    }
    host.add("ada", "kettle", 1).await.ok();
}

#[tokio::test]
async fn oversized_message() {
    let host = Host::with_guest(GUEST).await;
    let body = vec![b' '; 4 * MIB + 1];
    for content_type in ["application/json", "application/proto"] {
        let sent = host.services.send(Method::POST, &add_item(), content_type, body.clone()).await;
        sent.refused(StatusCode::PAYLOAD_TOO_LARGE.as_u16(), "resource_exhausted");
    }
    // Announced, and sent.
    for body in [&frame(&body)[..8], &frame(&body)] {
        let ended = host.grpc(&add_item(), body, &[]).await;
        assert_eq!(ended.status, RESOURCE_EXHAUSTED, "{ended:?}");
    }
    host.add("ada", "kettle", 1).await.ok();
    assert_eq!(host.cart("ada").await["kettle"], 1, "the host goes on");
}
