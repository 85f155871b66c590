//! The machine: toolchain, disk, limits and clock.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, StatVfs};
use rustix::process::Resource;

use crate::cli::doctor::Check;
use crate::cli::units;
use crate::words::{clock, limits};

const TARGET: &str = "wasm32-unknown-unknown";
const DISK_BYTES_LOW: u64 = 1 << 30;
const DISK_BYTES_MIN: u64 = 100 << 20;
const MEMORY_BYTES_LOW: u64 = 512 << 20;
/// Files, sockets and pipes beside the connections.
const FILES_BESIDE_CONNECTIONS: u64 = 1_000;
const YEAR_2025_MS: u64 = 1_735_689_600_000;
const YEAR_2100_MS: u64 = 4_102_444_800_000;

pub async fn toolchain() -> Check {
    const NAME: &str = "toolchain";
    let found = tokio::process::Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(limits::CLIENT_CONNECT_TIMEOUT, found).await {
        Ok(Ok(output)) if output.status.success() => output,
        _ => {
            return Check::warn(
                NAME,
                "no Rust toolchain; `stead build` needs one from https://rustup.rs",
            );
        }
    };
    let directory = String::from_utf8_lossy(&output.stdout);
    if Path::new(directory.trim()).exists() {
        return Check::ok(NAME, format!("rustc with {TARGET}, which `stead build` needs"));
    }
    Check::warn(NAME, format!("{TARGET} is missing; add it with `rustup target add {TARGET}`"))
}

pub fn data_directory(path: &Path) -> Vec<Check> {
    const NAME: &str = "data_directory";
    let shown = path.display();
    let exists = path.exists();
    let place = if exists { path } else { nearest_parent(path) };
    let mut checks = Vec::new();
    checks.push(if exists && !path.is_dir() {
        Check::fail(NAME, format!("{shown} is not a directory; choose another with --data"))
    } else if rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        Check::fail(
            NAME,
            format!("{} is not writable; choose another with --data", place.display()),
        )
    } else if exists {
        Check::ok(NAME, format!("{shown} is writable"))
    } else {
        Check::ok(NAME, format!("{shown} does not exist yet; `stead serve` creates it"))
    });
    if exists {
        checks.push(match lock_holder(path) {
            Some(pid) => Check::ok("data_lock", format!("{shown} is in use by process {pid}")),
            None => Check::ok("data_lock", format!("{shown} is not in use")),
        });
    }
    if let Ok(stat) = rustix::fs::statvfs(place) {
        checks.push(free_space(&stat));
    }
    #[cfg(target_os = "linux")]
    if let Ok(stat) = rustix::fs::statfs(place) {
        checks.push(file_system(stat.f_type as u64 & 0xffff_ffff));
    }
    checks
}

fn nearest_parent(path: &Path) -> &Path {
    let existing = path.ancestors().skip(1).find(|parent| parent.exists());
    existing.unwrap_or_else(|| Path::new("."))
}

fn free_space(stat: &StatVfs) -> Check {
    const NAME: &str = "disk_space";
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let message = format!("{} free", units::size(free));
    if free < DISK_BYTES_MIN {
        Check::fail(NAME, format!("only {message}; a full disk stops all writes"))
    } else if free < DISK_BYTES_LOW {
        Check::warn(
            NAME,
            format!("only {message}; journals grow, and a full disk stops all writes"),
        )
    } else {
        Check::ok(NAME, message)
    }
}

/// By the magic number of `statfs(2)`.
#[cfg(target_os = "linux")]
fn file_system(magic: u64) -> Check {
    const NAME: &str = "file_system";
    let network =
        |name| Check::warn(NAME, format!("{name}: locks and syncs may not hold; use a local disk"));
    match magic {
        0x0102_1994 => Check::warn(NAME, "tmpfs: the data is gone when the machine restarts"),
        0x794c_7630 => {
            Check::warn(NAME, "overlayfs: the data is gone with the container; mount a volume")
        }
        0x6969 => network("NFS"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => network("SMB"),
        0x0102_1997 => network("9p"),
        0x6573_5546 => network("FUSE"),
        0xef53 => Check::ok(NAME, "ext4"),
        0x5846_5342 => Check::ok(NAME, "XFS"),
        0x9123_683e => Check::ok(NAME, "Btrfs"),
        0x2fc1_2fc1 => Check::ok(NAME, "ZFS"),
        other => Check::ok(NAME, format!("type {other:#x}")),
    }
}

/// Which process holds a write lock on a file of the directory, as the kernel lists them.
fn lock_holder(directory: &Path) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let files = std::fs::read_dir(directory).ok()?;
    let inodes: Vec<u64> =
        files.flatten().filter_map(|file| Some(file.metadata().ok()?.ino())).collect();
    locks.lines().find_map(|line| {
        let (pid, inode) = write_lock(line)?;
        inodes.contains(&inode).then_some(pid)
    })
}

/// Reads `1: FLOCK  ADVISORY  WRITE 30580 fe:00:5996547 0 EOF`.
fn write_lock(line: &str) -> Option<(u32, u64)> {
    let mut words = line.split_whitespace().skip(3);
    if words.next()? != "WRITE" {
        return None;
    }
    let pid = words.next()?.parse().ok()?;
    let inode = words.next()?.rsplit(':').next()?.parse().ok()?;
    Some((pid, inode))
}

