//! Times and durations as protobuf writes them.

use std::time::Duration;

pub fn timestamp(unix_ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX),
        nanos: (unix_ms % 1_000) as i32 * 1_000_000,
    }
}

pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_become_nanoseconds() {
        let time = timestamp(1_700_000_000_123);
        assert_eq!((time.seconds, time.nanos), (1_700_000_000, 123_000_000));
        let short = duration(Duration::from_millis(1_500));
        assert_eq!((short.seconds, short.nanos), (1, 500_000_000));
    }
}
