//! Bodies of requests between nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use prost::encoding::encode_varint;

use crate::words::{Status, limits};

/// A head and a payload, in one piece if they are small, else in two, and not copied.
pub struct Pieces {
    first: Bytes,
    second_bytes: usize,
    taken: Taken,
}

/// Tells whether a body was given to the network as a whole. If not, nobody can have acted on it.
#[derive(Clone, Default)]
pub struct Taken(Arc<Fate>);

#[derive(Default)]
struct Fate {
    state: AtomicU8,
    /// The second piece. It goes when the body is withdrawn, for the first may wait for the network much longer.
    second: Mutex<Bytes>,
}

const WAITS: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Taken {
    fn of(second: Bytes) -> Self {
        Self(Arc::new(Fate { state: AtomicU8::new(WAITS), second: Mutex::new(second) }))
    }

    /// Keeps a body from being taken as a whole. False if it was already.
    pub fn withdraw(&self) -> bool {
        let was = self.leave(WITHDRAWN);
        if was == WAITS {
            drop(self.second());
        }
        was != TAKEN
    }

    /// For the one who took or withdrew the body.
    fn second(&self) -> Bytes {
        std::mem::take(&mut *self.0.second.lock())
    }

    /// What it was before, if it did not wait.
    fn leave(&self, to: u8) -> u8 {
        match self.0.state.compare_exchange(WAITS, to, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(was) | Err(was) => was,
        }
    }
}

/// Withdraws a body once nobody waits for the answer.
pub struct Waiter(pub Taken);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

impl Pieces {
    /// `head` without its length.
    pub fn framed(head: &[u8], payload: Bytes) -> Self {
        let room = head.len() + 5;
        let small = room + payload.len() <= limits::PEER_SMALL_BYTES;
        let mut first = BytesMut::with_capacity(room + if small { payload.len() } else { 0 });
        encode_varint(head.len() as u64, &mut first);
        first.put_slice(head);
        let second = match small {
            true => {
                first.put_slice(&payload);
                Bytes::new()
            }
            false => payload,
        };
        Self { first: first.freeze(), second_bytes: second.len(), taken: Taken::of(second) }
    }

    pub fn whole(body: Bytes) -> Self {
        Self { first: body, second_bytes: 0, taken: Taken::default() }
    }

    pub fn taken(&self) -> Taken {
        self.taken.clone()
    }

    /// In one piece.
    pub fn is_small(&self) -> bool {
        self.second_bytes == 0 && self.first.len() <= limits::PEER_SMALL_BYTES
    }

    /// Both pieces, to be sent at once; none if it was withdrawn.
    pub fn take(mut self) -> Option<(Bytes, Bytes)> {
        if self.taken.leave(TAKEN) == WITHDRAWN {
            return None;
        }
        let second = self.second();
        Some((self.first, second))
    }

    /// Without a lock for most bodies, which have none.
    fn second(&mut self) -> Bytes {
        match std::mem::take(&mut self.second_bytes) {
            0 => Bytes::new(),
            _ => self.taken.second(),
        }
    }
}

/// Nobody waits for the answer any more, and its caller may have been told that the call was not sent.
#[derive(Debug, thiserror::Error)]
#[error("the call was given up")]
pub struct Withdrawn;

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let is_last = self.first.is_empty() || self.second_bytes == 0;
        if is_last && self.taken.leave(TAKEN) == WITHDRAWN {
            return Poll::Ready(Some(Err(Withdrawn)));
        }
        let piece = match self.first.is_empty() {
            false => std::mem::take(&mut self.first),
            true => self.second(),
        };
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.second_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.first.len() + self.second_bytes) as u64)
    }
}

/// Why a body is not there.
#[derive(Debug)]
pub enum Unread {
    Broken(hyper::Error),
    TooLarge,
    /// The budget says so.
    Refused(Status),
}

/// A whole body, up to a bound. `count` hears of each piece before it is kept.
pub async fn collect(
    mut body: Incoming,
    bytes_max: usize,
    mut count: impl FnMut(usize) -> Result<(), Status>,
) -> Result<Bytes, Unread> {
    // Most bodies come in one piece, which is then passed on as it is.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(piece) = body.frame().await {
        let Ok(data) = piece.map_err(Unread::Broken)?.into_data() else { continue };
        if first.len().max(all.len()) + data.len() > bytes_max {
            return Err(Unread::TooLarge);
        }
        count(data.len()).map_err(Unread::Refused)?;
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(first.len() + data.len());
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_one_and_in_two() -> [Pieces; 2] {
        [1, limits::PEER_SMALL_BYTES + 1]
            .map(|bytes| Pieces::framed(b"head", Bytes::from(vec![7; bytes])))
    }

    #[tokio::test]
    async fn a_body_that_was_withdrawn_does_not_arrive_whole() {
        for mut body in in_one_and_in_two() {
            let taken = body.taken();
            if !body.is_small() {
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "\x04head");
            }
            assert!(taken.withdraw());
            assert!(body.frame().await.unwrap().is_err());
            assert!(taken.withdraw());
        }
    }

    #[tokio::test]
    async fn a_body_that_was_taken_is_not_withdrawn() {
        for body in in_one_and_in_two() {
            let taken = body.taken();
            body.collect().await.unwrap();
            assert!(!taken.withdraw());
        }
    }

    #[test]
    fn a_body_that_nobody_waits_for_holds_no_large_payload() {
        let payload = Bytes::from(vec![7; limits::PEER_SMALL_BYTES + 1]);
        let body = Pieces::framed(b"head", payload.clone());
        assert!(!payload.is_unique());
        drop(Waiter(body.taken()));
        assert!(payload.is_unique());
        assert!(body.take().is_none());
    }
}
