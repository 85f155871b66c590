//! What the bodies of a port's requests, and those of its answers, may take in memory, all together.
//!
//! The entities have a bound of their own, but it counts a command only from when its body is
//! complete until it is answered. A client that reads its answers slowly, or not at all, holds them
//! for longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use crate::words::{Code, Status, limits};

/// On cache lines of its own: every request with a body writes to it.
#[repr(align(128))]
pub struct Budget {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max }
    }

    pub fn hold(&self) -> Held<'_> {
        Held { budget: self, bytes: 0 }
    }
}

/// The bytes that one request holds, until it is answered.
pub struct Held<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Held<'_> {
    /// Counts further bytes, unless there are too many of them.
    pub fn add(&mut self, bytes: usize) -> Result<(), Status> {
        let before = self.budget.bytes.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        if before.saturating_add(bytes) <= self.budget.bytes_max {
            return Ok(());
        }
        self.release();
        Err(too_much())
    }

    pub fn release(&mut self) {
        match std::mem::take(&mut self.bytes) {
            0 => {}
            bytes => _ = self.budget.bytes.fetch_sub(bytes, Relaxed),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

/// The same for somebody who outlives the budget's borrow: a stream.
pub struct Kept {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Kept {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Counts so many bytes instead of those before, unless there are too many of them.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Status> {
        if bytes <= self.bytes {
            self.budget.bytes.fetch_sub(self.bytes - bytes, Relaxed);
            self.bytes = bytes;
            return Ok(());
        }
        let more = bytes - self.bytes;
        let before = self.budget.bytes.fetch_add(more, Relaxed);
        self.bytes = bytes;
        if before.saturating_add(more) <= self.budget.bytes_max {
            return Ok(());
        }
        Err(too_much())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

fn too_much() -> Status {
    Status::resource_exhausted(
        "the requests that are arriving now are too large for the host to hold; try again later",
    )
}

/// Bytes of an answer, counted for as long as anybody holds them: the response, hyper's buffers.
struct Counted {
    bytes: Bytes,
    budget: Arc<Budget>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes.len(), Relaxed);
    }
}

/// Counts an answer until it has been sent, unless there are too many of them. Small ones are left
/// out: the bounds on connections and streams are enough for them.
pub fn cover(budget: &Arc<Budget>, bytes: Bytes) -> Result<Bytes, Status> {
    if bytes.len() < limits::SMALL_ANSWER_BYTES {
        return Ok(bytes);
    }
    let before = budget.bytes.fetch_add(bytes.len(), Relaxed);
    let counted = Counted { bytes, budget: budget.clone() };
    if before.saturating_add(counted.bytes.len()) <= budget.bytes_max {
        return Ok(Bytes::from_owner(counted));
    }
    Err(too_many_answers())
}

/// Not RESOURCE_EXHAUSTED, which promises that nothing was stored.
pub fn too_many_answers() -> Status {
    Status::new(
        Code::Unknown,
        "too many answers wait to be read; the command was run, so retry it only with its idempotency \
         key",
    )
    .with_http(503)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_its_last_holder_lets_go() {
        let size = limits::SMALL_ANSWER_BYTES;
        let budget = Arc::new(Budget::new(size));
        let answer = || Bytes::from(vec![0; size]);
        let held = cover(&budget, answer()).unwrap();
        let part = held.slice(1..2);
        drop(held);
        assert_eq!(cover(&budget, answer()).unwrap_err().http_status(), 503);
        cover(&budget, Bytes::from_static(b"small")).unwrap();
        drop(part);
        cover(&budget, answer()).unwrap();
    }

    #[test]
    fn what_is_held_comes_back() {
        let budget = Budget::new(10);
        let mut first = budget.hold();
        first.add(4).unwrap();
        first.add(4).unwrap();
        let mut second = budget.hold();
        second.add(2).unwrap();
        assert_eq!(second.add(1).unwrap_err().http_status(), 429);
        drop(second);
        first.add(2).unwrap();
        drop(first);
        budget.hold().add(10).unwrap();
    }
}
