//! The data directory: one process at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::journal::error::OpenError;

const LOCK: &str = "stead.lock";

/// Creates the directory if it is missing, and takes its lock. The system lets go of the lock when
/// the process ends, however it ends.
pub fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let not_writable = |error: std::io::Error| OpenError::NotWritable {
        path: data_dir.into(),
        reason: error.to_string(),
    };
    if !data_dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(not_writable)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(data_dir.join(LOCK))
        .map_err(not_writable)?;
    if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(not_writable(error.into()));
        }
        let mut pid = String::new();
        // The name of the other process is a courtesy: that there is one is certain.
        let _ = file.take(32).read_to_string(&mut pid);
        let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() };
        return Err(OpenError::InUse { path: data_dir.into(), pid: pid.into() });
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(not_writable)?;
    Ok(file)
}
