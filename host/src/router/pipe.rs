//! Many calls in one HTTP/2 stream.
//!
//! A stream of its own for each call costs both sides more processor time than the call itself. So each
//! connection has one stream, `/calls`, for calls of at most [`limits::PEER_SMALL_BYTES`]; larger ones have a
//! stream each, and hold nobody up. What is to be sent gathers while the network is busy and leaves in one
//! piece. HTTP/2's windows bound what is on its way.
//!
//! A frame is its length (4 bytes, of what follows), a number that the caller chose (8 bytes), a
//! [`Kind`] (1 byte), and a body; integers are big-endian. Answers come in any order.

mod client;
mod server;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body, Frame as HttpFrame};
use tokio::sync::mpsc;

pub use client::Pipe;
pub use server::serve;

use crate::router::body::Pieces;
use crate::router::wire::Refusal;
use crate::words::budget::{self, Budget, Kept};
use crate::words::limits;

const LENGTH_BYTES: usize = 4;
const NUMBER_BYTES: usize = 8;
const PREFIX_BYTES: usize = NUMBER_BYTES + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A [`CallHead`](super::wire::CallHead) with its length before it, then the payload.
    Call = 1,
    /// Nobody waits for the answer any more.
    Cancel = 2,
    Reply = 3,
    /// A [`Refusal`].
    Refused = 4,
    /// A [`NotMine`](super::wire::NotMine).
    NotMine = 5,
    /// The node ends: what was sent is answered, and nothing more may be sent.
    Goodbye = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        let all =
            [Self::Call, Self::Cancel, Self::Reply, Self::Refused, Self::NotMine, Self::Goodbye];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Whether it counts while it waits. The others are empty, and follow on calls that were sent.
    fn counts(self) -> bool {
        !matches!(self, Self::Cancel | Self::Goodbye)
    }
}

/// A frame that waits to be sent.
struct Outgoing {
    number: u64,
    kind: Kind,
    body: Pieces,
}

impl Outgoing {
    fn empty(number: u64, kind: Kind) -> Self {
        Self { number, kind, body: Pieces::whole(Bytes::new()) }
    }
}

/// Where a [`Queue`] gets its frames from.
struct Frames {
    sender: mpsc::UnboundedSender<Outgoing>,
    waiting: Arc<AtomicUsize>,
}

impl Frames {
    fn send(&self, frame: Outgoing) {
        if frame.kind.counts() {
            self.waiting.fetch_add(1, Relaxed);
        }
        // Lost if the connection has ended; then nobody waits for it.
        let _ = self.sender.send(frame);
    }

    /// Calls, or answers, that have not left yet, also if nobody waits for them any more.
    fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

/// What waits to be sent, as a body that ends when nothing can come any more.
pub struct Queue {
    frames: mpsc::UnboundedReceiver<Outgoing>,
    waiting: Arc<AtomicUsize>,
    /// Of a frame whose beginning was sent: not copied, because it is large.
    rest: VecDeque<Bytes>,
}

impl Queue {
    fn new() -> (Frames, Self) {
        // Bounded by what waits: neither side lets a call in while that is PEER_CALLS_MAX. The calls in flight are
        // no bound, for a frame stays when its call is given up.
        let (sender, frames) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        let queue = Self { frames, waiting: waiting.clone(), rest: VecDeque::new() };
        (Frames { sender, waiting }, queue)
    }

