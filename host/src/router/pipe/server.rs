//! The called side.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming as Arriving;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::router::body::Pieces;
use crate::router::peers::written;
use crate::router::pipe::{Frames, Incoming, Kind, Outgoing, Queue, Splitter};
use crate::router::{Answer, wire};
use crate::words::budget::Budget;
use crate::words::{Status, limits};

/// Calls that are not answered yet. If the connection breaks, they end.
struct Calls {
    running: Mutex<HashMap<u64, AbortHandle>>,
    answers: Frames,
    unread: Arc<Budget>,
}

impl Calls {
    fn answer(&self, number: u64, answer: Answer) {
        let (status, body) = written(answer, &self.unread);
        let kind = match status {
            wire::REPLY => Kind::Reply,
            wire::NOT_MINE => Kind::NotMine,
            _ => Kind::Refused,
        };
        self.answers.send(Outgoing { number, kind, body: Pieces::whole(body) });
    }

    fn abort_all(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        running.into_values().for_each(|call| call.abort());
    }
}

/// Takes a call out at its end, however it ends.
struct Running {
    calls: Arc<Calls>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls.running.lock().remove(&self.number);
    }
}

/// Answers each call that arrives by `run`, until the other side sends no more or `shutdown` is cancelled and
/// what was sent before is answered. Returns the answers, as a body; they count as `unread` until they were sent.
pub fn serve<F>(
    arriving: Arriving,
    shutdown: CancellationToken,
    unread: Arc<Budget>,
    run: impl Fn(Bytes) -> F + Send + 'static,
) -> Queue
where
    F: Future<Output = Answer> + Send + 'static,
{
    let (answers, queue) = Queue::new();
    let calls = Arc::new(Calls { running: Mutex::default(), answers, unread });
    tokio::spawn(async move {
        if let Err(reason) = read(&calls, arriving, shutdown, run).await {
            tracing::debug!(reason, "a peer's calls ended");
            calls.abort_all();
        }
    });
    queue
}

async fn read<F>(
    calls: &Arc<Calls>,
    mut arriving: Arriving,
    shutdown: CancellationToken,
    run: impl Fn(Bytes) -> F,
) -> Result<(), String>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let largest = limits::PEER_SMALL_BYTES + limits::PEER_HEAD_BYTES_MAX;
    let mut splitter = Splitter::new(largest, None);
    let mut is_told = false;
    loop {
        let piece = tokio::select! {
            piece = arriving.frame() => piece,
            () = shutdown.cancelled(), if !is_told => {
                is_told = true;
                calls.answers.send(Outgoing::empty(0, Kind::Goodbye));
                continue;
            }
        };
        let Some(piece) = piece else { return Ok(()) };
        let piece = piece.map_err(|error| error.to_string())?;
        let Some(data) = piece.data_ref() else { continue };
        splitter.add(data);
        while let Some(frame) = splitter.next()? {
            take(calls, frame, &run)?;
        }
    }
}

fn take<F>(
    calls: &Arc<Calls>,
    Incoming { number, kind, body, .. }: Incoming,
    run: &impl Fn(Bytes) -> F,
) -> Result<(), String>
where
    F: Future<Output = Answer> + Send + 'static,
{
    // Held while a call is spawned, which takes itself out at its end.
    let mut running = calls.running.lock();
    match kind {
        Kind::Call if running.len() + calls.answers.waiting() >= limits::PEER_CALLS_MAX => {
            let status = Status::resource_exhausted(
                "as many calls of a node are in flight as may; nothing was changed, try again later",
            );
            calls.answer(number, Answer::Refused(status));
        }
        Kind::Call => {
            // Boxed: tokio moves what it runs several times, at its start and at its end.
            let (call, answer) = (Running { calls: calls.clone(), number }, Box::pin(run(body)));
            let call = tokio::spawn(async move {
                let answer = answer.await;
                call.calls.answer(number, answer);
            });
            running.insert(number, call.abort_handle());
        }
        Kind::Cancel => {
            let call = running.remove(&number);
            drop(running);
            if let Some(call) = call {
                call.abort();
            }
        }
        other => return Err(format!("a {other:?} is no call")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: usize) -> Incoming {
        Incoming { number: number as u64, kind: Kind::Call, body: Bytes::new(), kept: None }
    }

    fn calls(unread_max: usize) -> (Arc<Calls>, Queue) {
        let (answers, queue) = Queue::new();
        let unread = Arc::new(Budget::new(unread_max));
        (Arc::new(Calls { running: Mutex::default(), answers, unread }), queue)
    }

    #[tokio::test]
    async fn answers_that_wait_for_the_network_count_as_calls() {
        let (calls, mut queue) = calls(0);
        let run = |body| std::future::ready(Answer::Reply(body));
        for number in 0..limits::PEER_CALLS_MAX {
            take(&calls, call(number), &run).unwrap();
        }
        while !calls.running.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        take(&calls, call(limits::PEER_CALLS_MAX), &run).unwrap();
        let mut answered = Vec::new();
        while let Ok(frame) = queue.frames.try_recv() {
            answered.push((frame.number, frame.kind));
        }
        assert_eq!(answered.last(), Some(&(limits::PEER_CALLS_MAX as u64, Kind::Refused)));
    }

    #[test]
    fn large_answers_that_wait_for_the_network_share_their_room() {
        let (calls, mut queue) = calls(limits::SMALL_ANSWER_BYTES);
        for number in 0..2 {
            let reply = Bytes::from(vec![7; limits::SMALL_ANSWER_BYTES]);
            calls.answer(number, Answer::Reply(reply));
        }
        for kind in [Kind::Reply, Kind::Refused] {
            assert_eq!(queue.frames.try_recv().unwrap().kind, kind);
        }
    }
}
