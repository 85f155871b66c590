//! Workflows: event-sourced entities whose effects may ask for their results. A result comes back as a
//! command that only the host sends.

use bytes::Bytes;
use prost::Message as _;

use crate::words::Status;

/// What became of an effect: `stead.workflow.v1.StepResult`.
#[derive(Clone, PartialEq, prost::Message)]
struct StepResult {
    /// The one that the effect named.
    #[prost(string, tag = "1")]
    token: String,
    /// A gRPC status code; 0 if it succeeded.
    #[prost(uint32, tag = "2")]
    code: u32,
    #[prost(string, tag = "3")]
    message: String,
    #[prost(bytes = "bytes", tag = "4")]
    reply: Bytes,
}

/// The payload of the command.
pub fn result(token: &str, result: Result<Bytes, Status>) -> Bytes {
    let token = token.to_owned();
    let result = match result {
        Ok(reply) => StepResult { token, code: 0, message: String::new(), reply },
        Err(status) => StepResult {
            token,
            code: status.code.number(),
            message: status.message,
            reply: Bytes::new(),
        },
    };
    result.encode_to_vec().into()
}
