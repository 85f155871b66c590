//! What the bodies of a port's requests may take in memory, all together.
//!
//! The entities have a bound of their own, but it counts a command only once its body is complete.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::words::Status;

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
        Err(Status::resource_exhausted(
            "the requests that are arriving now are too large for the host to hold; try again later",
        ))
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

#[cfg(test)]
mod tests {
    use super::*;

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
