//! One unary request on its way through: what all protocols share.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::gateway::backend::{Backend, CallContext};
use crate::gateway::frame;
use crate::gateway::head::Head;
use crate::gateway::route::{Endpoint, Routes};
use crate::words::budget::{Budget, Held};
use crate::words::clock::{self, Instant};
use crate::words::{Code, Status, limits};

pub struct Exchange<'a, B> {
    pub backend: &'a B,
    pub routes: &'a Routes,
    pub parts: &'a Parts,
    pub head: Head<'a>,
    pub request_id: Arc<str>,
    pub arrived: Instant,
    pub body_read_timeout: Duration,
    /// The port's budget for bodies, and what this request has of it.
    pub bodies: &'a Arc<Budget>,
    pub held: Held<'a>,
    /// The port's budget for answers.
    pub answers: &'a Arc<Budget>,
}

impl<B: Backend> Exchange<'_, B> {
    /// Whether the headers are in order, and until when the caller waits.
    pub fn deadline(&mut self) -> Result<Instant, Status> {
        match self.head.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(self.arrived + self.head.timeout()?),
        }
    }

    /// The same for a call that streams: without a word of the caller it may take a day.
    pub fn stream_deadline(&mut self) -> Result<Instant, Status> {
        match self.head.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(self.arrived + self.head.stream_timeout()?),
        }
    }

    /// The endpoint with the request's path as its full name.
    pub fn endpoint(&self) -> Result<Arc<Endpoint>, Status> {
        self.routes.by_path.get(self.parts.uri.path()).cloned().ok_or_else(|| self.unknown_path())
    }

    /// Why there is nothing at the request's path.
    pub fn unknown_path(&self) -> Status {
        let path = self.parts.uri.path();
        let name = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
        if let Some((service, method)) = name
            && let Some(methods) = self.routes.methods_of(service)
        {
            let methods = methods.join(", ");
            let sentence = format!("{service} has no method {method:?}; it has: {methods}");
            return Status::unimplemented(sentence).with_http(404);
        }
        let shown: String = path.chars().take(200).collect();
        Status::unimplemented(format!("nothing is served at {shown}; is its service deployed?"))
            .with_http(404)
    }

    pub async fn call(
        &mut self,
        endpoint: &Endpoint,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Status> {
        let context = self.context(deadline);
        let answer =
            tokio::time::timeout_at(deadline, self.backend.call(endpoint, payload, context)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded("the call took longer than its deadline allows"))
        });
        if let Err(status) = &answer
            && matches!(status.code, Code::Internal | Code::Unknown | Code::DataLoss)
        {
            // With the id that the caller was told, to find the lines about the cause.
            let (request_id, path) = (&*self.request_id, &*endpoint.path);
            let (code, reason) = (status.code.name(), &*status.message);
            tracing::warn!(request_id, path, code, reason, "a call failed");
        }
        answer
    }

    pub fn context(&mut self, deadline: Instant) -> CallContext {
        CallContext {
            metadata: std::mem::take(&mut self.head.metadata),
            idempotency_key: self.head.idempotency_key.take(),
            deadline,
            request_id: self.request_id.clone(),
            consistency: self.head.consistency,
        }
    }

    /// The whole body. A framed one (gRPC) is refused as soon as its frame announces too much.
    pub async fn read(&mut self, mut body: Incoming, framed: bool) -> Result<Bytes, Status> {
        let until = clock::now() + self.body_read_timeout;
        let read = tokio::time::timeout_at(until, collect(&mut body, framed, &mut self.held)).await;
        let result = match read {
            Ok(result) => result,
            Err(_) => {
                let sentence = "the request's body did not arrive in time";
                Err(Status::deadline_exceeded(sentence).with_http(408))
            }
        };
        if result.is_err() {
            self.held.release();
        }
        // Closing an HTTP/1.1 connection that the client still writes to would lose the answer.
        if matches!(&result, Err(status) if status.code == Code::ResourceExhausted)
            && self.parts.version <= Version::HTTP_11
        {
            let _ = tokio::time::timeout_at(until, discard(&mut body)).await;
        }
        result
    }
}

async fn collect(body: &mut Incoming, framed: bool, held: &mut Held<'_>) -> Result<Bytes, Status> {
    let most = limits::BODY_BYTES_MAX + if framed { frame::PREFIX_BYTES } else { 0 };
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    // Most bodies come in one piece, which is then passed on as it is.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut announced = !framed;
    while let Some(piece) = body.frame().await {
        let piece = piece.map_err(|_| Status::invalid_argument("the request's body broke off"))?;
        let Ok(data) = piece.into_data() else { continue };
        held.add(data.len())?;
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            // What is only announced gets no room: it may never come.
            if all.is_empty() {
                all.reserve(first.len() + data.len());
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        let so_far: &[u8] = if all.is_empty() { &first } else { &all };
        if so_far.len() > most {
            return Err(too_large());
        }
        if !announced {
            announced = frame::announced(so_far)?.is_some();
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

async fn discard(body: &mut Incoming) {
    let mut bytes = 0;
    while let Some(Ok(piece)) = body.frame().await {
        bytes += piece.data_ref().map_or(0, Bytes::len);
        if bytes > limits::DISCARDED_BYTES_MAX {
            return;
        }
    }
}

fn too_large() -> Status {
    let sentence = format!("the request has more than {} bytes", limits::BODY_BYTES_MAX);
    Status::resource_exhausted(sentence).with_http(413)
}
