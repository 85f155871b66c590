//! Actions over HTTP/JSON, gRPC-Web and Connect.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use stead_tests::cli::run;
use stead_tests::{Answer, Host, files};
use tokio::process::Command;

use crate::actions::model::GUEST;

const MODEL: &str = "stead.tck.v1.ActionModel";
const STREAMED_OUT: &str = "/tck/model/action/streamed-out";

fn replies(texts: &[&str]) -> Value {
    let groups: Vec<_> =
        texts.iter().map(|text| json!({"steps": [{"reply": {"message": text}}]})).collect();
    json!({"groups": groups})
}

fn failing_after(text: &str) -> Value {
    json!({"groups": [
        {"steps": [{"reply": {"message": text}}]},
        {"steps": [{"fail": {"message": "enough"}}]},
    ]})
}

async fn post_accepting(host: &Host, accept: &str, body: &Value) -> Answer {
    let request = Request::post(format!("{}{STREAMED_OUT}", host.services.base()))
        .header("content-type", "application/json")
        .header("accept", accept)
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
    host.services.try_send(request).await.expect("an answer")
}

#[tokio::test]
async fn http_api() {
    let host = Host::with_guest(GUEST).await;
    let answer = host.services.post("/tck/model/action/unary", &replies(&["one"])).await.ok();
    assert_eq!(answer, json!({"message": "one"}));
    let failure = json!({"groups": [{"steps": [{"fail": {"message": "no"}}]}]});
    let refused = host.services.post("/tck/model/action/unary", &failure).await;
    assert_eq!(refused.refused(400, "failed_precondition"), "no");
}

#[tokio::test]
async fn a_streamed_answer_is_lines_of_json() {
    let host = Host::with_guest(GUEST).await;
    for path in [STREAMED_OUT, &format!("/{MODEL}/ProcessStreamedOut")] {
        let answer = host.services.post(path, &replies(&["one", "two"])).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        assert_eq!(answer.text(), "{\"message\":\"one\"}\n{\"message\":\"two\"}\n");
    }
}

#[tokio::test]
async fn a_failure_after_the_first_line_is_the_last_line() {
    let host = Host::with_guest(GUEST).await;
    let answer = host.services.post(STREAMED_OUT, &failing_after("one")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let text = answer.text();
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0], json!({"message": "one"}));
    let error = json!({"@error": {"code": "failed_precondition", "message": "enough"}});
    assert_eq!(lines[1..], [error]);
}

#[tokio::test]
async fn a_failure_before_the_first_line_is_a_status_of_http() {
    let host = Host::with_guest(GUEST).await;
    let failure = json!({"groups": [{"steps": [{"fail": {"message": "no"}}]}]});
    for accept in ["application/x-ndjson", "text/event-stream"] {
        let refused = post_accepting(&host, accept, &failure).await;
        assert_eq!(refused.refused(400, "failed_precondition"), "no");
    }
}

#[tokio::test]
async fn a_client_that_accepts_events_gets_server_sent_events() {
    let host = Host::with_guest(GUEST).await;
    let answer = post_accepting(&host, "text/event-stream", &replies(&["one", "two"])).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let events = "data: {\"message\":\"one\"}\n\ndata: {\"message\":\"two\"}\n\n\
                  event: end\ndata: {}\n\n";
    assert_eq!(answer.text(), events);
    let failed = post_accepting(&host, "text/event-stream", &failing_after("one")).await;
    let end = "event: error\ndata: {\"code\":\"failed_precondition\",\"message\":\"enough\"}\n\n";
    assert!(failed.text().ends_with(end), "{}", failed.text());
}

#[tokio::test]
async fn a_streamed_request_has_no_form_in_plain_json() {
    let host = Host::with_guest(GUEST).await;
    for method in ["ProcessStreamedIn", "ProcessStreamed"] {
        let refused = host.services.post(&format!("/{MODEL}/{method}"), &json!({})).await;
        assert!(refused.refused(415, "unimplemented").contains("application/connect+json"));
    }
}

#[tokio::test]
async fn a_unary_method_has_no_streaming_form() {
    let host = Host::with_guest(GUEST).await;
    let path = format!("/{MODEL}/ProcessUnary");
    let answer = host.services.send(Method::POST, &path, "application/connect+json", "").await;
    assert!(answer.refused(415, "invalid_argument").contains("application/json"));
}

#[tokio::test]
async fn grpc_web_streams_answers_and_refuses_streamed_requests() {
    let host = Host::with_guest(GUEST).await;
    let ask = async |method: &str, body: &'static [u8]| {
        let path = format!("/{MODEL}/{method}");
        host.services.send(Method::POST, &path, "application/grpc-web+proto", body).await
    };
    // A request with one group whose one step replies `one`.
    let request: &[u8] = b"\0\0\0\0\x0b\x0a\x09\x0a\x07\x0a\x05\x0a\x03one";
    let answer = ask("ProcessStreamedOut", request).await;
    assert_eq!(answer.header("content-type"), Some("application/grpc-web+proto"));
    let message = b"\0\0\0\0\x05\x0a\x03one";
    let end = b"\x80\0\0\0\x0fgrpc-status:0\r\n";
    assert_eq!(answer.body, [&message[..], end].concat());
    let refused = ask("ProcessStreamed", request).await;
    assert!(refused.text().contains("grpc-status:12"), "{}", refused.text());
}

#[tokio::test]
async fn connect_node_streams_over_connect_in_protobuf() {
    connect_node("connect").await;
}

#[tokio::test]
async fn connect_node_streams_over_connect_in_json() {
    connect_node("connect-json").await;
}

#[tokio::test]
async fn connect_node_streams_over_grpc_web() {
    connect_node("grpc-web").await;
}

#[tokio::test]
async fn connect_node_streams_over_grpc() {
    connect_node("grpc").await;
}

async fn connect_node(protocol: &str) {
    let host = Host::with_guest(GUEST).await;
    // Node looks for packages beside the script, so the script goes where they are.
    let script = files::clients().join(format!("streams-{protocol}.mjs"));
    std::fs::copy(files::source("tests/clients/streams.mjs"), &script)
        .expect("the script is copied");
    let descriptors = host.dir().join("tck.binpb");
    std::fs::write(&descriptors, stead_tests::TCK_DESCRIPTORS).expect("descriptors are written");
    let mut node = Command::new("node");
    let ended = run(node.arg(script).arg(host.services.base()).arg(descriptors).arg(protocol));
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends");
    assert_eq!(ended.ok().stdout.trim(), "ok");
}

#[tokio::test]
async fn grpcio_streams_with_reflection_alone() {
    let host = Host::with_guest(GUEST).await;
    let mut python = Command::new(files::clients().join("venv/bin/python"));
    let ended = run(python
        .arg(files::source("tests/clients/grpcio_streams.py"))
        .arg(host.services.address()));
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends");
    assert_eq!(ended.ok().stdout.trim(), "ok");
}
