//! The addresses of members, kept on disk, so that a node finds its cluster again without seeds.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use crate::words::limits::MEMBERS_KEPT_MAX;

/// One address a line. Lines that are none are skipped, and without a file nobody is known.
pub fn load(path: &Path) -> BTreeSet<SocketAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).take(MEMBERS_KEPT_MAX).collect()
}

/// Whole or not at all. Not synced: losing it costs nothing but the need for a seed.
pub fn save(path: &Path, addresses: &BTreeSet<SocketAddr>) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = std::fs::File::create(&partial)?;
    for address in addresses.iter().take(MEMBERS_KEPT_MAX) {
        writeln!(file, "{address}")?;
    }
    drop(file);
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_and_rubbish_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members");
        assert!(load(&path).is_empty());
        let addresses: BTreeSet<SocketAddr> =
            ["127.0.0.1:1", "[::1]:2"].iter().map(|a| a.parse().unwrap()).collect();
        save(&path, &addresses).unwrap();
        assert_eq!(load(&path), addresses);
        std::fs::write(&path, "rubbish\n127.0.0.1:1\n\u{0}").unwrap();
        assert_eq!(load(&path).len(), 1);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(load(&path).is_empty());
    }
}
