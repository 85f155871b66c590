//! A `stead serve` of our own, for the demo.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// A running host. Killed when it is dropped, unless it is left to itself.
pub struct Host {
    child: Option<Child>,
    pub services: String,
    pub admin: String,
    /// Of a member of a cluster; else empty.
    pub peer: String,
    pub log: PathBuf,
}

/// What makes a host a member of a cluster.
pub struct Member<'a> {
    pub store: &'a str,
    pub key: &'a str,
    pub join: Option<&'a str>,
}

impl Host {
    /// Starts the host on free ports and waits until it says where it listens.
    pub fn start(binary: &Path, dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(binary, dir, |_| {})
    }

    /// The same for a member of a cluster.
    pub fn start_member(binary: &Path, dir: &Path, member: &Member) -> anyhow::Result<Self> {
        Self::start_with(binary, dir, |command| {
            command.args(["--peer", "127.0.0.1:0"]);
            command.env("STEAD_STORE", member.store).env("STEAD_CLUSTER_KEY", member.key);
            if let Some(join) = member.join {
                command.args(["--join", join]);
            }
        })
    }

    fn start_with(
        binary: &Path,
        dir: &Path,
        more: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let ports = dir.join("ports.json");
        let log = dir.join("stead.log");
        match std::fs::remove_file(&ports) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let stderr = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(dir.join("data"))
            .arg("--ports-file")
            .arg(&ports)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        more(&mut command);
        let child =
            command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let mut host = Self {
            child: Some(child),
            services: String::new(),
            admin: String::new(),
            peer: String::new(),
            log,
        };
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some((services, admin, peer)) = read_ports(&ports) {
                host.services = services;
                host.admin = admin;
                host.peer = peer;
                return Ok(host);
            }
            if let Some(status) = host.child.as_mut().and_then(|c| c.try_wait().transpose()) {
                bail!("the host ended with {} before it was ready\n{}", status?, host.last_words());
            }
            if Instant::now() > deadline {
                bail!("the host was not ready within a minute\n{}", host.last_words());
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// SIGKILL: no chance to write, to close or to say good-bye.
    pub fn kill(mut self) -> anyhow::Result<String> {
        let mut child = self.child.take().context("the host is not running")?;
        child.kill()?;
        Ok(child.wait()?.to_string())
    }

    /// SIGTERM: time to hand everything over.
    pub fn terminate(mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the host is not running")?;
        // SAFETY: takes two numbers. The process is a child that has not been waited for.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
        let status = child.wait()?;
        anyhow::ensure!(status.success(), "the host ended with {status} after SIGTERM");
        Ok(())
    }

    pub fn leave_running(mut self) {
        self.child = None;
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_ports(path: &Path) -> Option<(String, String, String)> {
    let text = std::fs::read(path).ok()?;
    let ports: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let peer = ports["peer"].as_str().unwrap_or_default();
    Some((
        ports["services"].as_str()?.to_owned(),
        ports["admin"].as_str()?.to_owned(),
        peer.to_owned(),
    ))
}
