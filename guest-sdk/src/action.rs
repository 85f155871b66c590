//! What an action is, and its streams.

use std::marker::PhantomData;

use prost::Message;

use crate::call::{Answer, Call, Request};
use crate::context::Effects;
use crate::event::decode;
use crate::host;
use crate::rejection::{Code, Rejection};

/// A stateless function. Any instance serves any call, one at a time, many instances at once; what an
/// instance keeps in memory, in a `RefCell` say, may be lost after any call.
///
/// Effects of an action are called before its answer leaves, also when it fails; they are not stored.
pub trait Action: Default + 'static {}

/// The messages of a streamed request, in the order in which they were sent.
pub struct Requests<C> {
    type_name: &'static str,
    message: PhantomData<fn() -> C>,
}

impl<C: Message + Default> Requests<C> {
    pub(crate) fn new(type_name: &'static str) -> Self {
        Self { type_name, message: PhantomData }
    }

    /// The next message; none at the end. Waits until there is one.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a message that cannot be read; CANCELLED or DEADLINE_EXCEEDED once the
    /// caller has gone. Pass it on with `?`.
    pub fn next(&self) -> Result<Option<C>, Rejection> {
        let Some(payload) = host::receive()? else { return Ok(None) };
        decode_request(self.type_name, &payload).map(Some)
    }
}

/// The messages of a streamed answer.
pub struct Responses<R> {
    effects: Effects,
    message: PhantomData<fn(R)>,
}

impl<R: Message> Responses<R> {
    pub(crate) fn new(effects: Effects) -> Self {
        Self { effects, message: PhantomData }
    }

    /// Sends one message, after the effects that were asked for since the one before. Waits while the
    /// caller takes no more.
    ///
    /// # Errors
    ///
    /// Nothing more can be sent. Pass it on with `?`, which ends the stream as the caller expects.
    pub fn send(&self, response: R) -> Result<(), Gone> {
        self.pass(Answer::Reply(response.encode_to_vec()))
    }

    /// Sends the reply of another function.
    ///
    /// # Errors
    ///
    /// As of [`send`](Self::send).
    pub fn forward(&self, call: Call<R>) -> Result<(), Gone> {
        self.pass(Answer::Forward(call.into_request()))
    }

    /// Sends nothing, but has the effects called that were asked for.
    ///
    /// # Errors
    ///
    /// As of [`send`](Self::send).
    pub fn send_nothing(&self) -> Result<(), Gone> {
        self.pass(Answer::None)
    }

    fn pass(&self, answer: Answer<Vec<u8>>) -> Result<(), Gone> {
        host::send(answer, self.effects.take())
    }
}

/// Why nothing more can be sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The caller went away.
    Cancelled,
    /// The caller's deadline has passed.
    DeadlineExceeded,
}

impl From<Gone> for Rejection {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Cancelled => Self::new(Code::Cancelled, "the caller went away"),
            Gone::DeadlineExceeded => {
                Self::new(Code::DeadlineExceeded, "the caller's deadline has passed")
            }
        }
    }
}

pub(crate) fn call<R: Message + Default>(call: Request) -> Result<R, Rejection> {
    let target = format!("{}/{}", call.service, call.method);
    let reply = host::call(call)?;
    R::decode(&*reply).map_err(|error| {
        Rejection::new(Code::Internal, format!("the reply of {target} cannot be read: {error}"))
    })
}

pub(crate) fn decode_request<C: Message + Default>(
    type_name: &str,
    payload: &[u8],
) -> Result<C, Rejection> {
    decode(type_name, payload)
        .map_err(|error| Rejection::new(Code::InvalidArgument, format!("the request is {error}")))
}
