//! Calls that stream: one of the four shapes of a method, in any of the protocols that can carry it.
//!
//! | protocol     | request streams | answer streams | how the answer ends                          |
//! |--------------|-----------------|----------------|----------------------------------------------|
//! | gRPC         | yes             | yes            | trailers                                     |
//! | gRPC-Web     | no              | yes            | a frame of trailers                          |
//! | Connect      | yes (HTTP/2)    | yes            | an envelope with JSON                        |
//! | HTTP/JSON    | no              | yes            | the body's end; an error is a last line      |
//! | server-sent  | no              | yes            | `event: end`, or `event: error`              |
//!
//! A request's messages are read when the guest asks for them, and an answer's are taken from it when the
//! client has room: HTTP/2's flow control reaches the guest.

mod answer;
mod input;
mod wire;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, Version};
use hyper::body::Incoming;

use crate::action::{Messages, stream as channel};
use crate::gateway::backend::{Backend, Streamed};
use crate::gateway::body::Body;
use crate::gateway::connect::Codec;
use crate::gateway::exchange::Exchange;
use crate::gateway::grpc::{GRPC_ENCODING, GZIP};
use crate::gateway::route::Endpoint;
use crate::gateway::stream::answer::{Opening, StreamedAnswer};
use crate::gateway::stream::input::Framed;
use crate::gateway::stream::wire::Wire;
use crate::gateway::{compression, error, frame};
use crate::words::Status;
use crate::words::clock::Instant;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// gRPC over HTTP/2, of a method that streams.
pub async fn grpc<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    body: Incoming,
) -> Result<Response<Body>, Status> {
    let deadline = exchange.stream_deadline()?;
    let encoding = exchange.head.grpc_encoding;
    let gzip = compression::accepts_gzip(exchange.head.grpc_accept_encoding);
    let call = request(exchange, endpoint, Codec::Proto, encoding, body).await?;
    if !endpoint.server_streams {
        let reply = one(exchange, endpoint, call, deadline).await?;
        let (framed, compressed) = frame::frame(&reply, gzip, 0);
        let mut response = Response::new(Body::grpc_ok(framed.freeze()));
        describe(&mut response, "application/grpc", compressed);
        return Ok(response);
    }
    let answer = start(exchange, endpoint, Wire::Grpc { gzip }, call, deadline);
    let mut response = Response::new(Body::new(answer));
    describe(&mut response, "application/grpc", gzip);
    Ok(response)
}

/// gRPC-Web, with the request's only message.
pub fn grpc_web<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    payload: Bytes,
    text: bool,
) -> Result<Response<Body>, Status> {
    let deadline = exchange.stream_deadline()?;
    let gzip = compression::accepts_gzip(exchange.head.grpc_accept_encoding);
    let call = Called { payload, input: None };
    let answer = start(exchange, endpoint, Wire::GrpcWeb { gzip, text }, call, deadline);
    let mut response = Response::new(Body::new(answer));
    let content_type = match text {
        true => "application/grpc-web-text+proto",
        false => "application/grpc-web+proto",
    };
    describe(&mut response, content_type, gzip);
    Ok(response)
}

/// Connect's streaming form. Errors travel in the last envelope: the HTTP status is 200.
pub async fn connect<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    codec: Codec,
    body: Incoming,
) -> Response<Body> {
    let content_type = match codec {
        Codec::Proto => "application/connect+proto",
        Codec::Json => "application/connect+json",
    };
    let endpoint = exchange.endpoint();
    let wire = Wire::Connect { codec };
    let answer = match &endpoint {
        Ok(endpoint) if !endpoint.streams() => {
            let sentence = format!(
                "{} does not stream; send application/proto or application/json",
                endpoint.path
            );
            return error::json(&Status::invalid_argument(sentence).with_http(415));
        }
        Ok(endpoint) => connected(exchange, endpoint, codec, body).await,
        Err(status) => Err(status.clone()),
    };
    let body = answer.unwrap_or_else(|status| Body::full(wire.end(Some(&status))));
    let mut response = Response::new(body);
    describe(&mut response, content_type, false);
    response
}

