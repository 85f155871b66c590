//! Warnings of which there may be thousands a second: some of each are told, the others counted.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::words::clock::Instant;
use crate::words::limits::{SPARING_SUBJECTS_MAX, WARNINGS_COUNTED_FOR, WARNINGS_TOLD_MAX};

/// By what they are about, such as a service.
#[derive(Default)]
pub struct Sparing(Mutex<HashMap<Arc<str>, Told>>);

struct Told {
    since: Instant,
    count: u32,
    left_out: u64,
}

impl Sparing {
    /// Whether to tell one more, and if so how many were left out since the last one that was told.
    pub fn tell(&self, about: &Arc<str>, now: Instant) -> Option<u64> {
        let mut subjects = self.0.lock();
        if subjects.len() >= SPARING_SUBJECTS_MAX && !subjects.contains_key(about) {
            // What was left out of those is not told: better than to grow.
            subjects
                .retain(|_, told| now.saturating_duration_since(told.since) < WARNINGS_COUNTED_FOR);
            if subjects.len() >= SPARING_SUBJECTS_MAX {
                return None;
            }
        }
        let fresh = || Told { since: now, count: 0, left_out: 0 };
        let told = subjects.entry(about.clone()).or_insert_with(fresh);
        if now.saturating_duration_since(told.since) >= WARNINGS_COUNTED_FOR {
            (told.since, told.count) = (now, 0);
        }
        if told.count >= WARNINGS_TOLD_MAX {
            told.left_out += 1;
            return None;
        }
        told.count += 1;
        Some(std::mem::take(&mut told.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::clock;

    #[test]
    fn so_many_a_second_are_told_and_the_others_counted() {
        let (sparing, start) = (Sparing::default(), clock::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for _ in 0..WARNINGS_TOLD_MAX {
            assert_eq!(sparing.tell(&a, start), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(sparing.tell(&a, start + WARNINGS_COUNTED_FOR / 2), None);
        }
        assert_eq!(sparing.tell(&b, start), Some(0));
        assert_eq!(sparing.tell(&a, start + WARNINGS_COUNTED_FOR), Some(1_000));
        assert_eq!(sparing.tell(&a, start + WARNINGS_COUNTED_FOR), Some(0));
    }

    #[test]
    fn many_subjects_make_way_for_others_after_their_second() {
        let (sparing, start) = (Sparing::default(), clock::now());
        let about = |n: usize| Arc::from(n.to_string());
        for n in 0..SPARING_SUBJECTS_MAX {
            assert_eq!(sparing.tell(&about(n), start), Some(0));
        }
        assert_eq!(sparing.tell(&about(SPARING_SUBJECTS_MAX), start), None);
        assert_eq!(
            sparing.tell(&about(SPARING_SUBJECTS_MAX), start + WARNINGS_COUNTED_FOR),
            Some(0)
        );
        assert_eq!(sparing.0.lock().len(), 1);
    }
}
