//! From a request to the protocol that answers it.

use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tracing::Instrument;

use crate::gateway::backend::Backend;
use crate::gateway::body::Body;
use crate::gateway::connect::{self, Codec};
use crate::gateway::exchange::Exchange;
use crate::gateway::head::{self, Head};
use crate::gateway::server::Edge;
use crate::gateway::{error, grpc, grpc_web, http_json, stream};
use crate::words::{Status, clock};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the content type says; by path, the last may still be Connect.
enum Protocol {
    Grpc,
    GrpcWeb {
        text: bool,
    },
    /// Connect's streaming form.
    Connect(Codec),
    Unknown,
    Http(Option<Codec>),
}

impl Protocol {
    fn of(content_type: Option<&str>) -> Self {
        let Some(name) = content_type else { return Self::Http(None) };
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("application/json") {
            Self::Http(Some(Codec::Json))
        } else if is("application/proto") {
            Self::Http(Some(Codec::Proto))
        } else if is("application/grpc") || is("application/grpc+proto") {
            Self::Grpc
        } else if is("application/grpc-web") || is("application/grpc-web+proto") {
            Self::GrpcWeb { text: false }
        } else if is("application/grpc-web-text") || is("application/grpc-web-text+proto") {
            Self::GrpcWeb { text: true }
        } else if is("application/connect+json") {
            Self::Connect(Codec::Json)
        } else if is("application/connect+proto") {
            Self::Connect(Codec::Proto)
        } else if name.len() >= 16
            && name.is_char_boundary(16)
            && name[..16].eq_ignore_ascii_case("application/grpc")
        {
            Self::Unknown
        } else {
            Self::Http(None)
        }
    }
}

/// Answers any request. Dropped when the client goes away.
pub async fn handle<B: Backend>(edge: &Edge<B>, request: Request<Incoming>) -> Response<Body> {
    let Some(cors) = &edge.cors else { return identified(edge, request).await };
    if let Some(response) = cors.preflight(request.method(), request.headers()) {
        return response;
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = identified(edge, request).await;
    cors.decorate(origin.as_ref(), response.headers_mut());
    response
}

async fn identified<B: Backend>(edge: &Edge<B>, request: Request<Incoming>) -> Response<Body> {
    let request_id = head::request_id(request.headers());
    let span = tracing::debug_span!("request", id = %request_id, path = request.uri().path());
    let value = HeaderValue::from_str(&request_id);
    let mut response = match span.is_disabled() {
        true => answered(edge, request, request_id).await,
        false => Box::pin(answered(edge, request, request_id).instrument(span)).await,
    };
    if let Ok(value) = value {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

/// The future of a request is moved as a whole, so what is not on the way of a plain call is boxed: here, and
/// on the whole way down.
async fn answered<B: Backend>(
    edge: &Edge<B>,
    mut request: Request<Incoming>,
    request_id: std::sync::Arc<str>,
) -> Response<Body> {
    if edge.backend.wants(request.uri().path()) {
        match Box::pin(edge.backend.intercept(request)).await {
            Ok(response) => return response,
            Err(returned) => request = returned,
        }
    }
    let (parts, body) = request.into_parts();
    let (head, body) = unary(edge, &parts, body, request_id).await.into_parts();
    match body.covered(&edge.answers) {
        Ok(body) => Response::from_parts(head, body),
        Err(status) => refused(&parts, &status),
    }
}

fn refused(parts: &Parts, status: &Status) -> Response<Body> {
    match Protocol::of(Head::read(&parts.headers).content_type) {
        Protocol::Grpc | Protocol::GrpcWeb { .. } => error::grpc(status),
        Protocol::Connect(_) | Protocol::Http(_) | Protocol::Unknown => error::json(status),
    }
}

async fn unary<B: Backend>(
    edge: &Edge<B>,
    parts: &Parts,
    body: Incoming,
    request_id: std::sync::Arc<str>,
) -> Response<Body> {
    let head = Head::read(&parts.headers);
    let protocol = Protocol::of(head.content_type);
    let routes = edge.backend.routes();
    let mut exchange = Exchange {
        backend: &*edge.backend,
        routes: &routes,
        parts,
        head,
        request_id,
        arrived: clock::now(),
        body_read_timeout: edge.options.body_read_timeout,
        bodies: &edge.bodies,
        held: edge.bodies.hold(),
        answers: &edge.answers,
    };
    match protocol {
        Protocol::Grpc => Box::pin(grpc::serve(&mut exchange, body)).await,
        Protocol::GrpcWeb { text } => Box::pin(grpc_web::serve(&mut exchange, body, text)).await,
        Protocol::Connect(codec) => Box::pin(stream::connect(&mut exchange, codec, body)).await,
        Protocol::Unknown => {
            let sentence = "of gRPC and gRPC-Web only the protobuf encoding is supported";
            error::json(&Status::invalid_argument(sentence).with_http(415))
        }
        Protocol::Http(codec) => {
            // A POST without a body needs no content type to be understood.
            let codec = codec.or_else(|| {
                let empty =
                    exchange.head.content_type.is_none() && http_body::Body::is_end_stream(&body);
                empty.then_some(Codec::Json)
            });
            if let Some(codec) = codec
                && parts.method == Method::POST
                && let Some(endpoint) = exchange.routes.by_path.get(parts.uri.path())
            {
                return connect::post(&mut exchange, endpoint, codec, body).await;
            }
            http_json::serve(&mut exchange, body).await
        }
    }
}