pub fn limits() -> Vec<Check> {
    let mut checks = vec![open_files(rustix::process::getrlimit(Resource::Nofile).maximum)];
    if let Some(available) = memory_available() {
        checks.push(memory(available));
    }
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/vm/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    if let Some(mode) = read("overcommit_memory") {
        checks.push(overcommit(mode));
    }
    if let Some(maps) = read("max_map_count") {
        checks.push(memory_maps(maps));
    }
    checks
}

/// The hard limit: a host raises its own to that.
fn open_files(limit: Option<u64>) -> Check {
    const NAME: &str = "open_files";
    let wanted = limits::CONNECTIONS_MAX as u64 + FILES_BESIDE_CONNECTIONS;
    match limit {
        Some(limit) if limit < wanted => Check::warn(
            NAME,
            format!(
                "at most {limit}; {} connections need {wanted}: raise the hard limit, as with `ulimit -Hn {wanted}`, before `stead serve`",
                limits::CONNECTIONS_MAX
            ),
        ),
        Some(limit) => Check::ok(NAME, format!("at most {limit}")),
        None => Check::ok(NAME, "unlimited"),
    }
}

fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn memory(available: u64) -> Check {
    const NAME: &str = "memory";
    let message = format!("{} available", units::size(available));
    if available < MEMORY_BYTES_LOW {
        return Check::warn(
            NAME,
            format!("only {message}; bound what entities use with `stead serve --hot-memory`"),
        );
    }
    Check::ok(NAME, message)
}

fn overcommit(mode: u64) -> Check {
    const NAME: &str = "overcommit";
    if mode == 2 {
        return Check::warn(
            NAME,
            "vm.overcommit_memory is 2: address space for hot entities may be refused; set it to 0 or 1",
        );
    }
    Check::ok(NAME, format!("vm.overcommit_memory is {mode}"))
}

fn memory_maps(count: u64) -> Check {
    const NAME: &str = "memory_maps";
    // The kernel's default, with which the host was measured.
    if count < 65_530 {
        return Check::warn(
            NAME,
            format!("vm.max_map_count is {count}; set it to 65530 or more for many hot entities"),
        );
    }
    Check::ok(NAME, format!("vm.max_map_count is {count}"))
}

pub fn clock() -> Check {
    judge_clock(clock::unix_ms())
}

fn judge_clock(now_ms: u64) -> Check {
    let shown = units::time(now_ms);
    if (YEAR_2025_MS..YEAR_2100_MS).contains(&now_ms) {
        return Check::ok("clock", shown);
    }
    Check::fail("clock", format!("the clock says {shown}; events would carry that time, set it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Outcome;

    #[test]
    fn lock_lines_of_the_kernel_are_read() {
        let line = "1: FLOCK  ADVISORY  WRITE 30580 fe:00:5996547 0 EOF";
        assert_eq!(write_lock(line), Some((30580, 5_996_547)));
        assert_eq!(write_lock("3: FLOCK  ADVISORY  READ 30564 fe:00:10133512 0 EOF"), None);
        assert_eq!(write_lock("1: -> FLOCK"), None);
        assert_eq!(write_lock(""), None);
    }

    #[test]
    fn the_holder_of_a_locked_directory_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(directory.path().join("lock")).unwrap();
        assert_eq!(lock_holder(directory.path()), None);
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        // Some sandboxes hide the list of locks.
        let listed = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        let inode = format!(":{} ", file.metadata().unwrap().ino());
        if listed.contains(&inode) {
            assert_eq!(lock_holder(directory.path()), Some(std::process::id()));
        }
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_judged_by_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        let checks = data_directory(&directory.path().join("a/b"));
        assert_eq!(checks[0].outcome, Outcome::Ok);
        assert!(checks[0].message.contains("does not exist yet"), "{}", checks[0].message);
    }

    #[test]
    fn a_file_in_place_of_the_directory_fails() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(data_directory(file.path())[0].outcome, Outcome::Fail);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn file_systems_that_lose_data_are_warnings() {
        assert_eq!(file_system(0x0102_1994).outcome, Outcome::Warn);
        assert_eq!(file_system(0x6969).outcome, Outcome::Warn);
        assert_eq!(file_system(0xef53), Check::ok("file_system", "ext4"));
    }

    #[test]
    fn low_limits_say_how_to_raise_them() {
        assert!(open_files(Some(1_024)).message.contains("ulimit -Hn"));
        assert_eq!(open_files(Some(1 << 20)).outcome, Outcome::Ok);
        assert_eq!(overcommit(2).outcome, Outcome::Warn);
        assert_eq!(memory_maps(1_000).outcome, Outcome::Warn);
        assert_eq!(memory(64 << 20).outcome, Outcome::Warn);
    }

    #[test]
    fn a_clock_in_another_century_fails() {
        assert_eq!(judge_clock(0).outcome, Outcome::Fail);
        assert_eq!(judge_clock(YEAR_2025_MS).outcome, Outcome::Ok);
    }
}
