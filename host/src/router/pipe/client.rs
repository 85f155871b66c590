//! The calling side.

use std::collections::HashMap;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming as Arriving;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::router::body::{Pieces, Taken};
use crate::router::peers::{self, CallFailed};
use crate::router::pipe::{Frames, Incoming, Kind, Outgoing, Queue, Splitter};
use crate::router::{Answer, wire};
use crate::words::budget::{Budget, Kept};
use crate::words::limits;

/// Cheap to clone.
#[derive(Clone)]
pub struct Pipe(Arc<Mutex<State>>);

struct State {
    /// None: nothing can be sent any more.
    queue: Option<Frames>,
    /// A large answer counts until its call has it.
    waiting: HashMap<u64, oneshot::Sender<(Answer, Option<Kept>)>>,
    last: u64,
}

/// A call that waits for its answer.
struct Waiting<'a> {
    pipe: &'a Pipe,
    number: u64,
    taken: Taken,
    /// Taken out of those that wait.
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.pipe.0.lock();
        let was_waiting = state.waiting.remove(&self.number).is_some();
        if was_waiting
            && !self.taken.withdraw()
            && let Some(queue) = &state.queue
        {
            queue.send(Outgoing::empty(self.number, Kind::Cancel));
        }
    }
}

impl Pipe {
    /// What is to be sent, as the body of a request.
    pub fn new() -> (Self, Queue) {
        let (sender, queue) = Queue::new();
        let state = State { queue: Some(sender), waiting: HashMap::new(), last: 0 };
        (Self(Arc::new(Mutex::new(state))), queue)
    }

    /// Sends a call and waits for its answer. Gives the call back if the pipe takes none any more.
    pub async fn call(&self, body: Pieces) -> Result<Result<Answer, CallFailed>, Pieces> {
        let (answer, answered) = oneshot::channel();
        let taken = body.taken();
        let number = {
            let mut state = self.0.lock();
            let State { queue, waiting, last } = &mut *state;
            let Some(queue) = queue else { return Err(body) };
            if queue.waiting() >= limits::PEER_CALLS_MAX {
                return Ok(Err(CallFailed::Busy));
            }
            *last += 1;
            waiting.insert(*last, answer);
            queue.send(Outgoing { number: *last, kind: Kind::Call, body });
            *last
        };
        let mut waiting = Waiting { pipe: self, number, taken, is_over: false };
        let answer = answered.await;
        waiting.is_over = true;
        Ok(match answer {
            Ok((answer, _kept)) => Ok(answer),
            Err(_) if waiting.taken.withdraw() => {
                Err(CallFailed::NotSent("the connection broke before".into()))
            }
            Err(_) => Err(CallFailed::Broken("no answer came before it ended".into())),
        })
    }

    /// Reads answers until the other side sends no more. Then nobody waits any more.
    pub async fn read(self, mut arriving: Arriving, room: Arc<Budget>) {
        let mut splitter = Splitter::new(limits::PEER_ANSWER_BYTES_MAX, Some(room));
        while let Some(Ok(piece)) = arriving.frame().await {
            let Some(data) = piece.data_ref() else { continue };
            splitter.add(data);
            if let Err(reason) = self.take(&mut splitter) {
                tracing::warn!(reason, "a peer's answers make no sense; the calls are given up");
                break;
            }
        }
        self.close();
    }

    /// Nothing is sent and nobody waits any more.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.queue = None;
        state.waiting.clear();
    }

    fn take(&self, splitter: &mut Splitter) -> Result<(), String> {
        // One lock for all that came together.
        let mut state = self.0.lock();
        while let Some(Incoming { number, kind, body, kept }) = splitter.next()? {
            let answer = match kind {
                Kind::Reply => peers::read(wire::REPLY, body),
                Kind::Refused => peers::read(wire::REFUSED, body),
                Kind::NotMine => peers::read(wire::NOT_MINE, body),
                // The body ends once all that waits was sent.
                Kind::Goodbye => {
                    state.queue = None;
                    continue;
                }
                Kind::Call | Kind::Cancel => return Err(format!("a {kind:?} is no answer")),
            };
            if let Some(waiting) = state.waiting.remove(&number) {
                let _ = waiting.send((answer, kept));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;

    /// Whether a call, which is given up at once, is not let in.
    fn is_busy(pipe: &Pipe) -> bool {
        let call = pipe.call(Pieces::whole(Bytes::from_static(b"call")));
        matches!(call.now_or_never(), Some(Ok(Err(CallFailed::Busy))))
    }

    #[tokio::test]
    async fn calls_that_were_given_up_count_until_they_have_left_the_queue() {
        let (pipe, mut queue) = Pipe::new();
        for _ in 0..limits::PEER_CALLS_MAX {
            assert!(!is_busy(&pipe));
        }
        assert!(is_busy(&pipe));
        assert!(pipe.0.lock().waiting.is_empty());
        tokio::spawn(async move { queue.frame().await.is_some() });
        while is_busy(&pipe) {
            tokio::task::yield_now().await;
        }
    }
}
