//! What is going on in a connection: how a server knows that it is idle, or stuck in a header.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gateway::body::Body;
use crate::words::Status;
use crate::words::clock::{self, Instant};

/// Only counters, and only ever read by the task of the connection: relaxed ordering is enough.
pub struct Activity {
    since: Instant,
    in_flight: AtomicU32,
    /// Bytes have arrived that are not a request yet.
    partial: AtomicBool,
    /// When the newest request began, in milliseconds from `since`.
    newest_ms: AtomicU64,
}

impl Activity {
    /// A new connection owes its first request.
    pub fn new(since: Instant) -> Self {
        Self {
            since,
            in_flight: AtomicU32::new(0),
            partial: AtomicBool::new(true),
            newest_ms: AtomicU64::new(0),
        }
    }

    pub fn begin(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Relaxed);
        self.partial.store(false, Relaxed);
        self.newest_ms.store((clock::now() - self.since).as_millis() as u64, Relaxed);
        Busy(self.clone())
    }

    pub fn is_partial(&self) -> bool {
        self.partial.load(Relaxed)
    }

    /// Since when nothing new has happened; now, while a request is being answered.
    pub fn idle_since(&self, now: Instant) -> Instant {
        match self.in_flight.load(Relaxed) {
            0 => self.since + Duration::from_millis(self.newest_ms.load(Relaxed)),
            _ => now,
        }
    }
}

/// A request that is being answered.
pub struct Busy(Arc<Activity>);

impl Busy {
    /// The request goes on for as long as its answer does.
    pub fn cover(self, response: Response<Body>) -> Response<Body> {
        match response.body().is_stream() {
            true => response.map(|body| Body::new(Covered { body, _busy: self })),
            false => response,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

struct Covered {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Covered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Notices when an HTTP/1 request begins to arrive. HTTP/2 connections talk for other reasons too;
/// once they have said what they are, only their requests count.
pub struct WatchedIo<T> {
    io: T,
    activity: Arc<Activity>,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// So many bytes of HTTP/2's preface have come, and nothing else.
    Unknown {
        matched: usize,
    },
    Http1,
    Http2,
}

/// How the preface of HTTP/2 begins; no method of HTTP/1 begins like it.
const PREFACE: &[u8] = b"PRI";

impl<T> WatchedIo<T> {
    pub fn new(io: T, activity: Arc<Activity>) -> Self {
        Self { io, activity, version: Version::Unknown { matched: 0 } }
    }

    fn saw(&mut self, bytes: &[u8]) {
        if let Version::Unknown { matched } = self.version {
            // A client may send it byte by byte.
            let rest = &PREFACE[matched..];
            let seen = bytes.len().min(rest.len());
            self.version = match bytes[..seen] == rest[..seen] {
                false => Version::Http1,
                true if seen < rest.len() => Version::Unknown { matched: matched + seen },
                true => Version::Http2,
            };
            self.activity.partial.store(self.version != Version::Http2, Relaxed);
        } else if self.version == Version::Http1
            && !bytes.is_empty()
            && self.activity.in_flight.load(Relaxed) == 0
        {
            self.activity.partial.store(true, Relaxed);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.saw(&buf.filled()[before..]);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a header is still owed after these reads.
    fn is_partial(reads: &[&[u8]]) -> bool {
        let activity = Arc::new(Activity::new(clock::now()));
        let mut io = WatchedIo::new((), activity.clone());
        reads.iter().for_each(|bytes| io.saw(bytes));
        activity.is_partial()
    }

    #[test]
    fn http2_is_known_by_its_first_three_bytes_however_they_come() {
        assert!(!is_partial(&[b"PRI * HTTP/2.0\r\n"]));
        assert!(!is_partial(&[b"P", b"RI", b" * HTTP/2.0\r\n"]));
        assert!(!is_partial(&[b"PR", b"", b"I * H", b"TTP"]));
        assert!(is_partial(&[b"PR"]));
        assert!(is_partial(&[b"P", b"OST / HTTP/1.1\r\n"]));
        assert!(is_partial(&[b"PUT", b"PRI"]));
    }
}
