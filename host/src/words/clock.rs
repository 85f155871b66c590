//! Time. The only module that asks the operating system what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Monotonic time, for deadlines and ages.
pub use tokio::time::Instant;

pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}
