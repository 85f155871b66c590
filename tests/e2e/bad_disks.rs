//! What can go wrong with a data directory. Refused, or told; never a wrong answer.

use std::path::{Path, PathBuf};
use std::process::Command;

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
async fn damage_in_the_middle_is_found_and_never_served() {
    let host = Host::with_guest(GUEST).await;
    for user in 0..50 {
        for _ in 0..4 {
            host.add(&format!("user-{user}"), "kettle", 1).await.ok();
        }
    }
    // A clean end, so that everything is in the database and not in its log.
    let stopped = host.terminate(std::time::Duration::from_secs(10)).await;
    let file = stopped.data().join("stead.db");
    let size = std::fs::metadata(&file).unwrap().len();
    for at in (8192..size.saturating_sub(4096)).step_by(16384) {
        overwrite(&file, at + 200, &[0x5a; 64]);
    }
    let host = match stopped.try_start().await {
        Ok(host) => host,
        Err(refused) => {
            let log = refused.log.to_lowercase();
            assert!(
                log.contains("damaged") || log.contains("corrupt") || log.contains("malformed"),
                "{log}"
            );
            return;
        }
    };
    for user in 0..50 {
        let answer = host.services.get(&format!("/carts/user-{user}")).await;
        if answer.status == 200 {
            assert_eq!(stead_tests::cart::items(&answer.json())["kettle"], 4, "a wrong answer");
        }
    }
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
