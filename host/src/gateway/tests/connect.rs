use http::Request;
use serde_json::json;

use crate::gateway::compression;
use crate::gateway::testing::{all, gunzip, open};
use crate::words::limits;

const PROTO: (&str, &str) = ("content-type", "application/proto");

#[tokio::test]
async fn both_codecs_work_over_both_versions() {
    let port = open().await;
    let payload = all(json!({ "id": "ada" }));
    for h2 in [false, true] {
        let uri = format!("http://{}/edge.Edge/Plain", port.address);
        let uri = if h2 { uri.as_str() } else { "/edge.Edge/Plain" };
        let request = || Request::post(uri).header("connect-protocol-version", "1");
        let proto = request().header(PROTO.0, PROTO.1);
        let json = request().header(PROTO.0, "application/json");
        let (proto, json) = match h2 {
            true => (port.send_h2(proto, payload.clone()).await, port.send_h2(json, "{}").await),
            false => (port.send(proto, payload.clone()).await, port.send(json, "{}").await),
        };
        assert_eq!(proto.status, 200);
        assert_eq!(proto.header("content-type"), "application/proto");
        assert_eq!(proto.body, payload);
        assert_eq!(json.json()["large"], "0");
    }
}

#[tokio::test]
async fn errors_are_json_whatever_the_codec() {
    let port = open().await;
    let answer = port.send(Request::post("/edge.Edge/Fail").header(PROTO.0, PROTO.1), "").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["code"], "failed_precondition");
    assert_eq!(answer.json()["details"][0]["type"], "edge.Nested");

    let versioned = Request::post("/edge.Edge/Plain").header("connect-protocol-version", "2");
    let answer = port.send(versioned.header(PROTO.0, PROTO.1), "").await;
    assert_eq!(answer.error().0, 400);

    let answer = port.send(Request::post("/edge.Edge/Nope").header(PROTO.0, PROTO.1), "").await;
    assert_eq!(answer.status, 404);

    let streaming = Request::post("/edge.Edge/Plain").header(PROTO.0, "application/connect+proto");
    assert_eq!(port.send(streaming, "").await.status, 415);
}

#[tokio::test]
async fn gzip_works_both_ways_and_bombs_do_not() {
    let port = open().await;
    let large = json!({ "id": "ada ".repeat(1_000) }).to_string();
    let request = || {
        Request::post("/edge.Edge/Plain")
            .header("content-type", "application/json")
            .header("content-encoding", "gzip")
    };
    let body = compression::gzip(large.as_bytes()).unwrap();
    let answer = port.send(request().header("accept-encoding", "gzip"), body.clone()).await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert!(answer.body.len() < 1_000);
    let plain = gunzip(&answer.body).unwrap();
    let plain: serde_json::Value = serde_json::from_slice(&plain).unwrap();
    assert_eq!(plain["id"], "ada ".repeat(1_000));
    assert_eq!(port.send(request(), body).await.header("content-encoding"), "");

    let bomb = compression::gzip(&vec![b' '; limits::BODY_BYTES_MAX * 8]).unwrap();
    assert_eq!(port.send(request(), bomb).await.error().0, 413);
    assert_eq!(port.send(request(), "not gzip").await.error().0, 400);

    let brotli = Request::post("/edge.Edge/Plain")
        .header("content-type", "application/json")
        .header("content-encoding", "br");
    let answer = port.send(brotli, "{}").await;
    assert_eq!(answer.json()["code"], "unimplemented");
    assert_eq!(answer.header("accept-encoding"), "gzip,identity");
}

#[tokio::test]
async fn methods_without_side_effects_may_be_called_by_get() {
    let port = open().await;
    let answer = port.get("/edge.Edge/Look?encoding=json&message=%7B%22id%22:%22ada%22%7D").await;
    assert_eq!(answer.json()["id"], "ada");
    let answer =
        port.get("/edge.Edge/Look?connect=v1&encoding=proto&base64=1&message=CgNhZGE").await;
    assert_eq!(answer.header("content-type"), "application/proto");
    assert_eq!(answer.body, all(json!({ "id": "ada" })));
    for wrong in
        ["", "?encoding=json", "?encoding=xml&message=1", "?encoding=json&message=%7B%7D&x=1"]
    {
        assert_eq!(port.get(&format!("/edge.Edge/Look{wrong}")).await.error().0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn the_time_out_of_the_caller_is_kept() {
    let port = open().await;
    let request = || Request::post("/edge.Edge/Never").header(PROTO.0, PROTO.1);
    let answer = port.send(request().header("connect-timeout-ms", "20"), "").await;
    assert_eq!(answer.error().0, 504);
    assert_eq!(answer.json()["code"], "deadline_exceeded");
    let answer = port.send(request().header("connect-timeout-ms", "soon"), "").await;
    assert_eq!(answer.error().0, 400);
}

#[tokio::test]
async fn metadata_key_and_request_id_reach_the_backend() {
    let port = open().await;
    let request = Request::post("/edge.Edge/Metadata")
        .header("content-type", "application/json")
        .header("authorization", "Bearer secret")
        .header("x-tenant", "acme")
        .header("idempotency-key", "k-1")
        .header("x-request-id", "r-1");
    let answer = port.send(request, "{}").await;
    assert_eq!(answer.json()["tags"], json!(["x-tenant=acme"]));
    assert_eq!(answer.json()["id"], "k-1");
    assert_eq!(answer.json()["text"], "r-1");
    assert_eq!(answer.header("x-request-id"), "r-1");
}

#[tokio::test]
async fn bad_headers_are_refused_by_name() {
    let port = open().await;
    let request =
        || Request::post("/edge.Edge/Metadata").header("content-type", "application/json");
    let twice = request().header("idempotency-key", "a").header("idempotency-key", "b");
    assert!(port.send(twice, "{}").await.error().1.contains("more than once"));
    let answer = port.send(request().header("idempotency-key", "a\tb"), "{}").await;
    assert!(answer.error().1.contains("printable"));
    let answer = port.send(request().header("idempotency-key", "k".repeat(257)), "{}").await;
    assert!(answer.error().1.contains("idempotency-key"));
    let answer = port.send(request().header("x-name", &b"caf\xc3\xa9"[..]), "{}").await;
    assert_eq!(answer.error().0, 400);
    assert!(answer.error().1.contains("x-name"));
    let many = (0..80).fold(request(), |request, n| request.header(format!("x-{n}"), "1"));
    assert_eq!(port.send(many, "{}").await.error().0, 431);
}
