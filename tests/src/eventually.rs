//! Waiting for what a host does on its own.

use std::time::{Duration, Instant};

/// Ample for what takes milliseconds on an idle machine.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks again until there is what is waited for. An error says what there is instead.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) => assert!(start.elapsed() < WITHIN, "{what}: {instead}"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks again until it is this.
pub async fn becomes<T: PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: T,
    mut look: impl AsyncFnMut() -> T,
) {
    eventually(what, async || match look().await {
        found if found == wanted => Ok(()),
        found => Err(format!("it is {found:?}, not {wanted:?}")),
    })
    .await;
}
