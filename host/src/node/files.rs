//! Notices when the database's file is no longer where it was: what is written to it then would be
//! acknowledged and lost.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::words::limits;

/// A file and which one it was at the start.
pub struct Watched {
    path: PathBuf,
    inode: (u64, u64),
}

impl Watched {
    pub fn new(path: PathBuf) -> io::Result<Self> {
        let inode = inode(&path)?;
        Ok(Self { path, inode })
    }

    /// Returns when the path leads to another file, or to none, with a sentence that says so.
    pub async fn gone(&self) -> String {
        let mut tick = tokio::time::interval(limits::FILE_CHECK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // A stat of a file that is open takes a microsecond: not worth a thread.
            if let Some(reason) = self.check() {
                return reason;
            }
        }
    }

    fn check(&self) -> Option<String> {
        let path = self.path.display();
        match inode(&self.path) {
            Ok(inode) if inode == self.inode => None,
            Ok(_) => Some(format!("{path} was replaced while the node ran")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some(format!("{path} was removed while the node ran"))
            }
            // It may be a passing fault; commits tell if it is not.
            Err(error) => {
                tracing::warn!(%path, %error, "the journal's file cannot be looked at");
                None
            }
        }
    }
}

fn inode(path: &std::path::Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tells_a_removed_and_a_replaced_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stead.db");
        std::fs::write(&path, "first").unwrap();
        let watched = Watched::new(path.clone()).unwrap();
        assert_eq!(watched.check(), None);
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        assert!(watched.gone().await.contains("removed"));
        std::fs::write(&path, "second").unwrap();
        assert!(watched.gone().await.contains("replaced"));
    }
}
