//! The shopping cart as clients from PyPI and npm see it.

use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::cli::run;
use stead_tests::{Host, files};
use tokio::process::Command;

#[tokio::test]
async fn grpcio_works_with_reflection_alone() {
    let host = Host::with_guest(GUEST).await;
    let mut python = Command::new(files::clients().join("venv/bin/python"));
    let ended = run(python
        .arg(files::source("tests/clients/grpcio_client.py"))
        .arg(host.services.address()))
    .await
    .ok();
    assert_eq!(ended.stdout.trim(), "ok");
}

#[tokio::test]
async fn connect_node_speaks_connect_in_protobuf() {
    connect_node("connect").await;
}

#[tokio::test]
async fn connect_node_speaks_connect_in_json_over_http2() {
    connect_node("connect-json").await;
}

#[tokio::test]
async fn connect_node_speaks_grpc_web() {
    connect_node("grpc-web").await;
}

#[tokio::test]
async fn connect_node_speaks_grpc() {
    connect_node("grpc").await;
}

async fn connect_node(protocol: &str) {
    let host = Host::with_guest(GUEST).await;
    // Node looks for packages beside the script, so the script goes where they are.
    let script = files::clients().join(format!("{protocol}.mjs"));
    std::fs::copy(files::source("tests/clients/connect.mjs"), &script)
        .expect("the script is copied");
    let descriptors = host.dir().join("cart.binpb");
    std::fs::write(&descriptors, stead_tests::CART_DESCRIPTORS).expect("descriptors are written");
    let mut node = Command::new("node");
    let ended = run(node.arg(script).arg(host.services.base()).arg(descriptors).arg(protocol));
    assert_eq!(ended.await.ok().stdout.trim(), "ok");
}

#[tokio::test]
async fn buf_curl_finds_the_schema_by_reflection() {
    let host = Host::with_guest(GUEST).await;
    let item = r#"{"userId":"buf","productId":"kettle","name":"Kettle","quantity":1}"#;
    for protocol in ["grpc", "grpcweb", "connect"] {
        buf_curl(&host, protocol, "AddItem", item).await;
    }
    let cart = buf_curl(&host, "grpc", "GetCart", r#"{"userId":"buf"}"#).await;
    let cart: serde_json::Value = serde_json::from_str(&cart).expect("JSON");
    assert_eq!(cart["items"][0]["quantity"], 3, "{cart}");
}

async fn buf_curl(host: &Host, protocol: &str, method: &str, data: &str) -> String {
    let mut buf = Command::new(files::clients().join("node_modules/.bin/buf"));
    buf.args(["curl", "--protocol", protocol, "--http2-prior-knowledge", "--data", data])
        .arg(format!("{}/{SERVICE}/{method}", host.services.base()))
        .current_dir(host.dir());
    run(&mut buf).await.ok().stdout
}
