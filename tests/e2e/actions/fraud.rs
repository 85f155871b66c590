//! The fraud check: payments in, verdicts out, on one stream, with the cards' entities behind it.

use std::time::Duration;

use serde_json::json;
use stead_tests::cli::run;
use stead_tests::{Host, files};
use tokio::process::Command;

const GUEST: &str = "fraud-check";
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// After either client: its payments with the card, each once.
async fn payments_are_kept(host: &Host, payments: u32) {
    let window = host.services.get("/cards/card/window").await.ok();
    assert_eq!(window["payments"], payments, "{window}");
    assert_eq!(host.events("com.example.fraud.Card", "card").await.len(), payments as usize);
}

async fn says_ok(command: &mut Command) {
    let ended = tokio::time::timeout(ENDS_WITHIN, run(command)).await.expect("it ends");
    assert_eq!(ended.ok().stdout.trim(), "ok");
}

#[tokio::test]
async fn grpcio_has_its_payments_judged_as_they_come() {
    let host = Host::with_guest(GUEST).await;
    let mut python = Command::new(files::clients().join("venv/bin/python"));
    says_ok(
        python.arg(files::source("tests/clients/grpcio_fraud.py")).arg(host.services.address()),
    )
    .await;
    payments_are_kept(&host, 8).await;
    let other = host.services.get("/cards/other/window").await.ok();
    assert_eq!((&other["payments"], &other["cents"]), (&json!(2), &json!("100001")));
}

#[tokio::test]
async fn connect_node_has_its_payments_judged_over_grpc() {
    connect_node("grpc").await;
}

#[tokio::test]
async fn connect_node_has_its_payments_judged_over_connect() {
    connect_node("connect").await;
}

#[tokio::test]
async fn connect_node_has_its_payments_judged_over_connect_in_json() {
    connect_node("connect-json").await;
}

async fn connect_node(protocol: &str) {
    let host = Host::with_guest(GUEST).await;
    // Node looks for packages beside the script, so the script goes where they are.
    let script = files::clients().join(format!("fraud-{protocol}.mjs"));
    std::fs::copy(files::source("tests/clients/fraud.mjs"), &script).expect("the script is copied");
    let descriptors = host.dir().join("fraud.binpb");
    std::fs::write(&descriptors, stead_tests::FRAUD_DESCRIPTORS).expect("descriptors are written");
    let mut node = Command::new("node");
    says_ok(node.arg(script).arg(host.services.base()).arg(descriptors).arg(protocol)).await;
    payments_are_kept(&host, 7).await;
}

#[tokio::test]
async fn what_a_card_was_used_for_survives_a_kill() {
    let host = Host::with_guest(GUEST).await;
    connect_once(&host).await;
    let host = host.kill_and_restart().await;
    payments_are_kept(&host, 7).await;
}

async fn connect_once(host: &Host) {
    for number in 0..7 {
        let payment = json!({"paymentId": format!("p{number}"), "card": "card", "cents": "1"});
        host.services.post("/com.example.fraud.Card/Paid", &payment).await.ok();
    }
}
