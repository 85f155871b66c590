//! Sizes, times and durations as people read and write them.

use std::time::Duration;

const STEPS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// `1.5 MiB`
pub fn size(bytes: u64) -> String {
    for (unit, step) in STEPS {
        if bytes >= step {
            let value = bytes as f64 / step as f64;
            return if value >= 100.0 || bytes.is_multiple_of(step) {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

/// `2026-11-21T19:42:50.123Z`
pub fn time(unix_ms: u64) -> String {
    let seconds = (unix_ms / 1_000) as i64;
    let nanos = ((unix_ms % 1_000) * 1_000_000) as i32;
    prost_types::Timestamp { seconds, nanos }.to_string()
}

/// Reads `500ms`, `5s`, `2m` or a number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write 500ms, 5s or 2m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1_000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err(wrong()),
    };
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration.is_zero() {
        return Err("a duration must be longer than nothing".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_for_people() {
        let sizes = [0, 1023, 1024, 1536, 5 << 20, (5 << 20) + 1, 300 << 30].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "5 MiB", "5.0 MiB", "300 GiB"]);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
    }

    #[test]
    fn durations_take_a_unit_and_refuse_nonsense() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "5 parsecs", "-1s", "0s", "1e400s", "NaN"] {
            assert!(parse_duration(text).is_err(), "{text:?} was taken");
        }
    }
}
