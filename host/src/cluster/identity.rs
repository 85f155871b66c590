//! Who this node is: what its data directory remembers, and what tells this process from any other.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::cluster::ownership::Process;
use crate::journal::{OpenError, directory};
use crate::words::NodeId;

const FILE: &str = "node-id";
const FILE_NEW: &str = "node-id.new";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A UUID and a line's end.
const FILE_BYTES: u64 = 37;

/// Cheap to clone. Holds the exclusive lock of the data directory as long as any clone lives.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node: NodeId,
    pub process: Process,
    /// Which directory of which boot of which machine holds the node's data: who holds the lock of the
    /// same place knows that its predecessor is dead.
    pub place: [u8; 32],
    _lock: Arc<File>,
}

impl Identity {
    /// Locks the data directory, and reads `node-id` in it; a directory without one gets a random one.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let lock = directory::lock(data_dir)?;
        let other = |reason: String| OpenError::Other { path: data_dir.join(FILE), reason };
        let failed = |error: std::io::Error| other(error.to_string());
        let node = match read(&data_dir.join(FILE)) {
            Ok(text) => NodeId::parse(text.trim()).ok_or_else(|| OpenError::Corrupt {
                path: data_dir.join(FILE),
                reason: "it is no UUID".into(),
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let node = NodeId(random().map_err(other)?);
                write(data_dir, node).map_err(failed)?;
                node
            }
            Err(error) => return Err(failed(error)),
        };
        let process = Process(random().map_err(other)?);
        let place = place(&lock).map_err(failed)?;
        Ok(Self { node, process, place, _lock: Arc::new(lock) })
    }
}

fn random() -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    filled.map_err(|error| format!("the operating system gives no random bytes: {error}"))?;
    Ok(bytes)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// The file is there as a whole or not at all, also after a crash.
fn write(data_dir: &Path, node: NodeId) -> std::io::Result<()> {
    let new = data_dir.join(FILE_NEW);
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
    let mut file = options.open(&new)?;
    writeln!(file, "{node}")?;
    file.sync_all()?;
    std::fs::rename(&new, data_dir.join(FILE))?;
    File::open(data_dir)?.sync_all()
}

fn place(lock: &File) -> std::io::Result<[u8; 32]> {
    let metadata = lock.metadata()?;
    let mut hash = Sha256::new();
    hash.update(std::fs::read(BOOT_ID)?);
    hash.update(metadata.dev().to_le_bytes());
    hash.update(metadata.ino().to_le_bytes());
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_node_id_and_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path()).unwrap();
        let refused = Identity::open(dir.path());
        assert!(matches!(refused, Err(OpenError::InUse { .. })), "{refused:?}");
        let (node, process, place) = (first.node, first.process, first.place);
        drop(first);
        let second = Identity::open(dir.path()).unwrap();
        assert_eq!((second.node, second.place), (node, place));
        assert_ne!(second.process, process);
    }

    #[test]
    fn a_copied_directory_is_another_place() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Identity::open(here.path()).unwrap();
        std::fs::copy(here.path().join(FILE), there.path().join(FILE)).unwrap();
        let second = Identity::open(there.path()).unwrap();
        assert_eq!(first.node, second.node);
        assert_ne!(first.place, second.place);
    }

    #[test]
    fn a_damaged_node_id_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "0123").unwrap();
        let refused = Identity::open(dir.path());
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{refused:?}");
    }
}
