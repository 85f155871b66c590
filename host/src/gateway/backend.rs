//! What an edge serves.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;

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
