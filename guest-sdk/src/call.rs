//! Calls of other functions, and what a command asks the host to do after its answer is durable.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use prost::Message;

use crate::context::Metadata;

/// How long one try of an effect may take.
pub(crate) const TIMEOUT_MS: &str = "stead-timeout-ms";
/// Under which key the target recognises a call that it has had before.
pub(crate) const IDEMPOTENCY_KEY: &str = "stead-idempotency-key";

/// A call of a method that answers `R`: something to forward to, an effect, what a timer does, what
/// an action waits for, a workflow's step. Made by the generated client of a service:
/// `StockClient::reserve(Reserve { .. })`. Making one calls nothing.
pub struct Call<R> {
    request: Request,
    reply: PhantomData<fn() -> R>,
}

/// A call without the type of its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub service: Cow<'static, str>,
    pub method: Cow<'static, str>,
    pub payload: Vec<u8>,
    pub metadata: Metadata,
}

impl<R> Call<R> {
    /// `service` is the full name of a protobuf service, perhaps of another module of the deployment.
    pub fn new(
        service: impl Into<Cow<'static, str>>,
        method: impl Into<Cow<'static, str>>,
        request: &impl Message,
    ) -> Self {
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: request.encode_to_vec(),
            metadata: Metadata::default(),
        };
        Self { request, reply: PhantomData }
    }

    /// Sends metadata along. `name` is in lower case and does not begin with `stead-`; the value of a
    /// name that ends in `-bin` is in base64.
    pub fn with_metadata(mut self, name: &str, value: &str) -> Self {
        self.request.metadata.push(name, value);
        self
    }

    /// How long one try of an effect may take, in whole milliseconds; otherwise 30 s. Not for a forward,
    /// which has the time of its caller.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.request.metadata.push(TIMEOUT_MS, &timeout.as_millis().to_string());
        self
    }

    /// Has a call that an action makes of an entity take effect once within 24 hours, however often it is
    /// made with this key of 1 to 200 bytes. Effects of entities and workflows have one of their own, and a
    /// forward has that of its caller.
    pub fn with_idempotency_key(mut self, key: &str) -> Self {
        self.request.metadata.push(IDEMPOTENCY_KEY, key);
        self
    }

    pub(crate) fn into_request(self) -> Request {
        self.request
    }
}

impl<R> Clone for Call<R> {
    fn clone(&self) -> Self {
        Self { request: self.request.clone(), reply: PhantomData }
    }
}

/// A call after the events are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub call: Request,
    pub synchronous: bool,
}

/// What the caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<R> {
    Reply(R),
    Forward(Request),
    None,
}

/// A named timer that is set, or with none cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimerChange {
    pub name: String,
    pub timer: Option<Timer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    pub due: Due,
    pub every_ms: Option<u64>,
    pub method: Cow<'static, str>,
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    AfterMs(u64),
    AtMs(u64),
}

pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
