//! A port with a scripted backend, and clients to talk to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use stead_proto::google::api::HttpBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::gateway::backend::{Backend, CallContext};
use crate::gateway::body::Body;
use crate::gateway::route::{Endpoint, Routes, Target};
use crate::gateway::server::{ServerOptions, serve};
use crate::words::budget::Budget;
use crate::words::{Code, Message, Status, limits};

pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler =
        protox::Compiler::new([root.join("src/gateway/testing"), root.join("../proto")]).unwrap();
    compiler.include_imports(true).open_file("edge.proto").unwrap();
    let files = compiler.encode_file_descriptor_set();
    DescriptorPool::decode(files.as_slice()).unwrap()
});

pub fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).unwrap()
}

/// An `edge.All` from JSON.
pub fn all(json: serde_json::Value) -> Bytes {
    DynamicMessage::deserialize(message("edge.All"), json).unwrap().encode_to_vec().into()
}

pub fn routes() -> Routes {
    Routes::new(
        POOL.services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .filter(|method| method.parent_service().package_name() == "edge")
            .map(|method| Endpoint::new(method, Target::Admin)),
    )
}

struct Scripted(Arc<Routes>);

impl Backend for Scripted {
    fn routes(&self) -> Arc<Routes> {
        self.0.clone()
    }

    async fn call(
        &self,
        endpoint: &Endpoint,
        payload: Bytes,
        context: CallContext,
    ) -> Result<Bytes, Status> {
        match &*endpoint.method {
            "Fail" => {
                let mut status = Status::new(Code::FailedPrecondition, "the cart is “closed”");
                status.details.push(Message::new("edge.Nested", vec![10, 1, b'x']));
                Err(status)
            }
            "Metadata" => {
                let mut tags: Vec<_> = context
                    .metadata
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                tags.sort();
                let id = context.idempotency_key.unwrap_or_default();
                Ok(all(serde_json::json!({ "tags": tags, "id": id, "text": &*context.request_id })))
            }
            "Garbage" => Ok(Bytes::from_static(b"\xff\xff\xff")),
            "Never" => std::future::pending().await,
            "Show" => {
                let page = HttpBody {
                    content_type: "text/html".into(),
                    data: Bytes::from_static(b"<p>hello</p>").into(),
                    extensions: Vec::new(),
                };
                // Field 1 of `edge.Page`.
                let mut reply = vec![10, page.encoded_len() as u8];
                reply.extend(page.encode_to_vec());
                Ok(reply.into())
            }
            _ => Ok(payload),
        }
    }

    fn wants(&self, path: &str) -> bool {
        path.starts_with("/probe")
    }

    async fn intercept(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Request<Incoming>> {
        match request.uri().path() {
            "/probe" => Ok(Response::new(Body::full("alive"))),
            "/probe/endless" => Ok(Response::new(Body::new(http_body_util::StreamBody::new(
                futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Status>>(),
            )))),
            _ => Err(request),
        }
    }
}

/// Stops when it is dropped.
pub struct Port {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub served: tokio::task::JoinHandle<()>,
    _guard: DropGuard,
}

pub async fn open() -> Port {
    open_with(ServerOptions::default()).await
}

pub async fn open_with(options: ServerOptions) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let backend = Arc::new(Scripted(Arc::new(routes())));
    let served = tokio::spawn(serve(listener, backend, options, stop.clone()));
    Port { address, _guard: stop.clone().drop_guard(), stop, served }
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        Self { status: parts.status, headers: parts.headers, body, trailers }
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn trailer(&self, name: &str) -> &str {
        self.trailers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status, and the message of a JSON error.
    pub fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["message"].as_str().unwrap().to_owned())
    }
}

impl Port {
    /// Over HTTP/1.1.
    pub async fn send(&self, request: Builder, body: impl Into<Bytes>) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = request.header("host", "edge").body(Full::new(body.into())).unwrap();
        Answer::read(client.send_request(request).await.unwrap()).await
    }

    pub async fn send_h2(&self, request: Builder, body: impl Into<Bytes>) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = request.body(Full::new(body.into())).unwrap();
        Answer::read(client.send_request(request).await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    pub async fn post_json(&self, path: &str, json: impl ToString) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request, json.to_string()).await
    }

    pub fn grpc_request(&self, path: &str) -> Builder {
        Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
    }

    /// Writes bytes and reads until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub fn gunzip(bytes: &[u8]) -> Result<Bytes, Status> {
    let budget = Budget::new(2 * limits::BODY_BYTES_MAX);
    crate::gateway::compression::gunzip(bytes, &mut budget.hold())
}

pub fn unframe(body: Bytes, encoding: Option<&str>) -> Result<Bytes, Status> {
    let budget = Budget::new(limits::BODY_BYTES_MAX);
    crate::gateway::frame::unframe(body, encoding, &mut budget.hold())
}

pub fn framed(message: &[u8]) -> Bytes {
    crate::gateway::frame::frame(message, false, 0).0.freeze()
}
