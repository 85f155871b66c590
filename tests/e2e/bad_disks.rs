//! What can go wrong with a data directory. Refused, or told; never a wrong answer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::host::Options;

#[tokio::test]
async fn a_second_node_on_the_same_directory_is_refused() {
    let host = Host::with_guest(GUEST).await;
    let second = Options::default().data(&host.data()).try_start().await;
    let refused = second.err().expect("the second does not start");
    assert!(!refused.status.success());
    let named = refused.log.contains(&host.data().display().to_string());
    assert!(named && refused.log.contains("use"), "{refused}");
    host.add("ada", "kettle", 1).await.ok();
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nothing() {
    for format in ["text", "json"] {
        let options = Options::default().log(Path::new("/dev/full"));
        let host = options.argument("--log-format").argument(format).start().await;
        host.deploy(GUEST).await;
        host.add("ada", "kettle", 1).await.ok();
        assert_eq!(host.cart("ada").await["kettle"], 1);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let host = Host::with_guest(GUEST).await;
    let stopped = host.kill();
    let file = stopped.data().join("stead.db");
    let mut database = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, x'00', 0)",
    )
    .execute(&mut database)
    .await
    .unwrap();
    database.close().await.unwrap();
    let refused = stopped.try_start().await.err().expect("the host does not start");
    assert!(refused.log.contains("newer"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 1).await.ok();
    let stopped = host.kill();
    let file = stopped.data().join("stead.db");
    overwrite(&file, 0, &[0xa5; 4096]);
    let refused = stopped.try_start().await.err().expect("the host does not start");
    assert!(refused.log.contains("stead.db"), "{refused}");
}

#[tokio::test]
async fn a_damaged_event_is_found_and_never_served() {
    const USERS: usize = 50;
    const DAMAGED: [usize; 2] = [7, 31];
    let product = |user: usize| format!("kettle-of-{user}.");
    let host = Host::with_guest(GUEST).await;
    for user in 0..USERS {
        for _ in 0..4 {
            host.add(&format!("user-{user}"), &product(user), 1).await.ok();
        }
    }
    // A clean end, so that everything is in the database and not in its log.
    let stopped = host.terminate(Duration::from_secs(10)).await;
    let file = stopped.data().join("stead.db");
    let bytes = std::fs::read(&file).expect("the database");
    for user in DAMAGED {
        let product = product(user).into_bytes();
        let places: Vec<_> =
            (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&product)).collect();
        assert!(!places.is_empty(), "the events of user-{user} are not in the file");
        // Another letter: the event still decodes, so only its checksum can tell.
        places.iter().for_each(|&at| overwrite(&file, at as u64, b"m"));
    }
    let host = stopped.start().await;
    for user in 0..USERS {
        let answer = host.services.get(&format!("/carts/user-{user}")).await;
        if DAMAGED.contains(&user) {
            answer.refused(500, "data_loss");
        } else {
            let cart = stead_tests::cart::items(&answer.ok());
            assert_eq!(cart.get(&product(user)), Some(&4), "a neighbour suffers: {cart:?}");
        }
    }
    assert!(host.log().contains("damaged"), "the log does not say so:\n{}", host.log());
}

#[tokio::test]
async fn damaged_pages_are_found_at_the_start() {
    let host = Host::with_guest(GUEST).await;
    for user in 0..50 {
        host.add(&format!("user-{user}"), "kettle", 1).await.ok();
    }
    let stopped = host.terminate(Duration::from_secs(10)).await;
    let file = stopped.data().join("stead.db");
    let head = std::fs::read(&file).expect("the database");
    // Its header says how large its pages are; 1 stands for 65,536.
    let page = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        size => usize::from(size),
    };
    assert!(head.len() > 2 * page, "one page is no database");
    for at in (page..head.len()).step_by(page) {
        overwrite(&file, at as u64, &[0x5a; 64]);
    }
    let refused = stopped.try_start().await.err().expect("the host does not start");
    let log = refused.log.to_lowercase();
    let told = ["damaged", "corrupt", "malformed"].iter().any(|word| log.contains(word));
    assert!(told && log.contains("stead.db"), "{refused}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() {
    let Some(disk) = Tmpfs::mount("size=24m") else { return };
    let data = disk.path.join("data");
    let host = Options::default().data(&data).start().await;
    host.deploy(GUEST).await;
    let ballast = disk.path.join("ballast");
    let mut acknowledged = 0;
    let failed = loop {
        let item = json!({"productId": "kettle", "name": "x".repeat(900_000), "quantity": 1});
        let path = format!("/cart/user-{acknowledged}/items/add");
        let answer = host.services.post(&path, &item).await;
        if answer.status != 200 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 100, "24 MiB hold 90 MB");
        if acknowledged == 2 {
            std::fs::write(&ballast, vec![1; 4 << 20]).expect("there is room for ballast");
        }
    };
    failed.refused(429, "resource_exhausted");
    assert!(
        host.log().to_lowercase().contains("full"),
        "the log does not say why:\n{}",
        host.log()
    );
    assert_eq!(host.cart("user-0").await["kettle"], 1, "reads go on");

    std::fs::remove_file(&ballast).expect("the ballast is removed");
    host.add("grace", "kettle", 1).await.ok();
    let host = host.kill_and_restart().await;
    assert_eq!(host.cart("grace").await["kettle"], 1);
    for user in 0..=acknowledged {
        let events = host.events(SERVICE, &format!("user-{user}")).await;
        assert_eq!(events.len(), usize::from(user < acknowledged), "user-{user}");
    }
}

#[tokio::test]
async fn a_data_directory_that_is_read_only_is_refused() {
    let Some(disk) = Tmpfs::mount("size=24m") else { return };
    let data = disk.path.join("data");
    std::fs::create_dir(&data).unwrap();
    disk.remount("ro");
    let refused = Options::default().data(&data).try_start().await;
    let refused = refused.err().expect("the host does not start");
    let log = refused.log.to_lowercase();
    assert!(log.contains("read-only") || log.contains("written"), "{refused}");
    assert!(refused.log.contains(&data.display().to_string()), "{refused}");
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(file).expect("the database");
    file.write_all_at(bytes, at).expect("written");
}

/// A small disk in memory, unmounted when it is dropped.
struct Tmpfs {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tmpfs {
    /// None, and said so, where mounting is not allowed: the test needs root.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&path)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("SKIPPED: this test mounts a tmpfs, which needs root");
            return None;
        }
        Some(Self { path, _dir: dir })
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.path).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot remount");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
