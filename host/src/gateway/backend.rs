//! What an edge serves.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::action::{Input, Output};
use crate::entity::Consistency;
use crate::gateway::body::Body;
use crate::gateway::route::{Endpoint, Routes};
use crate::words::Status;
use crate::words::clock::Instant;

/// Everything of a call but its payload.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Without the transport's headers (`grpc-*`, `content-*`, `te`, `host`, ..) and credentials.
    pub metadata: Vec<(String, String)>,
    pub idempotency_key: Option<String>,
    pub deadline: Instant,
    pub request_id: Arc<str>,
    /// What the caller asks for; none: what the method says.
    pub consistency: Option<Consistency>,
}

/// What streams in a call.
pub struct Streamed {
    /// Empty if the request streams.
    pub payload: Bytes,
    pub input: Option<Input>,
    pub output: Option<Output>,
}

/// The services behind a port: the deployed ones, or the admin API.
pub trait Backend: Send + Sync + 'static {
    /// What can be called now. Cheap: called for every request.
    fn routes(&self) -> Arc<Routes>;

    /// A unary call; request and response in protobuf's binary encoding.
    fn call(
        &self,
        endpoint: &Endpoint,
        payload: Bytes,
        context: CallContext,
    ) -> impl Future<Output = Result<Bytes, Status>> + Send;

    /// A call whose request, answer or both are streams. The reply is in `output`, if there is one; else
    /// it is returned. Dropping the future, or the output's other end, cancels the call.
    fn stream(
        &self,
        endpoint: &Endpoint,
        _call: Streamed,
        _context: CallContext,
    ) -> BoxFuture<'static, Result<Bytes, Status>> {
        let sentence = format!("{} streams, which this port does not serve", endpoint.path);
        Box::pin(std::future::ready(Err(Status::unimplemented(sentence))))
    }

    /// Whether requests to this path go to `intercept` before anything else looks at them. Called
    /// for every request, so a comparison of prefixes and no more.
    fn wants(&self, _path: &str) -> bool {
        true
    }

    /// Requests that are not unary calls (streams, probes, pages): an answer, or the request back.
    fn intercept(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Request<Incoming>>> + Send;
}
