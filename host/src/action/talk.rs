//! What a guest asks for while it runs.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::action::{Inner, Input, Output, Request};
use crate::wasm::{Answer, Call, Conversation, Effect, Gone, Rejection};
use crate::words::{Code, Status, clock, limits};

/// The conversation of one call.
pub(super) struct Talk {
    pub(super) actions: Arc<Inner>,
    pub(super) request: Arc<Request>,
    pub(super) input: Option<Input>,
    pub(super) output: Option<Arc<Output>>,
    /// Why the stream cannot go on, for the caller; the guest learns only that it is gone.
    pub(super) broken: Arc<parking_lot::Mutex<Option<Status>>>,
}

impl Conversation for Talk {
    fn receive(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Gone>> {
        async {
            let Some(input) = &mut self.input else { return Ok(None) };
            let idle = clock::now() + limits::STREAM_IDLE_MAX;
            let until = idle.min(self.request.deadline);
            match tokio::time::timeout_at(until, input.next()).await {
                Ok(Some(Ok(message))) => {
                    self.actions.metrics.stream_messages_in.inc();
                    Ok(Some(message))
                }
                Ok(Some(Err(status))) => {
                    self.input = None;
                    Err(self.gone(status))
                }
                Ok(None) => {
                    self.input = None;
                    Ok(None)
                }
                Err(_) if clock::now() >= self.request.deadline => Err(Gone::DeadlineExceeded),
                Err(_) => {
                    self.input = None;
                    Err(self.gone(idle_for("sent nothing")))
                }
            }
        }
        .boxed()
    }

    fn send(
        &mut self,
        answer: Answer,
        effects: Vec<Effect>,
    ) -> BoxFuture<'_, Result<Result<(), Gone>, String>> {
        async move {
            let Some(output) = self.output.clone() else {
                return Err(format!(
                    "{} sent a message of a streamed answer, but does not stream its answer",
                    self.request.method.path
                ));
            };
            self.actions.perform(&self.request, effects).await;
            let message = match answer {
                Answer::None => return Ok(Ok(())),
                Answer::Reply(reply) => reply,
                Answer::Forward(call) => match self.actions.forward(&self.request, call).await {
                    Ok(reply) => reply,
                    // It ends the stream: the message that should have been there is not.
                    Err(status) => return Ok(Err(self.gone(status))),
                },
            };
            self.request.method.response.check(&message)?;
            let until = (clock::now() + limits::STREAM_IDLE_MAX).min(self.request.deadline);
            match tokio::time::timeout_at(until, output.send(message)).await {
                Ok(Ok(())) => {
                    self.actions.metrics.stream_messages_out.inc();
                    Ok(Ok(()))
                }
                Ok(Err(_)) => Ok(Err(Gone::Cancelled)),
                Err(_) if clock::now() >= self.request.deadline => Ok(Err(Gone::DeadlineExceeded)),
                Err(_) => Ok(Err(self.gone(idle_for("read nothing")))),
            }
        }
        .boxed()
    }

    fn call(&mut self, call: Call) -> BoxFuture<'_, Result<Bytes, Rejection>> {
        async move {
            let deadline = self.request.deadline;
            let called = self.actions.out(&self.request, call, Vec::new(), deadline).await;
            called.map_err(|status| Rejection {
                code: status.code,
                message: status.message,
                details: status.details,
            })
        }
        .boxed()
    }
}

impl Talk {
    fn gone(&self, status: Status) -> Gone {
        let gone = match status.code {
            Code::DeadlineExceeded => Gone::DeadlineExceeded,
            _ => Gone::Cancelled,
        };
        self.broken.lock().get_or_insert(status);
        gone
    }
}

fn idle_for(what: &str) -> Status {
    let seconds = limits::STREAM_IDLE_MAX.as_secs();
    Status::new(Code::Cancelled, format!("the client {what} for {seconds} seconds"))
}
