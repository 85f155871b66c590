//! What `stead-build` generates for a protobuf service stands on this.

use prost::Message;

use crate::action::{Requests, Responses, decode_request};
use crate::context::{Context, Outcome, Reply};
use crate::rejection::{Code, Rejection};

/// A protobuf service as `E` implements it, an entity or an action. Made by the generated function of
/// the service's name.
pub struct Service<E> {
    pub name: &'static str,
    /// A serialized `google.protobuf.FileDescriptorSet`, deflated.
    pub descriptors: &'static [u8],
    pub dispatch: Dispatch<E>,
}

/// Leads from a method's name to its handler: state, context, method, request; the encoded response.
pub type Dispatch<E> = fn(&E, &mut Context<E>, &str, &[u8]) -> Outcome<E, Vec<u8>>;

/// A protobuf service of which the host needs no more than the description: one of a view. Made by
/// the generated function of the service's name with `Rows` appended.
pub struct Rows {
    pub name: &'static str,
    /// As of [`Service`].
    pub descriptors: &'static [u8],
}

/// A method that answers one message. `C` is the request, or the [`Requests`] of a streamed one.
pub type Handler<E, C, R> = fn(&E, &mut Context<E>, C) -> Outcome<E, R>;

/// A method that streams its answer. `C` as of [`Handler`].
pub type Streaming<E, C, R> = fn(&E, &mut Context<E>, C, Responses<R>) -> Result<(), Rejection>;

#[doc(hidden)]
pub fn serve<E, C, R>(
    state: &E,
    ctx: &mut Context<E>,
    payload: &[u8],
    type_name: &str,
    handler: Handler<E, C, R>,
) -> Outcome<E, Vec<u8>>
where
    E: 'static,
    C: Message + Default,
    R: Message + 'static,
{
    let command = decode_request::<C>(type_name, payload)?;
    let reply = handler(state, ctx, command)?;
    Ok(reply.map(|response: R| response.encode_to_vec()))
}

#[doc(hidden)]
pub fn serve_streamed_in<E, C, R>(
    state: &E,
    ctx: &mut Context<E>,
    type_name: &'static str,
    handler: Handler<E, Requests<C>, R>,
) -> Outcome<E, Vec<u8>>
where
    E: 'static,
    C: Message + Default,
    R: Message + 'static,
{
    let reply = handler(state, ctx, Requests::new(type_name))?;
    Ok(reply.map(|response: R| response.encode_to_vec()))
}

#[doc(hidden)]
pub fn serve_streamed_out<E, C, R>(
    state: &E,
    ctx: &mut Context<E>,
    payload: &[u8],
    type_name: &str,
    handler: Streaming<E, C, R>,
) -> Outcome<E, Vec<u8>>
where
    E: 'static,
    C: Message + Default,
    R: Message + 'static,
{
    let request = decode_request::<C>(type_name, payload)?;
    let responses = Responses::new(ctx.effects());
    handler(state, ctx, request, responses)?;
    Ok(Reply::nothing())
}

#[doc(hidden)]
pub fn serve_streamed<E, C, R>(
    state: &E,
    ctx: &mut Context<E>,
    type_name: &'static str,
    handler: Streaming<E, Requests<C>, R>,
) -> Outcome<E, Vec<u8>>
where
    E: 'static,
    C: Message + Default,
    R: Message + 'static,
{
    let responses = Responses::new(ctx.effects());
    handler(state, ctx, Requests::new(type_name), responses)?;
    Ok(Reply::nothing())
}

#[doc(hidden)]
pub fn unknown_method(service: &str, method: &str) -> Rejection {
    Rejection::new(Code::Unimplemented, format!("{service} has no method {method}"))
}
