//! gRPC-Web: gRPC for browsers, with the trailers in the body, as bytes or as base64 text.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use hyper::body::Incoming;

use crate::gateway::backend::Backend;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::grpc::{self, GRPC_ENCODING, GZIP};
use crate::gateway::{compression, error, frame, stream};
use crate::words::Status;

const TRAILERS_FLAG: u8 = 0x80;
/// Enough for the trailers of a success.
const TRAILERS_ROOM: usize = 32;

pub async fn serve<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    body: Incoming,
    text: bool,
) -> Response<Body> {
    let mut compressed = false;
    let mut out = BytesMut::new();
    let failure = match reply(exchange, body, text).await {
        Ok(Reply::Streamed(response)) => return response,
        Ok(Reply::One(reply)) => {
            let gzip = compression::accepts_gzip(exchange.head.grpc_accept_encoding);
            (out, compressed) = frame::frame(&reply, gzip, TRAILERS_ROOM);
            None
        }
        Err(status) => Some(status),
    };
    let mut trailers = BytesMut::new();
    error::grpc_web_trailers(failure.as_ref(), &mut trailers);
    out.put_u8(TRAILERS_FLAG);
    out.put_u32(trailers.len() as u32);
    out.extend_from_slice(&trailers);

    let (body, content_type) = match text {
        true => (BASE64_STANDARD.encode(&out).into(), "application/grpc-web-text+proto"),
        false => (out.freeze(), "application/grpc-web+proto"),
    };
    let mut response = Response::new(Body::full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if compressed {
        headers.insert(GRPC_ENCODING, GZIP);
    }
    response
}

enum Reply {
    One(Bytes),
    Streamed(Response<Body>),
}

async fn reply<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    body: Incoming,
    text: bool,
) -> Result<Reply, Status> {
    grpc::check(exchange)?;
    let endpoint = exchange.endpoint()?;
    if endpoint.client_streams {
        return Err(Status::unimplemented(format!(
            "the request of {} streams, which gRPC-Web cannot; use gRPC, or Connect over HTTP/2",
            endpoint.path
        )));
    }
    let mut body = exchange.read(body, !text).await?;
    if text {
        body = from_text(&body)?;
    }
    let payload = frame::unframe(body, exchange.head.grpc_encoding, &mut exchange.held)?;
    if endpoint.server_streams {
        return stream::grpc_web(exchange, &endpoint, payload, text).map(Reply::Streamed);
    }
    let deadline = exchange.deadline()?;
    exchange.call(&endpoint, payload, deadline).await.map(Reply::One)
}

/// Base64 that may have been padded in the middle, where a client joined pieces.
fn from_text(text: &[u8]) -> Result<Bytes, Status> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.split_inclusive(|byte| *byte == b'=') {
        // The second `=` of `==` is a group of its own.
        let group = group.strip_suffix(b"=").unwrap_or(group);
        base64::prelude::BASE64_STANDARD_NO_PAD
            .decode_vec(group, &mut out)
            .map_err(|_| Status::invalid_argument("the request is not valid base64"))?;
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_may_be_padded_in_the_middle() {
        assert_eq!(from_text(b"AAAAAAI=YWI=").unwrap(), &b"\0\0\0\0\x02ab"[..]);
        assert_eq!(from_text(b"YQ==Yg==").unwrap(), "ab");
        assert!(from_text(b"a\xffb=").is_err());
        assert!(from_text(b"A===B").is_err());
    }
}
