//! The body of every response.
//!
//! Nearly all answers are one piece of bytes, so that is what the type is; only streams are boxed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use crate::words::Status;
use crate::words::budget::{self, Budget};

pub struct Body(Kind);

enum Kind {
    Full(Option<Bytes>),
    /// A gRPC message, then the trailer `grpc-status: 0`.
    GrpcOk {
        message: Option<Bytes>,
        ended: bool,
    },
    Stream(UnsyncBoxBody<Bytes, Status>),
}

impl Body {
    /// A body that is more than one piece of bytes.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
    {
        Self(Kind::Stream(body.boxed_unsync()))
    }

    pub fn empty() -> Self {
        Self(Kind::Full(None))
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty())))
    }

    /// A framed gRPC message that succeeded.
    pub fn grpc_ok(message: Bytes) -> Self {
        Self(Kind::GrpcOk { message: Some(message), ended: false })
    }

    /// The same, counted against a budget until it has been sent. Streams have bounds of their own.
    pub fn covered(self, budget: &Arc<Budget>) -> Result<Self, Status> {
        let cover =
            |bytes: Option<Bytes>| bytes.map(|bytes| budget::cover(budget, bytes)).transpose();
        Ok(Self(match self.0 {
            Kind::Full(bytes) => Kind::Full(cover(bytes)?),
            Kind::GrpcOk { message, ended } => Kind::GrpcOk { message: cover(message)?, ended },
            stream @ Kind::Stream(_) => stream,
        }))
    }

    /// Whether the answer goes on after the request's handler has returned.
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Kind::Stream(_))
    }
}

impl From<UnsyncBoxBody<Bytes, Status>> for Body {
    fn from(body: UnsyncBoxBody<Bytes, Status>) -> Self {
        Self(Kind::Stream(body))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.get_mut().0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::GrpcOk { message, ended } => Poll::Ready(match message.take() {
                Some(message) => Some(Ok(Frame::data(message))),
                None if *ended => None,
                None => {
                    *ended = true;
                    let mut trailers = HeaderMap::with_capacity(1);
                    trailers.insert(
                        HeaderName::from_static("grpc-status"),
                        HeaderValue::from_static("0"),
                    );
                    Some(Ok(Frame::trailers(trailers)))
                }
            }),
            Kind::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::GrpcOk { ended, .. } => *ended,
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            // Not exact: an exact hint makes a content-length, which clients then read as the end
            // of a message without trailers.
            Kind::GrpcOk { .. } => SizeHint::default(),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}
