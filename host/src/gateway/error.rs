//! One status, rendered for every protocol.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use bytes::BytesMut;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message as _;
use serde_json::json;

use crate::gateway::body::Body;
use crate::words::{Code, Status, limits};

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
pub const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Everything outside 0x20 to 0x7E, and the percent sign.
const IN_GRPC_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// A response of trailers only.
pub fn grpc(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if status.code == Code::Unimplemented {
        headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip"));
    }
    grpc_trailers(status, headers);
    response
}

/// Adds what tells a gRPC client of a status.
pub fn grpc_trailers(status: &Status, trailers: &mut HeaderMap) {
    trailers.insert(GRPC_STATUS, HeaderValue::from(status.code.number()));
    if !status.message.is_empty() {
        trailers.insert(GRPC_MESSAGE, grpc_message(&status.message));
    }
    if let Some(details) = grpc_details(status) {
        trailers.insert(GRPC_DETAILS, details);
    }
}

/// The same as the text of gRPC-Web's last frame.
pub fn grpc_web_trailers(status: Option<&Status>, out: &mut BytesMut) {
    let Some(status) = status else {
        out.extend_from_slice(b"grpc-status:0\r\n");
        return;
    };
    let mut trailers = HeaderMap::with_capacity(3);
    grpc_trailers(status, &mut trailers);
    for (name, value) in &trailers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b":");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn grpc_message(message: &str) -> HeaderValue {
    let mut text = String::new();
    for part in utf8_percent_encode(message, IN_GRPC_MESSAGE) {
        // A header that the client would refuse for its size hides the whole error.
        if text.len() + part.len() > limits::STATUS_HEADER_BYTES_MAX {
            break;
        }
        text.push_str(part);
    }
    // Percent-encoded, it is printable ASCII.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn grpc_details(status: &Status) -> Option<HeaderValue> {
    if status.details.is_empty() {
        return None;
    }
    let details = status.details.iter().map(|detail| prost_types::Any {
        type_url: format!("type.googleapis.com/{}", detail.type_name),
        value: detail.data.to_vec(),
    });
    let status = RpcStatus {
        code: status.code.number() as i32,
        message: status.message.clone(),
        details: details.collect(),
    };
    let text = BASE64_STANDARD_NO_PAD.encode(status.encode_to_vec());
    // Dropped rather than sent if it is too large: code and message still tell what happened.
    (text.len() <= limits::STATUS_HEADER_BYTES_MAX)
        .then(|| HeaderValue::try_from(text).ok())
        .flatten()
}

/// Connect and HTTP/JSON: `{"code": "not_found", "message": "..", "details": [..]}`, a detail being
/// `{"type": "pkg.Message", "value": "<base64>"}`.
pub fn json(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::full(json_text(status)));
    *response.status_mut() =
        StatusCode::from_u16(status.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn json_text(status: &Status) -> Vec<u8> {
    json_value(status).to_string().into_bytes()
}

pub fn json_value(status: &Status) -> serde_json::Value {
    let mut body = json!({ "code": status.code.name(), "message": status.message });
    if !status.details.is_empty() {
        body["details"] = status
            .details
            .iter()
            .map(|detail| {
                json!({
                    "type": &*detail.type_name,
                    "value": BASE64_STANDARD.encode(&detail.data).trim_end_matches('='),
                })
            })
            .collect();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Message;

    fn with_detail() -> Status {
        let mut status = Status::not_found("no cart “ada”, 100 %\n");
        status.details.push(Message::new("shop.Reason", vec![8, 1]));
        status
    }

    #[test]
    fn grpc_escapes_the_message_and_carries_details() {
        let response = grpc(&with_detail());
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[GRPC_STATUS], "5");
        assert_eq!(response.headers()[GRPC_MESSAGE], "no cart %E2%80%9Cada%E2%80%9D, 100 %25%0A");
        let details = response.headers()[GRPC_DETAILS].as_bytes();
        let details = BASE64_STANDARD_NO_PAD.decode(details).unwrap();
        let details = RpcStatus::decode(details.as_slice()).unwrap();
        assert_eq!(details.code, 5);
        assert_eq!(details.details[0].type_url, "type.googleapis.com/shop.Reason");
        assert_eq!(details.details[0].value, [8, 1]);
    }

    #[test]
    fn json_has_code_message_and_details() {
        let response = json(&with_detail());
        assert_eq!(response.status(), 404);
        let text: serde_json::Value = serde_json::from_slice(&json_text(&with_detail())).unwrap();
        assert_eq!(text["code"], "not_found");
        assert_eq!(text["message"], "no cart “ada”, 100 %\n");
        assert_eq!(text["details"][0], json!({ "type": "shop.Reason", "value": "CAE" }));
    }

    #[test]
    fn a_huge_message_and_huge_details_still_leave_a_header_that_clients_accept() {
        let mut status = Status::internal("ü".repeat(100_000));
        status.details.push(Message::new("shop.Reason", vec![0; 100_000]));
        let response = grpc(&status);
        assert!(response.headers()[GRPC_MESSAGE].len() <= limits::STATUS_HEADER_BYTES_MAX);
        assert!(!response.headers().contains_key(GRPC_DETAILS));
    }
}
