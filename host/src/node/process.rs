//! What a node asks of the operating system: its signals, its file descriptors, its directory.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop a node.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal is gone. Nothing is reloaded by it.
    ///
    /// None: whoever started the node, such as nohup, has it outlive the terminal.
    hang_up: Option<Signal>,
}

impl Signals {
    pub fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be received");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: match is_ignored(SignalKind::hangup()) {
                true => None,
                false => Some(listen(SignalKind::hangup())?),
            },
        })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            Some(()) = hung_up(&mut self.hang_up) => "SIGHUP",
            else => std::future::pending().await,
        }
    }
}

async fn hung_up(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// As the process was started. False where the system does not tell.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal.as_raw_value() - 1)) != 0)
}

/// Ends the process without another look at anything: what was acknowledged is on disk.
pub fn exit_now(reason: &str) -> ! {
    tracing::warn!("{reason}");
    std::process::exit(1)
}

/// Many connections need many file descriptors; the soft limit is often 1024.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(files = ?limit.maximum, "open files allowed"),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
        }
    }
}

/// Creates the data directory for this user only, unless it exists.
pub fn create_data_dir(path: &Path) -> anyhow::Result<()> {
    match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        // Of a file, or of one on the way.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory
            ) =>
        {
            bail!("{} is not a directory; choose another with --data", path.display())
        }
        Err(error) => {
            bail!(
                "data directory {} cannot be created: {error}; choose another with --data",
                path.display()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_created_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_data_dir(&path).unwrap();
        create_data_dir(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_the_place_of_the_data_directory_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, "").unwrap();
        let error = create_data_dir(&path).unwrap_err().to_string();
        assert!(error.ends_with("data is not a directory; choose another with --data"), "{error}");
        assert!(create_data_dir(&path.join("inner")).is_err());
    }

    #[test]
    fn the_limit_of_open_files_becomes_the_hard_one() {
        raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