    /// Adds a frame to a piece; none if nobody waits for it any more.
    fn put(&mut self, piece: &mut BytesMut, frame: Outgoing) {
        if frame.kind.counts() {
            self.waiting.fetch_sub(1, Relaxed);
        }
        let Some((first, second)) = frame.body.take() else { return };
        let length = PREFIX_BYTES + first.len() + second.len();
        piece.reserve(LENGTH_BYTES + PREFIX_BYTES);
        // Bodies are bounded far below it.
        piece.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        piece.put_u64(frame.number);
        piece.put_u8(frame.kind as u8);
        for part in [first, second] {
            match part.len() {
                0 => {}
                1..=limits::PEER_SMALL_BYTES if self.rest.is_empty() => {
                    piece.extend_from_slice(&part);
                }
                _ => self.rest.push_back(part),
            }
        }
    }
}

impl Body for Queue {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Bytes>, Infallible>>> {
        if let Some(rest) = self.rest.pop_front() {
            return Poll::Ready(Some(Ok(HttpFrame::data(rest))));
        }
        let mut piece = BytesMut::new();
        while piece.len() < limits::PEER_PIECE_BYTES && self.rest.is_empty() {
            let next = match piece.is_empty() {
                true => ready!(self.frames.poll_recv(cx)),
                false => match self.frames.poll_recv(cx) {
                    Poll::Ready(next) => next,
                    Poll::Pending => None,
                },
            };
            match next {
                Some(frame) => self.put(&mut piece, frame),
                None if piece.is_empty() => return Poll::Ready(None),
                None => break,
            }
        }
        Poll::Ready(Some(Ok(HttpFrame::data(piece.freeze()))))
    }
}

/// A frame that came.
struct Incoming {
    number: u64,
    kind: Kind,
    body: Bytes,
    /// By which a large body counts.
    kept: Option<Kept>,
}

/// Takes frames out of what arrives, however it is cut.
struct Splitter {
    arrived: BytesMut,
    bytes_max: usize,
    /// In which large bodies count.
    room: Option<Arc<Budget>>,
    /// Of the frame that is arriving.
    kept: Option<Kept>,
    /// What is to come of a frame for which there was no room.
    skipped: usize,
}

impl Splitter {
    fn new(bytes_max: usize, room: Option<Arc<Budget>>) -> Self {
        Self { arrived: BytesMut::new(), bytes_max, room, kept: None, skipped: 0 }
    }

    fn add(&mut self, data: &[u8]) {
        let skipped = self.skipped.min(data.len());
        self.skipped -= skipped;
        self.arrived.extend_from_slice(&data[skipped..]);
    }

    /// The next whole frame. An error is final.
    fn next(&mut self) -> Result<Option<Incoming>, String> {
        let Some(length) = self.arrived.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(PREFIX_BYTES..=PREFIX_BYTES + self.bytes_max).contains(&length) {
            return Err(format!("a frame has {length} bytes"));
        }
        if self.arrived.len() < LENGTH_BYTES + PREFIX_BYTES {
            return Ok(None);
        }
        if !self.has_room(length - PREFIX_BYTES) {
            return Ok(Some(self.skip(length)));
        }
        if self.arrived.len() < LENGTH_BYTES + length {
            self.arrived.reserve(LENGTH_BYTES + length - self.arrived.len());
            return Ok(None);
        }
        self.arrived.advance(LENGTH_BYTES);
        let number = self.arrived.get_u64();
        let kind = self.arrived.get_u8();
        let kind =
            Kind::of(kind).ok_or_else(|| format!("a frame is of the unknown kind {kind}"))?;
        let length = length - PREFIX_BYTES;
        // A small body would keep alive all that came with it.
        let body = match length <= limits::PEER_SMALL_BYTES {
            true => {
                let copy = Bytes::copy_from_slice(&self.arrived[..length]);
                self.arrived.advance(length);
                copy
            }
            false => self.arrived.split_to(length).freeze(),
        };
        Ok(Some(Incoming { number, kind, body, kept: self.kept.take() }))
    }

    /// A large body counts from when it is announced, which is when memory is taken for all of it.
    fn has_room(&mut self, bytes: usize) -> bool {
        let Some(room) = &self.room else { return true };
        if bytes <= limits::PEER_SMALL_BYTES || self.kept.is_some() {
            return true;
        }
        let mut kept = Kept::new(room.clone());
        let has_room = kept.resize(bytes).is_ok();
        self.kept = has_room.then_some(kept);
        has_room
    }

