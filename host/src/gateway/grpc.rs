//! gRPC over HTTP/2, of unary methods.
//!
//! Our own framing rather than a codec for streams: a unary call is one piece of bytes in and one
//! out, which costs one copy and no task.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Response, Version};
use hyper::body::Incoming;

use crate::gateway::backend::Backend;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::{compression, error, frame, stream};
use crate::words::Status;

pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub const GZIP: HeaderValue = HeaderValue::from_static("gzip");

pub async fn serve<B: Backend>(exchange: &mut Exchange<'_, B>, body: Incoming) -> Response<Body> {
    if exchange.parts.version < Version::HTTP_2 {
        let sentence = "gRPC needs HTTP/2; over HTTP/1.1 use gRPC-Web, Connect or JSON";
        return error::json(&Status::unimplemented(sentence).with_http(505));
    }
    match reply(exchange, body).await {
        Ok(Reply::Streamed(response)) => response,
        Ok(Reply::One(reply)) => {
            let gzip = compression::accepts_gzip(exchange.head.grpc_accept_encoding);
            let (framed, compressed) = frame::frame(&reply, gzip, 0);
            let mut response = Response::new(Body::grpc_ok(framed.freeze()));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            if compressed {
                headers.insert(GRPC_ENCODING, GZIP);
            }
            response
        }
        Err(status) => error::grpc(&status),
    }
}

enum Reply {
    One(Bytes),
    Streamed(Response<Body>),
}

async fn reply<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    body: Incoming,
) -> Result<Reply, Status> {
    check(exchange)?;
    let endpoint = exchange.endpoint()?;
    if endpoint.streams() {
        return stream::grpc(exchange, &endpoint, body).await.map(Reply::Streamed);
    }
    let deadline = exchange.deadline()?;
    let body = exchange.read(body, true).await?;
    let payload = frame::unframe(body, exchange.head.grpc_encoding, &mut exchange.held)?;
    exchange.call(&endpoint, payload, deadline).await.map(Reply::One)
}

/// What can be refused before the body is read.
pub fn check<B>(exchange: &Exchange<'_, B>) -> Result<(), Status> {
    if exchange.parts.method != Method::POST {
        return Err(Status::invalid_argument("a gRPC call is a POST").with_http(405));
    }
    match exchange.head.grpc_encoding {
        None | Some("identity" | "gzip") => Ok(()),
        Some(name) => Err(frame::unknown_encoding(name)),
    }
}
