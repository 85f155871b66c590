use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Request;
use serde_json::json;

use crate::gateway::testing::{Port, all, framed, open};

async fn call(port: &Port, path: &str, text: bool, body: Bytes) -> (Bytes, String) {
    let kind = if text { "application/grpc-web-text" } else { "application/grpc-web+proto" };
    let request = Request::post(path).header("content-type", kind).header("x-grpc-web", "1");
    let body = if text { BASE64_STANDARD.encode(body).into() } else { body };
    let answer = port.send(request, body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with(kind));
    let body = match text {
        true => BASE64_STANDARD.decode(answer.body).unwrap().into(),
        false => answer.body,
    };
    let at = body.iter().position(|byte| *byte == 0x80).unwrap();
    let length = u32::from_be_bytes(body[at + 1..at + 5].try_into().unwrap()) as usize;
    assert_eq!(body.len(), at + 5 + length);
    (body.slice(..at), String::from_utf8(body[at + 5..].to_vec()).unwrap())
}

#[tokio::test]
async fn the_trailers_are_the_last_frame() {
    let port = open().await;
    let payload = framed(&all(json!({ "id": "ada" })));
    for text in [false, true] {
        let (body, trailers) = call(&port, "/edge.Edge/Plain", text, payload.clone()).await;
        assert_eq!(body, payload);
        assert_eq!(trailers, "grpc-status:0\r\n");
    }
}

#[tokio::test]
async fn errors_are_trailers_too() {
    let port = open().await;
    for text in [false, true] {
        let (body, trailers) = call(&port, "/edge.Edge/Fail", text, framed(b"")).await;
        assert!(body.is_empty());
        assert!(trailers.contains("grpc-status:9\r\n"), "{trailers}");
        assert!(trailers.contains("grpc-message:the cart is %E2%80%9Cclosed"), "{trailers}");
        assert!(trailers.contains("grpc-status-details-bin:"), "{trailers}");
        let truncated = Bytes::from_static(b"\0\0\0\0\x09a");
        let (_, trailers) = call(&port, "/edge.Edge/Plain", text, truncated).await;
        assert!(trailers.contains("grpc-status:3\r\n"), "{trailers}");
        let (_, trailers) = call(&port, "/edge.Edge/Nope", text, framed(b"")).await;
        assert!(trailers.contains("grpc-status:12\r\n"), "{trailers}");
    }
}

#[tokio::test]
async fn text_that_is_not_base64_is_refused() {
    let port = open().await;
    let request =
        Request::post("/edge.Edge/Plain").header("content-type", "application/grpc-web-text");
    let answer = port.send(request, "!!!!").await;
    let body = BASE64_STANDARD.decode(answer.body).unwrap();
    assert!(String::from_utf8_lossy(&body).contains("grpc-status:3"));
}
