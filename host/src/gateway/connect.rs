//! The Connect protocol's unary form: plain POST with protobuf or JSON, and GET for methods without
//! side effects. A JSON POST to a method's full name is the same thing without Connect's headers.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderName, Response};
use hyper::body::Incoming;
use prost::Message as _;

use crate::gateway::backend::Backend;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::route::Endpoint;
use crate::gateway::{compression, error, query, stream, transcode};
use crate::words::budget::Held;
use crate::words::{Status, limits};

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("accept-encoding");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Proto,
    Json,
}

pub async fn post<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    codec: Codec,
    body: Incoming,
) -> Response<Body> {
    if endpoint.streams() {
        let answer = Box::pin(lines(exchange, endpoint, codec, body)).await;
        return answer.unwrap_or_else(|status| error::json(&status));
    }
    let result = called(exchange, endpoint, codec, body).await;
    answer(result, codec, exchange.head.accept_encoding)
}

async fn called<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    codec: Codec,
    body: Incoming,
) -> Result<Bytes, Status> {
    let deadline = exchange.deadline()?;
    check_version(exchange.head.connect_version)?;
    let body = exchange.read(body, false).await?;
    let body = compression::decode(body, exchange.head.content_encoding, &mut exchange.held)?;
    let payload = payload(endpoint, codec, body)?;
    let reply = exchange.call(endpoint, payload, deadline).await?;
    encode(endpoint, codec, reply)
}

/// A plain POST of JSON to a method whose answer streams.
async fn lines<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    codec: Codec,
    body: Incoming,
) -> Result<Response<Body>, Status> {
    stream::check_http(endpoint)?;
    if codec == Codec::Proto {
        let sentence = format!("{} streams; send application/connect+proto", endpoint.path);
        return Err(Status::invalid_argument(sentence).with_http(415));
    }
    let body = exchange.read(body, false).await?;
    let body = compression::decode(body, exchange.head.content_encoding, &mut exchange.held)?;
    let payload = payload(endpoint, codec, body)?;
    stream::http(exchange, endpoint, payload).await
}

pub async fn get<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
) -> Response<Body> {
    let mut codec = Codec::Json;
    let result = async {
        let deadline = exchange.deadline()?;
        let (message, of_query) =
            from_query(exchange.parts.uri.query().unwrap_or_default(), &mut exchange.held)?;
        codec = of_query;
        if endpoint.streams() {
            let sentence = format!("{} streams; call it with a POST", endpoint.path);
            return Err(Status::unimplemented(sentence).with_http(405));
        }
        let payload = payload(endpoint, codec, message)?;
        let reply = exchange.call(endpoint, payload, deadline).await?;
        encode(endpoint, codec, reply)
    };
    let result = result.await;
    answer(result, codec, exchange.head.accept_encoding)
}

fn payload(endpoint: &Endpoint, codec: Codec, body: Bytes) -> Result<Bytes, Status> {
    match codec {
        Codec::Proto => Ok(body),
        Codec::Json => Ok(transcode::from_json(&endpoint.input, &body)?.encode_to_vec().into()),
    }
}

fn encode(endpoint: &Endpoint, codec: Codec, reply: Bytes) -> Result<Bytes, Status> {
    match codec {
        Codec::Proto => Ok(reply),
        Codec::Json => Ok(transcode::to_json(&endpoint.output, reply)?.into()),
    }
}

fn answer(
    result: Result<Bytes, Status>,
    codec: Codec,
    accept_encoding: Option<&str>,
) -> Response<Body> {
    match result {
        Ok(bytes) => {
            let content_type = match codec {
                Codec::Proto => HeaderValue::from_static("application/proto"),
                Codec::Json => error::JSON,
            };
            ok(bytes, content_type, accept_encoding)
        }
        Err(status) => {
            let mut response = error::json(&status);
            if status.code == crate::words::Code::Unimplemented {
                let known = HeaderValue::from_static("gzip,identity");
                response.headers_mut().insert(ACCEPT_ENCODING, known);
            }
            response
        }
    }
}

/// A success, compressed if the caller likes that and it is worth it.
pub fn ok(
    bytes: Bytes,
    content_type: HeaderValue,
    accept_encoding: Option<&str>,
) -> Response<Body> {
    let compressed = match bytes.len() >= limits::COMPRESS_BYTES_MIN {
        true if compression::accepts_gzip(accept_encoding) => compression::gzip(&bytes),
        _ => None,
    };
    let encoded = compressed.is_some();
    let mut response = Response::new(Body::full(compressed.map_or(bytes, Bytes::from)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    if encoded {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

fn check_version(version: Option<&str>) -> Result<(), Status> {
    match version {
        None | Some("1") => Ok(()),
        Some(other) => Err(Status::invalid_argument(format!(
            "connect-protocol-version must be 1, not {other:?}"
        ))),
    }
}

/// The message of `?encoding=json&message=..&base64=1&compression=gzip&connect=v1`.
fn from_query(query: &str, held: &mut Held<'_>) -> Result<(Bytes, Codec), Status> {
    let mut codec = None;
    let (mut message, mut base64, mut compression) = (None, false, None);
    for pair in query::pairs(query) {
        let (name, value) = pair?;
        match (&*name, &*value) {
            ("encoding", "json") => codec = Some(Codec::Json),
            ("encoding", "proto") => codec = Some(Codec::Proto),
            ("message", _) => message = Some(value),
            ("base64", "1") => base64 = true,
            ("compression", _) => compression = Some(value),
            ("connect", "v1") => {}
            (name, value) => {
                return Err(Status::invalid_argument(format!(
                    "query parameter {name}={value:?} is not one of a Connect GET"
                )));
            }
        }
    }
    let (Some(message), Some(codec)) = (message, codec) else {
        return Err(Status::invalid_argument(
            "a Connect GET needs the query parameters encoding (json or proto) and message",
        ));
    };
    let bytes = match base64 {
        true => {
            use base64::Engine as _;
            base64::prelude::BASE64_URL_SAFE_NO_PAD
                .decode(message.trim_end_matches('='))
                .map(Bytes::from)
                .map_err(|_| {
                    Status::invalid_argument("query parameter message is not URL-safe base64")
                })?
        }
        false => Bytes::from(message),
    };
    Ok((compression::decode(bytes, compression.as_deref(), held)?, codec))
}
