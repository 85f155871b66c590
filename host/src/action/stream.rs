//! The two directions of a stream, with backpressure: what the guest has not asked for stays with the
//! client, and a guest that sends faster than its client reads waits.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::words::{Status, limits};

/// The messages of a streamed request, read when they are asked for.
pub trait Messages: Send {
    /// None at the end. After an error nothing more comes. MUST be safe to drop before it is ready, and
    /// to call again.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Status>>>;
}

pub type Input = Box<dyn Messages>;

/// Where the messages of a streamed answer go.
pub struct Output {
    messages: mpsc::Sender<Sent>,
    room: Arc<Semaphore>,
}

/// The other end of an [`Output`]. When it is dropped, the call is cancelled.
pub struct Answers {
    messages: mpsc::Receiver<Sent>,
}

/// A message on its way, and the room that it takes.
type Sent = (Bytes, OwnedSemaphorePermit);

/// At most [`limits::STREAM_MESSAGES_MAX`] messages and [`limits::STREAM_BYTES_MAX`] bytes are between
/// the two, or one message that is larger.
pub fn channel() -> (Output, Answers) {
    let (sender, receiver) = mpsc::channel(limits::STREAM_MESSAGES_MAX);
    let room = Arc::new(Semaphore::new(limits::STREAM_BYTES_MAX));
    (Output { messages: sender, room }, Answers { messages: receiver })
}

/// Nobody reads any more.
pub struct Closed;

impl Output {
    /// Waits until there is room.
    pub async fn send(&self, message: Bytes) -> Result<(), Closed> {
        let bytes = message.len().clamp(1, limits::STREAM_BYTES_MAX) as u32;
        let room = self.room.clone().acquire_many_owned(bytes);
        let taken = tokio::select! {
            taken = room => taken.map_err(|_| Closed)?,
            () = self.messages.closed() => return Err(Closed),
        };
        self.messages.send((message, taken)).await.map_err(|_| Closed)
    }
}

impl Answers {
    /// None when nothing more will be sent.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.messages.poll_recv(cx).map(|sent| sent.map(|(message, _)| message))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// How many messages of this size are taken before the sender has to wait.
    async fn taken(bytes: usize) -> usize {
        let (output, _answers) = channel();
        let mut taken = 0;
        while let Ok(Ok(())) =
            tokio::time::timeout(Duration::from_secs(1), output.send(vec![0; bytes].into())).await
        {
            taken += 1;
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_waits_when_so_many_messages_or_bytes_are_unread() {
        assert_eq!(taken(10).await, limits::STREAM_MESSAGES_MAX);
        assert_eq!(taken(limits::STREAM_BYTES_MAX / 2).await, 2);
        assert_eq!(taken(limits::REPLY_BYTES_MAX).await, 1);
    }

    #[tokio::test]
    async fn what_was_read_makes_room() {
        let (output, mut answers) = channel();
        let sender = tokio::spawn(async move {
            for number in 0..100_u8 {
                output.send(vec![number; limits::STREAM_BYTES_MAX].into()).await.ok()?;
            }
            Some(())
        });
        for number in 0..100_u8 {
            let message = poll_fn(|cx| answers.poll_next(cx)).await.expect("a message");
            assert_eq!(message[0], number);
        }
        assert!(poll_fn(|cx| answers.poll_next(cx)).await.is_none());
        sender.await.expect("no panic").expect("all were sent");
    }

    #[tokio::test]
    async fn a_sender_that_waits_learns_that_nobody_reads_any_more() {
        let (output, answers) = channel();
        output.send(vec![0; limits::STREAM_BYTES_MAX].into()).await.ok().expect("has room");
        let waiting = tokio::spawn(async move { output.send(Bytes::from_static(b"x")).await });
        drop(answers);
        assert!(waiting.await.expect("no panic").is_err());
    }
}
