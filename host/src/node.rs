//! Floor 9: a node, assembled in reading order.

use crate::words::config::Config;

/// Serves until it is told to stop. Returns an error if the node could not start, or stopped because
/// it could no longer do its work.
pub async fn run(_config: Config) -> anyhow::Result<()> {
    unreachable!()
}
