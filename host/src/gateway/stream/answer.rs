//! A streamed answer as a body. When the client goes away the body is dropped, and with it the call.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use prost_reflect::MessageDescriptor;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use crate::action::stream::Answers;
use crate::gateway::error;
use crate::gateway::exchange::Exchange;
use crate::gateway::route::Endpoint;
use crate::gateway::stream::wire::Wire;
use crate::words::budget::{self, Budget};
use crate::words::{Code, Status, clock, limits};

pub struct StreamedAnswer {
    wire: Wire,
    output: MessageDescriptor,
    answers: Answers,
    /// Of server-sent events: when a comment is due.
    comments: Option<Interval>,
    running: Running,
    /// A message that was taken before the answer began.
    first: Option<Bytes>,
    budget: Arc<Budget>,
    request_id: Arc<str>,
    path: Arc<str>,
    ended: bool,
}

/// What became of an answer before its first message.
pub enum Opening {
    Open(StreamedAnswer),
    Refused(Status),
}

/// The call, cancelled when this is dropped.
struct Running(JoinHandle<Result<Bytes, Status>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let ended = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(match ended {
            Ok(result) => result.map(drop),
            Err(_) => Err(Status::internal("the host failed while it ran the call")),
        })
    }
}

impl StreamedAnswer {
    pub fn new<B>(
        wire: Wire,
        answers: Answers,
        running: JoinHandle<Result<Bytes, Status>>,
        endpoint: &Endpoint,
        exchange: &Exchange<'_, B>,
    ) -> Self {
        let comments = (wire == Wire::Events).then(|| {
            let first = clock::now() + limits::SSE_COMMENT_EVERY;
            let mut comments = tokio::time::interval_at(first, limits::SSE_COMMENT_EVERY);
            comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
            comments
        });
        Self {
            wire,
            output: endpoint.output.clone(),
            answers,
            comments,
            running: Running(running),
            first: None,
            budget: exchange.answers.clone(),
            request_id: exchange.request_id.clone(),
            path: endpoint.path.clone(),
            ended: false,
        }
    }

    /// Waits a moment for the first message, or for the error that comes in its place.
    pub async fn opened(mut self) -> Opening {
        let first = poll_fn(|cx| self.answers.poll_next(cx));
        match tokio::time::timeout(limits::STREAM_OPENS_WITHIN, first).await {
            Ok(Some(message)) => self.first = Some(message),
            Ok(None) => {
                if let Err(status) = poll_fn(|cx| self.running.poll(cx)).await {
                    note(&status, &self.request_id, &self.path);
                    return Opening::Refused(status);
                }
                // Asked once, it must not be asked again.
                self.running = Running(tokio::spawn(async { Ok(Bytes::new()) }));
            }
            Err(_) => {}
        }
        Opening::Open(self)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        let message = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.answers.poll_next(cx)),
        };
        match message {
            Some(message) => {
                let framed = self.wire.message(&self.output, message)?;
                Poll::Ready(budget::cover(&self.budget, framed).map(Some))
            }
            None => self.running.poll(cx).map_ok(|()| None),
        }
    }

    fn end(&mut self, status: Option<&Status>) -> Option<Frame<Bytes>> {
        self.ended = true;
        if let Some(status) = status {
            note(status, &self.request_id, &self.path);
        }
        if let Wire::Grpc { .. } = self.wire {
            let mut trailers = HeaderMap::with_capacity(2);
            let ok = Status::new(Code::Ok, "");
            error::grpc_trailers(status.unwrap_or(&ok), &mut trailers);
            return Some(Frame::trailers(trailers));
        }
        let end = self.wire.end(status);
        (!end.is_empty()).then(|| Frame::data(end))
    }
}

impl http_body::Body for StreamedAnswer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = match this.poll_message(cx) {
            Poll::Ready(Ok(Some(message))) => Some(Frame::data(message)),
            Poll::Ready(Ok(None)) => this.end(None),
            Poll::Ready(Err(status)) => {
                this.running.0.abort();
                this.end(Some(&status))
            }
            Poll::Pending => {
                let Some(comments) = &mut this.comments else { return Poll::Pending };
                ready!(comments.poll_tick(cx));
                Some(Frame::data(Bytes::from_static(b":\n\n")))
            }
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Logs what its caller cannot have caused.
pub fn note(status: &Status, request_id: &str, path: &str) {
    if matches!(status.code, Code::Internal | Code::Unknown | Code::DataLoss) {
        let (code, reason) = (status.code.name(), &*status.message);
        tracing::warn!(request_id, path, code, reason, "a call failed");
    }
}
