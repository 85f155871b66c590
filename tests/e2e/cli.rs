//! The command line as scripts use it: exit codes and JSON.

use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::cli::stead;
use stead_tests::{Host, files};

fn guest() -> String {
    files::guest(GUEST).display().to_string()
}

#[tokio::test]
async fn a_session_from_deploy_to_rollback() {
    let host = Host::start().await;
    let deployed = host.stead(&["deploy", &guest(), "--yes", "--format", "json"]).await.ok().json();
    assert_eq!(deployed["revision"].to_string().trim_matches('"'), "1", "{deployed}");
    assert_eq!(deployed["changes"][0]["action"], "added", "{deployed}");

    let add = r#"{"userId":"ada","productId":"kettle","name":"Kettle","quantity":1}"#;
    let method = format!("{SERVICE}/AddItem");
    for _ in 0..2 {
        host.stead(&["call", &method, add, "--idempotency-key", "once"]).await.ok();
    }
    let cart = format!("{SERVICE}/GetCart");
    let cart = host.stead(&["call", &cart, r#"{"userId":"ada"}"#, "--format", "json"]).await.ok();
    assert_eq!(cart.json()["items"][0]["quantity"], 1, "{}", cart.stdout);

    let json = async |arguments: &[&str]| {
        let arguments = [arguments, &["--format", "json"]].concat();
        host.stead(&arguments).await.ok().json()
    };
    assert_eq!(json(&["entity", "list"]).await["entities"][0]["id"], "ada");
    assert_eq!(json(&["entity", "get", SERVICE, "ada"]).await["hot"], true);
    let events = json(&["entity", "events", SERVICE, "ada"]).await;
    assert_eq!(events["events"].as_array().map(Vec::len), Some(1), "{events}");
    json(&["entity", "state", SERVICE, "ada"]).await;
    assert_eq!(json(&["entity", "passivate", SERVICE, "ada"]).await["was_hot"], true);

    host.stead(&["deploy", &guest(), "--yes"]).await.ok();
    let versions = json(&["versions"]).await;
    assert!(versions["revisions"].as_array().is_some_and(|list| !list.is_empty()), "{versions}");
    host.stead(&["rollback", "1"]).await.ok();
}

#[tokio::test]
async fn check_says_what_a_component_holds() {
    let checked = stead(&["check", &guest(), "--format", "json"]).await.ok().json();
    assert_eq!(checked["services"][0]["name"], SERVICE, "{checked}");
    let not_wasm = files::source("README.md").display().to_string();
    let refused = stead(&["check", &not_wasm]).await;
    assert_ne!(refused.code, 0);
    assert!(!refused.stderr.is_empty());
}

#[tokio::test]
async fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stead(&["completions", shell]).await.ok().stdout.contains("stead"), "{shell}");
    }
}

#[tokio::test]
async fn doctor_looks_at_this_machine() {
    let host = Host::start().await;
    let ended = host.stead(&["doctor", "--format", "json"]).await;
    assert!(ended.json()["checks"].as_array().is_some_and(|checks| !checks.is_empty()));
}

#[tokio::test]
async fn exit_code_2_is_for_usage() {
    assert_eq!(stead(&["fly"]).await.code, 2);
    assert_eq!(stead(&["call"]).await.code, 2);
}

#[tokio::test]
async fn exit_code_3_is_for_what_the_host_refuses() {
    let host = Host::with_guest(GUEST).await;
    let method = format!("{SERVICE}/RemoveItem");
    let ended = host.stead(&["call", &method, r#"{"userId":"ada","productId":"milk"}"#]).await;
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("milk"), "{}", ended.stderr);
}

#[tokio::test]
async fn exit_code_4_is_for_a_host_that_cannot_be_reached() {
    // Port 1 of loopback: nothing listens there.
    let url = ["--admin-url", "http://127.0.0.1:1"];
    let ended = stead(&[&["versions"][..], &url].concat()).await;
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("127.0.0.1:1"), "{}", ended.stderr);
}

#[tokio::test]
async fn mistakes_get_a_sentence() {
    let host = Host::with_guest(GUEST).await;
    let unknown = host.stead(&["call", &format!("{SERVICE}/Fly"), "{}"]).await;
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("Fly"), "{}", unknown.stderr);
    let broken = host.stead(&["call", &format!("{SERVICE}/GetCart"), "{userId"]).await;
    assert_ne!(broken.code, 0);
    assert!(broken.stderr.to_lowercase().contains("json"), "{}", broken.stderr);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let host = Host::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let address = host.services.address();
    let serve = ["serve", "--data", &data, "--listen", address, "--admin", "127.0.0.1:0"];
    let ended = stead(&serve).await;
    assert_ne!(ended.code, 0);
    let port = address.rsplit(':').next().expect("a port");
    assert!(ended.stderr.contains(port), "{}", ended.stderr);
}
