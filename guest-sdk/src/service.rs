//! What `stead-build` generates for a protobuf service stands on this.

use prost::Message;

use crate::context::{Context, Outcome};
use crate::entity::EventSourced;
use crate::event::decode;
use crate::rejection::{Code, Rejection};

/// A protobuf service as the entity `E` implements it. Made by the generated function of the
/// service's name.
pub struct Service<E: EventSourced> {
    pub name: &'static str,
    /// A serialized `google.protobuf.FileDescriptorSet`, deflated.
    pub descriptors: &'static [u8],
    pub dispatch: Dispatch<E>,
}

/// Leads from a method's name to its handler: state, context, method, request; the encoded response.
pub type Dispatch<E> = fn(&E, &mut Context<E>, &str, &[u8]) -> Outcome<E, Vec<u8>>;

#[doc(hidden)]
pub fn serve<E, C, R>(
    state: &E,
    ctx: &mut Context<E>,
    payload: &[u8],
    type_name: &str,
    handler: fn(&E, &mut Context<E>, C) -> Outcome<E, R>,
) -> Outcome<E, Vec<u8>>
where
    E: EventSourced,
    C: Message + Default,
    R: Message + 'static,
{
    let command = decode::<C>(type_name, payload).map_err(|error| {
        Rejection::new(Code::InvalidArgument, format!("the request is {error}"))
    })?;
    let reply = handler(state, ctx, command)?;
    Ok(reply.map(|response: R| response.encode_to_vec()))
}

#[doc(hidden)]
pub fn unknown_method(service: &str, method: &str) -> Rejection {
    Rejection::new(Code::Unimplemented, format!("{service} has no method {method}"))
}
