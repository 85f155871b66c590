//! The host's own gRPC services that stream: generated servers behind our types.

use std::convert::Infallible;

use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::BodyExt;
use tonic::codegen::Service;

use crate::gateway::body::Body;
use crate::gateway::error;
use crate::words::{Code, Status};

pub(super) async fn serve<S, B>(mut server: S, request: Request<B>) -> Response<Body>
where
    S: Service<Request<B>, Response = Response<tonic::body::Body>, Error = Infallible>,
{
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    let is_grpc = content_type
        .is_some_and(|name| name == b"application/grpc" || name == b"application/grpc+proto");
    if !is_grpc {
        let sentence = "this service speaks gRPC only (content-type: application/grpc)";
        return error::json(&Status::invalid_argument(sentence).with_http(415));
    }
    match server.call(request).await {
        Ok(response) => response.map(|body| Body::new(body.map_err(status))),
        Err(never) => match never {},
    }
}

fn status(status: tonic::Status) -> Status {
    let code = Code::from_u32(status.code() as u32).unwrap_or(Code::Unknown);
    Status::new(code, status.message())
}
