//! A cluster as its users and operators meet it.

mod broken;
mod calls;
mod certificates;
mod deploy;
mod drain;
mod entities;
mod functions;
mod identity;
mod outsider;
mod settings;
mod start;
mod status;
mod stop;
mod versions;

use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_millis(50);

/// Waits until it is so; otherwise fails with what was seen last.
async fn until<S: std::fmt::Debug>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> S,
    is_so: impl Fn(&S) -> bool,
) -> S {
    let start = Instant::now();
    loop {
        let seen = look().await;
        if is_so(&seen) {
            return seen;
        }
        assert!(start.elapsed() < within, "{what}: not within {within:?}, but {seen:?}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}