async fn connected<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    codec: Codec,
    body: Incoming,
) -> Result<Body, Status> {
    let deadline = exchange.stream_deadline()?;
    if exchange.parts.method != http::Method::POST {
        return Err(Status::invalid_argument("a streaming Connect call is a POST"));
    }
    if endpoint.client_streams && exchange.parts.version < Version::HTTP_2 {
        return Err(Status::unimplemented("a streamed request needs HTTP/2"));
    }
    let wire = Wire::Connect { codec };
    let encoding = exchange.head.connect_content_encoding;
    let call = request(exchange, endpoint, codec, encoding, body).await?;
    if !endpoint.server_streams {
        let reply = one(exchange, endpoint, call, deadline).await?;
        let mut whole = wire.message(&endpoint.output, reply)?.to_vec();
        whole.extend_from_slice(&wire.end(None));
        return Ok(Body::full(whole));
    }
    Ok(Body::new(start(exchange, endpoint, wire, call, deadline)))
}

/// HTTP/JSON: lines of JSON, or server-sent events for those who accept them. An error before the first
/// message is an ordinary answer with its HTTP status.
pub async fn http<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    payload: Bytes,
) -> Result<Response<Body>, Status> {
    check_http(endpoint)?;
    let deadline = exchange.stream_deadline()?;
    let accept = exchange.parts.headers.get_all(ACCEPT).iter();
    let events = accept.filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|item| {
            let name = item.split(';').next().unwrap_or_default().trim();
            name.eq_ignore_ascii_case("text/event-stream")
        })
    });
    let wire = if events { Wire::Events } else { Wire::Lines };
    let call = Called { payload, input: None };
    let answer = start(exchange, endpoint, wire, call, deadline);
    let answer = match answer.opened().await {
        Opening::Refused(status) => return Err(status),
        Opening::Open(answer) => answer,
    };
    let mut response = Response::new(Body::new(answer));
    let content_type = if events { "text/event-stream" } else { "application/x-ndjson" };
    describe(&mut response, content_type, false);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect answers would keep the messages back.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Whether HTTP/JSON can carry the request.
pub fn check_http(endpoint: &Endpoint) -> Result<(), Status> {
    if endpoint.client_streams {
        return Err(Status::unimplemented(format!(
            "the request of {} streams; use gRPC, or Connect with application/connect+json",
            endpoint.path
        ))
        .with_http(415));
    }
    Ok(())
}

/// What a client sends, as far as it has been read.
struct Called {
    payload: Bytes,
    input: Option<Box<dyn Messages>>,
}

/// The only message of a request, or its stream, unread.
async fn request<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    codec: Codec,
    encoding: Option<&str>,
    body: Incoming,
) -> Result<Called, Status> {
    let json = (codec == Codec::Json).then(|| endpoint.input.clone());
    if endpoint.client_streams {
        let input = Framed::new(body, encoding, json, exchange.bodies.clone());
        return Ok(Called { payload: Bytes::new(), input: Some(Box::new(input)) });
    }
    let body = exchange.read(body, true).await?;
    let message = frame::unframe(body, encoding, &mut exchange.held)?;
    Ok(Called { payload: input::to_proto(json.as_ref(), message)?, input: None })
}

/// The one answer of a call whose request streams.
async fn one<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    call: Called,
    deadline: Instant,
) -> Result<Bytes, Status> {
    let Called { payload, input } = call;
    let context = exchange.context(deadline);
    let call = Streamed { payload, input, output: None };
    let result = exchange.backend.stream(endpoint, call, context).await;
    if let Err(status) = &result {
        answer::note(status, &exchange.request_id, &endpoint.path);
    }
    result
}

fn start<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    endpoint: &Endpoint,
    wire: Wire,
    call: Called,
    deadline: Instant,
) -> StreamedAnswer {
    let (output, answers) = channel::channel();
    let Called { payload, input } = call;
    let context = exchange.context(deadline);
    let call = Streamed { payload, input, output: Some(output) };
    let running = tokio::spawn(exchange.backend.stream(endpoint, call, context));
    StreamedAnswer::new(wire, answers, running, endpoint, exchange)
}

fn describe(response: &mut Response<Body>, content_type: &'static str, gzip: bool) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if gzip {
        headers.insert(GRPC_ENCODING, GZIP);
    }
}
