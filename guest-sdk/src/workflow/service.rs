//! What `stead-build` generates for the service of a workflow stands on this.

use prost::{Message, Name};

use crate::action::decode_request;
use crate::rejection::Rejection;
use crate::workflow::{Progress, Workflow};

/// A protobuf service as the workflow `W` implements it. Made by the generated function of the
/// service's name.
pub struct Service<W: Workflow> {
    pub name: &'static str,
    /// A serialized `google.protobuf.FileDescriptorSet`, deflated.
    pub descriptors: &'static [u8],
    /// The method that starts it.
    pub start: Start,
    pub signals: &'static [Signal],
    pub query: Query<W>,
}

impl<W: Workflow> Clone for Service<W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W: Workflow> Copy for Service<W> {}

/// The method that starts a workflow.
#[derive(Clone, Copy)]
pub struct Start {
    pub method: &'static str,
    pub answer: Answer,
    pub check: Check,
}

/// A method that tells a workflow something.
#[derive(Clone, Copy)]
pub struct Signal {
    pub method: &'static str,
    /// The full name of its request's type.
    pub request: &'static str,
    pub answer: Answer,
    pub check: Check,
}

/// What a method that starts or signals answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `google.protobuf.Empty`
    Empty,
    /// `stead.workflow.v1.Status`
    Status,
}

/// Refuses a request that cannot be read.
pub type Check = fn(&[u8]) -> Result<(), Rejection>;

/// Leads from a method's name to what answers the query.
pub type Query<W> =
    fn(&Progress<<W as Workflow>::Output>, &str, &[u8]) -> Result<Vec<u8>, Rejection>;

#[doc(hidden)]
pub fn check<M: Name + Default>(payload: &[u8]) -> Result<(), Rejection> {
    decode_request::<M>(&M::full_name(), payload).map(drop)
}

#[doc(hidden)]
pub fn serve_query<O, C, R>(
    progress: &Progress<O>,
    payload: &[u8],
    type_name: &str,
    handler: fn(&Progress<O>, C) -> Result<R, Rejection>,
) -> Result<Vec<u8>, Rejection>
where
    C: Message + Default,
    R: Message,
{
    let request = decode_request::<C>(type_name, payload)?;
    handler(progress, request).map(|response| response.encode_to_vec())
}
