//! Through which functions a call came.

use std::fmt;
use std::sync::Arc;

use crate::words::Status;
use crate::words::limits::{CALL_HOPS_MAX, CALL_TRAIL_BYTES_MAX};

/// How many functions a call came through, and the newest of their names. Cheap to make and to clone for a
/// call that comes from a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    hops: u32,
    /// Oldest first; at most [`CALL_HOPS_MAX`] + 1 of them, and [`CALL_TRAIL_BYTES_MAX`] bytes in all.
    names: Vec<Arc<str>>,
}

impl Trail {
    /// As it comes from elsewhere. Whoever does not know the names leaves them out.
    pub fn of(hops: u32, names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<Arc<str>> = names.into_iter().map(Arc::from).collect();
        let mut trail = Self { hops, names };
        trail.bound(hops as usize);
        trail
    }

    /// That of a call that the function `path` makes.
    pub fn through(&self, path: &Arc<str>) -> Self {
        let mut names = Vec::with_capacity(self.names.len() + 1);
        names.extend_from_slice(&self.names);
        names.push(path.clone());
        let mut trail = Self { hops: self.hops.saturating_add(1), names };
        trail.bound(CALL_HOPS_MAX as usize + 1);
        trail
    }

    pub fn hops(&self) -> u32 {
        self.hops
    }

    /// Oldest first. Fewer than there were hops, if the oldest ones are not known.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// FAILED_PRECONDITION with the whole way, if the call to `path` comes through too many functions.
    pub fn check(&self, path: &str) -> Result<(), Status> {
        if self.hops <= CALL_HOPS_MAX {
            return Ok(());
        }
        let path = &path[..path.floor_char_boundary(CALL_TRAIL_BYTES_MAX)];
        Err(Status::failed_precondition(format!(
            "the call went through {} functions, perhaps in a circle, and no more than {CALL_HOPS_MAX} may be \
             chained: {self} -> {path}",
            self.hops
        )))
    }

    /// The oldest names go first: a circle is seen from its newest ones.
    fn bound(&mut self, most: usize) {
        let most = most.min(CALL_HOPS_MAX as usize + 1);
        let mut bytes = 0;
        let fits = |name: &&Arc<str>| {
            bytes += name.len();
            bytes <= CALL_TRAIL_BYTES_MAX
        };
        let kept = self.names.iter().rev().take(most).take_while(fits).count();
        self.names.drain(..self.names.len() - kept);
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (self.names.len() as u64) < u64::from(self.hops) {
            f.write_str("..")?;
            if !self.names.is_empty() {
                f.write_str(" -> ")?;
            }
        }
        f.write_str(&self.names.join(" -> "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_names_its_functions_in_order() {
        let trail = Trail::default().through(&"/t.A/Do".into()).through(&"/t.B/Do".into());
        assert_eq!((trail.hops(), &*trail.to_string()), (2, "/t.A/Do -> /t.B/Do"));
        let names = trail.names().iter().map(|name| name.to_string());
        assert_eq!(Trail::of(trail.hops(), names), trail);
    }

    #[test]
    fn the_way_is_refused_one_function_above_the_limit_and_named() {
        let mut trail = Trail::default();
        for hop in 0..CALL_HOPS_MAX {
            trail = trail.through(&format!("/t.S/M{hop}").into());
        }
        assert_eq!(trail.check("/t.S/Last"), Ok(()));
        trail = trail.through(&"/t.S/Over".into());
        let message = trail.check("/t.S/Last").unwrap_err().message;
        assert!(message.contains(": /t.S/M0 -> /t.S/M1 -> "), "{message}");
        assert!(message.ends_with("/t.S/M15 -> /t.S/Over -> /t.S/Last"), "{message}");
    }

    #[test]
    fn names_that_are_not_known_are_left_out_and_shown_as_such() {
        let trail = Trail::of(3, []);
        assert_eq!(trail.to_string(), "..");
        assert_eq!(trail.through(&"/t.B/Do".into()).to_string(), ".. -> /t.B/Do");
    }

    #[test]
    fn nobody_can_make_a_trail_long() {
        let long = "x".repeat(CALL_TRAIL_BYTES_MAX / 3);
        let trail =
            Trail::of(9, std::iter::repeat_n(long.clone(), 9)).through(&long.clone().into());
        assert_eq!((trail.hops(), trail.names().len()), (10, 3));
        let too_long = "x".repeat(CALL_TRAIL_BYTES_MAX + 1);
        assert_eq!(Trail::of(1, [too_long]).to_string(), "..");
        let many = Trail::of(u32::MAX, std::iter::repeat_n("x".to_owned(), 1_000));
        assert_eq!(many.names().len(), CALL_HOPS_MAX as usize + 1);
        assert_eq!(many.through(&"y".into()).hops(), u32::MAX);
        assert_eq!(Trail::of(0, ["x".to_owned()]).names().len(), 0);
    }
}
