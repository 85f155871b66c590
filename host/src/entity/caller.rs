//! Calls that functions and consumers make of other functions. The router knows where those are; this floor
//! only knows that somebody does.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::entity::Consistency;
use crate::words::Status;
use crate::words::clock::Instant;

/// A call of a function by name.
#[derive(Clone, Debug)]
pub struct OutCall {
    /// Full name of the service.
    pub service: String,
    pub method: String,
    pub payload: Bytes,
    pub metadata: Vec<(String, String)>,
    pub idempotency_key: Option<String>,
    /// Nobody has made this call before: an entity in this process need not look for a receipt.
    pub fresh: bool,
    pub deadline: Instant,
    pub request_id: Arc<str>,
    /// Functions that this call has gone through.
    pub hops: u32,
    pub consistency: Consistency,
}

/// Makes calls of functions, wherever they are.
pub trait Caller: Send + Sync + 'static {
    /// The serialized reply. UNIMPLEMENTED if no such function is live.
    fn call(&self, call: OutCall) -> BoxFuture<'static, Result<Bytes, Status>>;
}
