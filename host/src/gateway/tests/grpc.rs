use std::io::Write;

use base64::Engine as _;
use bytes::Bytes;
use http::Request;
use prost::Message as _;
use serde_json::json;

use crate::gateway::compression;
use crate::gateway::frame;
use crate::gateway::testing::{Port, all, framed, open, unframe};
use crate::words::limits;

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

async fn code(port: &Port, path: &str, body: impl Into<Bytes>) -> (String, String) {
    let answer = port.send_h2(port.grpc_request(path), body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert!(answer.body.is_empty());
    (answer.header("grpc-status").into(), answer.header("grpc-message").into())
}

#[tokio::test]
async fn a_call_answers_with_a_message_and_trailers() {
    let port = open().await;
    let payload = all(json!({ "id": "ada" }));
    let answer = port.send_h2(port.grpc_request("/edge.Edge/Plain"), framed(&payload)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(answer.header("grpc-status"), "");
    assert_eq!(answer.body, framed(&payload));
    assert_eq!(answer.trailer("grpc-status"), "0");
    assert!(!answer.header("x-request-id").is_empty());

    let empty = port.send_h2(port.grpc_request("/edge.Edge/Plain"), framed(b"")).await;
    assert_eq!(empty.body, framed(b""));
    assert_eq!(empty.trailer("grpc-status"), "0");
}

#[tokio::test]
async fn an_error_is_trailers_only_with_details() {
    let port = open().await;
    let answer = port.send_h2(port.grpc_request("/edge.Edge/Fail"), framed(b"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("grpc-status"), "9");
    assert_eq!(answer.header("grpc-message"), "the cart is %E2%80%9Cclosed%E2%80%9D");
    let details = base64::prelude::BASE64_STANDARD_NO_PAD
        .decode(answer.header("grpc-status-details-bin"))
        .unwrap();
    let details = RpcStatus::decode(details.as_slice()).unwrap();
    assert_eq!(details.code, 9);
    assert_eq!(details.details[0].type_url, "type.googleapis.com/edge.Nested");
}

#[tokio::test]
async fn anything_but_one_whole_message_is_refused() {
    let port = open().await;
    let two = [framed(b""), framed(b"")].concat();
    for body in [&b""[..], b"\0\0\0", b"\0\0\0\0\x05ab", b"\0\0\0\0\0x", &two, b"\x07\0\0\0\0"] {
        let (code, message) = code(&port, "/edge.Edge/Plain", body.to_vec()).await;
        assert_eq!(code, "3", "{body:?}");
        assert!(!message.is_empty());
    }
}

#[tokio::test]
async fn an_announced_giant_is_refused_before_it_is_read() {
    let port = open().await;
    let (code, _) = code(&port, "/edge.Edge/Plain", &b"\0\x7f\xff\xff\xff"[..]).await;
    assert_eq!(code, "8");
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let port = open().await;
    let answer = port
        .send_h2(port.grpc_request("/edge.Edge/Plain"), framed(&vec![0; limits::BODY_BYTES_MAX]))
        .await;
    assert_eq!(answer.trailer("grpc-status"), "0");
    let (code, _) =
        code(&port, "/edge.Edge/Plain", framed(&vec![0; limits::BODY_BYTES_MAX + 1])).await;
    assert_eq!(code, "8");
}

#[tokio::test]
async fn gzip_works_both_ways_and_bombs_do_not() {
    let port = open().await;
    let large = all(json!({ "id": "ada ".repeat(1_000) }));
    let request = || port.grpc_request("/edge.Edge/Plain").header("grpc-encoding", "gzip");
    let accepting = request().header("grpc-accept-encoding", "identity,gzip");
    let (body, compressed) = frame::frame(&large, true, 0);
    assert!(compressed);
    let answer = port.send_h2(accepting, body.clone().freeze()).await;
    assert_eq!(answer.header("grpc-encoding"), "gzip");
    assert_eq!(answer.trailer("grpc-status"), "0");
    assert_eq!(unframe(answer.body, Some("gzip")).unwrap(), large);
    let answer = port.send_h2(request(), body.freeze()).await;
    assert_eq!(answer.header("grpc-encoding"), "");
    assert_eq!(answer.body, framed(&large));

    let bomb = compression::gzip(&vec![0; limits::BODY_BYTES_MAX * 8]).unwrap();
    let mut body = vec![1];
    body.write_all(&(bomb.len() as u32).to_be_bytes()).unwrap();
    body.extend(bomb);
    let answer = port.send_h2(request(), body).await;
    assert_eq!(answer.header("grpc-status"), "8");
    let answer = port.send_h2(request(), &b"\x01\0\0\0\x03abc"[..]).await;
    assert_eq!(answer.header("grpc-status"), "3");

    let unknown = port.grpc_request("/edge.Edge/Plain").header("grpc-encoding", "zstd");
    let answer = port.send_h2(unknown, framed(b"")).await;
    assert_eq!(answer.header("grpc-status"), "12");
    assert_eq!(answer.header("grpc-accept-encoding"), "identity,gzip");
}

#[tokio::test]
async fn unknown_services_and_methods_are_unimplemented() {
    let port = open().await;
    let (status, message) = code(&port, "/edge.Edge/Ech", framed(b"")).await;
    assert_eq!(status, "12");
    assert!(message.contains("Echo"), "{message}");
    assert_eq!(code(&port, "/edge.Nope/Echo", framed(b"")).await.0, "12");
}

#[tokio::test]
async fn the_time_out_of_the_caller_is_kept() {
    let port = open().await;
    let request = port.grpc_request("/edge.Edge/Never").header("grpc-timeout", "20m");
    assert_eq!(port.send_h2(request, framed(b"")).await.header("grpc-status"), "4");
    let request = port.grpc_request("/edge.Edge/Never").header("grpc-timeout", "20x");
    assert_eq!(port.send_h2(request, framed(b"")).await.header("grpc-status"), "3");
}

#[tokio::test]
async fn metadata_reaches_the_backend_without_the_transports_headers() {
    let port = open().await;
    let request = port
        .grpc_request("/edge.Edge/Metadata")
        .header("user-agent", "grpc-test")
        .header("x-tenant", "acme")
        .header("trace-bin", "AAEC");
    let answer = port.send_h2(request, framed(b"")).await;
    let id = answer.header("x-request-id").to_owned();
    let expected = all(json!({ "tags": ["trace-bin=AAEC", "x-tenant=acme"], "text": id }));
    assert_eq!(answer.body, framed(&expected));
}

#[tokio::test]
async fn over_http_1_it_says_what_to_use_instead() {
    let port = open().await;
    let request = Request::post("/edge.Edge/Plain").header("content-type", "application/grpc");
    let (status, message) = port.send(request, framed(b"")).await.error();
    assert_eq!(status, 505);
    assert!(message.contains("gRPC-Web"), "{message}");
}