    /// What its call is told instead of the frame.
    fn skip(&mut self, length: usize) -> Incoming {
        self.arrived.advance(LENGTH_BYTES);
        let number = self.arrived.get_u64();
        let rest = length - NUMBER_BYTES;
        let arrived = rest.min(self.arrived.len());
        self.arrived.advance(arrived);
        self.skipped = rest - arrived;
        let body = Refusal::encode_status(&budget::too_many_answers());
        Incoming { number, kind: Kind::Refused, body, kept: None }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::words::Code;

    async fn sent(frames: Vec<Outgoing>) -> Vec<Bytes> {
        let (sender, mut queue) = Queue::new();
        for frame in frames {
            sender.send(frame);
        }
        drop(sender);
        let mut pieces = Vec::new();
        while let Some(piece) = queue.frame().await {
            pieces.push(piece.unwrap().into_data().unwrap());
        }
        pieces
    }

    fn reply(number: u64, body: impl Into<Bytes>) -> Outgoing {
        Outgoing { number, kind: Kind::Reply, body: Pieces::whole(body.into()) }
    }

    fn split(splitter: &mut Splitter, pieces: &[u8], step: usize) -> Vec<Incoming> {
        let mut frames = Vec::new();
        for part in pieces.chunks(step) {
            splitter.add(part);
            while let Some(frame) = splitter.next().unwrap() {
                frames.push(frame);
            }
        }
        assert!(splitter.arrived.is_empty());
        frames
    }

    #[tokio::test]
    async fn small_frames_leave_together_and_large_ones_are_not_copied() {
        let large = Bytes::from(vec![7; limits::PEER_SMALL_BYTES + 1]);
        let frames = vec![
            reply(1, "one"),
            Outgoing::empty(2, Kind::Cancel),
            reply(3, large.clone()),
            reply(4, ""),
        ];
        let pieces = sent(frames).await;
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        let all = pieces.concat();
        for step in [1, 3, 1_000, all.len()] {
            let expected = [
                (1, Kind::Reply, Bytes::from("one")),
                (2, Kind::Cancel, Bytes::new()),
                (3, Kind::Reply, large.clone()),
                (4, Kind::Reply, Bytes::new()),
            ];
            let mut splitter = Splitter::new(limits::PEER_ANSWER_BYTES_MAX, None);
            let frames = split(&mut splitter, &all, step).into_iter();
            let frames: Vec<_> =
                frames.map(|frame| (frame.number, frame.kind, frame.body)).collect();
            assert_eq!(frames, expected, "in steps of {step}");
        }
    }

    #[tokio::test]
    async fn a_large_answer_counts_and_one_without_room_says_that_its_command_was_run() {
        let large = Bytes::from(vec![7; limits::PEER_SMALL_BYTES + 1]);
        let frames = vec![reply(1, large.clone()), reply(2, large.clone()), reply(3, "three")];
        let all = sent(frames).await.concat();
        for step in [1, 1_000, all.len()] {
            let room = Some(Arc::new(Budget::new(large.len())));
            let mut splitter = Splitter::new(limits::PEER_ANSWER_BYTES_MAX, room);
            // What came first is let go, and there is room again.
            for _ in 0..2 {
                let frames = split(&mut splitter, &all, step);
                let kinds: Vec<_> = frames.iter().map(|frame| (frame.number, frame.kind)).collect();
                assert_eq!(kinds, [(1, Kind::Reply), (2, Kind::Refused), (3, Kind::Reply)]);
                assert!(frames[0].body == large && frames[2].body == "three");
                let status = Refusal::decode_status(frames[1].body.clone());
                assert_eq!((status.code, status.http_status()), (Code::Unknown, 503));
            }
        }
    }

    #[tokio::test]
    async fn a_frame_that_nobody_waits_for_is_not_sent() {
        let frame = reply(1, "one");
        let taken = frame.body.taken();
        assert!(taken.withdraw());
        assert_eq!(sent(vec![frame, reply(2, "two")]).await.len(), 1);
        assert!(taken.withdraw());
        let frame = reply(3, "three");
        let taken = frame.body.taken();
        sent(vec![frame]).await;
        assert!(!taken.withdraw());
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bytes in [
            &b"\0\0\0\x0812345678"[..],
            b"\xff\xff\xff\xff123456789",
            b"\0\0\0\x0012345678\x01",
            b"\0\0\0\x0912345678\x63",
        ] {
            let mut splitter = Splitter::new(100, None);
            splitter.add(bytes);
            assert!(splitter.next().is_err(), "{bytes:?}");
        }
        let mut splitter = Splitter::new(100, None);
        splitter.add(b"\0\0\0\x6e12345678\x01");
        assert!(splitter.next().is_err(), "one byte more than may be");
    }
}
