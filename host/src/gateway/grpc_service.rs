//! The host's own gRPC services that stream, by generated servers.
//!
//! gRPC, gRPC-Web and Connect frame the messages of a stream alike; they differ in how a stream ends,
//! and that is what is translated here. Compressed requests are refused.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use percent_encoding::percent_decode;
use serde_json::json;
use tonic::codegen::Service;

use crate::gateway::body::Body;
use crate::gateway::error::{self, GRPC_DETAILS, GRPC_MESSAGE, GRPC_STATUS};
use crate::words::{Code, Status};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_WEB_END: u8 = 0x80;
const CONNECT_END: u8 = 0x02;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Grpc,
    GrpcWeb,
    Connect,
}

pub(super) async fn serve<S, B>(mut server: S, mut request: Request<B>) -> Response<Body>
where
    S: Service<Request<B>, Response = Response<tonic::body::Body>, Error = Infallible>,
{
    let Some(content_type) = request.headers().get(CONTENT_TYPE).cloned() else {
        return unknown_protocol();
    };
    let protocol = match content_type.as_bytes() {
        b"application/grpc" | b"application/grpc+proto" => Protocol::Grpc,
        b"application/grpc-web" | b"application/grpc-web+proto" => Protocol::GrpcWeb,
        b"application/connect+proto" => Protocol::Connect,
        _ => return unknown_protocol(),
    };
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    if let Some(encoding) = headers.remove("connect-content-encoding") {
        // So that the server refuses what it would refuse of a gRPC client.
        headers.insert("grpc-encoding", encoding);
    }
    let mut response = match server.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if protocol == Protocol::Grpc {
        return response.map(|inner| Body::new(Translated { inner, protocol, ended: false }));
    }
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    if response.headers().contains_key(GRPC_STATUS) {
        let end = end(protocol, response.headers());
        for name in [GRPC_STATUS, GRPC_MESSAGE, GRPC_DETAILS] {
            response.headers_mut().remove(name);
        }
        return response.map(|_| Body::full(end));
    }
    response.map(|inner| Body::new(Translated { inner, protocol, ended: false }))
}

fn unknown_protocol() -> Response<Body> {
    let sentence = "this service speaks gRPC, gRPC-Web and streaming Connect, in protobuf's binary \
                    encoding";
    error::json(&Status::invalid_argument(sentence).with_http(415))
}

struct Translated {
    inner: tonic::body::Body,
    protocol: Protocol,
    ended: bool,
}

impl http_body::Body for Translated {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let trailers = match frame {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(trailers) => trailers,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            },
            Some(Err(status)) => trailers(&status),
            None => trailers(&tonic::Status::internal("the stream ended without a status")),
        };
        this.ended = true;
        Poll::Ready(Some(Ok(match this.protocol {
            Protocol::Grpc => Frame::trailers(trailers),
            Protocol::GrpcWeb | Protocol::Connect => Frame::data(end(this.protocol, &trailers)),
        })))
    }
}

fn trailers(status: &tonic::Status) -> HeaderMap {
    let code = Code::from_u32(status.code() as u32).unwrap_or(Code::Unknown);
    let mut trailers = HeaderMap::new();
    error::grpc_trailers(&Status::new(code, status.message()), &mut trailers);
    trailers
}

/// The last frame of a stream, from what gRPC would say in trailers.
fn end(protocol: Protocol, trailers: &HeaderMap) -> Bytes {
    let mut text = Vec::new();
    if protocol == Protocol::Connect {
        text = connect_end(trailers);
    } else {
        for name in [GRPC_STATUS, GRPC_MESSAGE, GRPC_DETAILS] {
            if let Some(value) = trailers.get(&name) {
                text.extend([name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"].concat());
            }
        }
    }
    let mut frame = BytesMut::with_capacity(5 + text.len());
    frame.put_u8(if protocol == Protocol::Connect { CONNECT_END } else { GRPC_WEB_END });
    frame.put_u32(text.len() as u32);
    frame.extend_from_slice(&text);
    frame.freeze()
}

fn connect_end(trailers: &HeaderMap) -> Vec<u8> {
    let number = trailers.get(GRPC_STATUS).and_then(|value| value.to_str().ok()?.parse().ok());
    let code = number.and_then(Code::from_u32).unwrap_or(Code::Unknown);
    if code == Code::Ok {
        return b"{}".to_vec();
    }
    let message = trailers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes).unwrap_or_default();
    let message = percent_decode(message).decode_utf8_lossy();
    json!({ "error": { "code": code.name(), "message": message } }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use stead_proto::grpc::health::v1::health_server::{Health, HealthServer};
    use stead_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};

    use super::*;

    /// Finds nothing, or streams one message.
    struct Fake;

    #[tonic::async_trait]
    impl Health for Fake {
        async fn check(
            &self,
            _: tonic::Request<HealthCheckRequest>,
        ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
            Err(tonic::Status::not_found("no ü"))
        }

        type WatchStream = tokio_stream::Once<Result<HealthCheckResponse, tonic::Status>>;

        async fn watch(
            &self,
            _: tonic::Request<HealthCheckRequest>,
        ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
            let response = HealthCheckResponse { status: 1 };
            Ok(tonic::Response::new(tokio_stream::once(Ok(response))))
        }
    }

    async fn ask(method: &str, content_type: &str) -> (u16, String, Vec<u8>) {
        let request = Request::post(format!("/grpc.health.v1.Health/{method}"))
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0])))
            .unwrap();
        let response = serve(HealthServer::new(Fake), request).await;
        let content_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        (status, content_type, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    fn framed(flags: u8, text: &[u8]) -> Vec<u8> {
        [&[flags][..], &(text.len() as u32).to_be_bytes(), text].concat()
    }

    #[tokio::test]
    async fn grpc_web_ends_with_trailers_in_the_body() {
        let (status, content_type, body) = ask("Watch", "application/grpc-web+proto").await;
        assert_eq!((status, content_type.as_str()), (200, "application/grpc-web+proto"));
        let message = framed(0, &[8, 1]);
        assert_eq!(body, [message, framed(0x80, b"grpc-status:0\r\n")].concat());

        let (_, _, body) = ask("Check", "application/grpc-web").await;
        let end = b"grpc-status:5\r\ngrpc-message:no%20%C3%BC\r\n";
        assert_eq!(body, framed(0x80, end));
    }

    #[tokio::test]
    async fn connect_ends_with_json() {
        let (status, content_type, body) = ask("Watch", "application/connect+proto").await;
        assert_eq!((status, content_type.as_str()), (200, "application/connect+proto"));
        assert_eq!(body, [framed(0, &[8, 1]), framed(2, b"{}")].concat());

        let (status, _, body) = ask("Check", "application/connect+proto").await;
        assert_eq!(status, 200);
        let end: serde_json::Value = serde_json::from_slice(&body[5..]).unwrap();
        assert_eq!(body[0], 2);
        assert_eq!(end, json!({ "error": { "code": "not_found", "message": "no ü" } }));
    }

    #[tokio::test]
    async fn what_is_no_such_protocol_is_told_which_there_are() {
        let (status, content_type, _) = ask("Check", "application/json").await;
        assert_eq!((status, content_type.as_str()), (415, "application/json"));
    }
}
