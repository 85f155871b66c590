//! An HTTP client that hides nothing: status, headers and body as they came.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

/// Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    headers: HeaderMap,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new(base: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { base: base.trim_end_matches('/').into(), http, headers: HeaderMap::new() }
    }

    /// `http://127.0.0.1:4711`
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `127.0.0.1:4711`
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// The same client with a header on every request.
    pub fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.insert(name, value.parse().expect("a header value"));
        client
    }

    /// An error only where no answer came: the connection failed or was cut.
    pub async fn try_send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let (mut parts, body) = request.into_parts();
        for (name, value) in &self.headers {
            parts.headers.insert(name, value.clone());
        }
        let request = Request::from_parts(parts, body);
        let response = self.http.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Answer { status: parts.status, headers: parts.headers, trailers, body: body.to_bytes() })
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", content_type)
            .body(Full::new(body.into()))
            .expect("a request");
        self.try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "application/json", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", body.to_string()).await
    }

    /// The status, or why none came.
    pub async fn try_get(&self, path: &str) -> Result<StatusCode, String> {
        let request = Request::get(format!("{}{path}", self.base)).body(Full::new(Bytes::new()));
        let request = request.map_err(|error| error.to_string())?;
        self.try_send(request).await.map(|answer| answer.status)
    }

    /// For load: the JSON of a 200, or what else happened.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = Request::post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        let answer = self.try_send(request).await.map_err(Failure::Connection)?;
        if answer.status == StatusCode::OK {
            return Ok(answer.json());
        }
        Err(Failure::Answered(answer.status.as_u16(), answer.text()))
    }
}

/// Why a call had no result.
#[derive(Debug)]
pub enum Failure {
    /// No answer: whether it took effect is unknown.
    Connection(String),
    Answered(u16, String),
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The body of a 200.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self.json()
    }

    /// The message of an error with this status and code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        let message = body["message"].as_str().unwrap_or_default().to_owned();
        assert!(!message.is_empty(), "an error without a message: {body}");
        message
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
