//! One `stead serve` process.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;
use crate::files;

const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(2);
/// What a failed test shows of the host's log.
const LOG_LINES_SHOWN: usize = 60;

/// A running host, killed when it is dropped. Its directory goes with the last one that uses it.
pub struct Host {
    child: Child,
    dir: Arc<TempDir>,
    options: Options,
    /// For calls of deployed services.
    pub services: Client,
    /// For the admin API.
    pub admin: Client,
}

/// How to start it.
#[derive(Clone, Default)]
pub struct Options {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    data: Option<PathBuf>,
    admin: Option<String>,
    listen: Option<String>,
    admin_token: Option<String>,
    network: Option<String>,
    log: Option<PathBuf>,
}

impl Options {
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Another data directory than `data` in a temporary one.
    pub fn data(mut self, path: &Path) -> Self {
        self.data = Some(path.into());
        self
    }

    /// Another address of the admin API than a free port of loopback.
    pub fn admin(mut self, address: &str) -> Self {
        self.admin = Some(address.into());
        self
    }

    /// Another address of the services than a free port of loopback.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// The token that the admin API wants, and that this host's client sends.
    pub fn admin_token(mut self, token: &str) -> Self {
        self.admin_token = Some(token.into());
        self
    }

    /// The network namespace to run in.
    pub fn network(mut self, namespace: &str) -> Self {
        self.network = Some(namespace.into());
        self
    }

    /// Another file for its log than one that [`Host::log`] finds.
    pub fn log(mut self, path: &Path) -> Self {
        self.log = Some(path.into());
        self
    }

    pub async fn start(self) -> Host {
        self.try_start().await.unwrap_or_else(|failed| panic!("the host did not start: {failed}"))
    }

    /// Starts it, expecting that it may refuse to.
    pub async fn try_start(self) -> Result<Host, Refused> {
        let dir = tempfile::Builder::new().prefix("stead-test-").tempdir().expect("a directory");
        self.start_in(Arc::new(dir)).await
    }

    async fn start_in(self, dir: Arc<TempDir>) -> Result<Host, Refused> {
        let ports = dir.path().join("ports.json");
        let _ = std::fs::remove_file(&ports);
        let log = self.log.clone().unwrap_or_else(|| dir.path().join("stead.log"));
        let log = File::options().create(true).append(true).open(log);
        let log = log.expect("the log can be opened");
        let data = self.data.clone().unwrap_or_else(|| dir.path().join("data"));
        let child = self
            .command()
            .args(["serve", "--listen", self.listen.as_deref().unwrap_or("127.0.0.1:0")])
            .args(["--admin", self.admin.as_deref().unwrap_or("127.0.0.1:0")])
            .arg("--ports-file")
            .arg(&ports)
            .arg("--data")
            .arg(data)
            .args(&self.arguments)
            .envs(self.admin_token.iter().map(|token| ("STEAD_ADMIN_TOKEN", token)))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // A child process that the host starts must not find the developer's configuration.
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the host can be started");
        // From here on, dropping the host kills the process.
        let mut host = Host {
            child,
            dir,
            options: self,
            services: Client::new("http://127.0.0.1:0"),
            admin: Client::new("http://127.0.0.1:0"),
        };
        let start = Instant::now();
        loop {
            if let Some((services, admin)) = read_ports(&ports) {
                host.services = Client::new(&services);
                host.admin = Client::new(&admin);
                if let Some(token) = &host.options.admin_token {
                    let value = format!("Bearer {token}");
                    host.admin = host.admin.with_header("authorization", &value);
                }
                return Ok(host);
            }
            if let Some(status) = host.child.try_wait().expect("the process can be asked") {
                let log = host.log();
                return Err(Refused { status, log });
            }
            assert!(start.elapsed() < READY_WITHIN, "not ready in time; its log:\n{}", host.log());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// The host, in its network. `ip netns exec` becomes the host: the process is the same.
    fn command(&self) -> Command {
        let mut command = match &self.network {
            None => Command::new(files::binary()),
            Some(network) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", network]).arg(files::binary());
                command
            }
        };
        // Whatever started the tests may ignore it, and would have the host do so too.
        // SAFETY: signal() may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            });
        }
        command
    }
}

/// The host ended before it was ready.
#[derive(Debug)]
pub struct Refused {
    pub status: ExitStatus,
    pub log: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.status, self.log)
    }
}

impl Host {
    pub async fn start() -> Self {
        Options::default().start().await
    }

    /// On a fresh directory, with a guest deployed.
    pub async fn with_guest(name: &str) -> Self {
        let host = Self::start().await;
        host.deploy(name).await;
        host
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What its process has used of all processors so far.
    pub fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(path).expect("it runs");
        // The name before may contain anything.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let fields = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
        // SAFETY: asks for a constant.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }

    /// The directory that holds data, log and ports file.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.options.data.clone().unwrap_or_else(|| self.dir().join("data"))
    }

    /// Everything that it has written to stderr, earlier lives included.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir().join("stead.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: the process is our child and has not been waited for.
        let result = unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
        assert_eq!(result, 0, "the host cannot be signalled: is it running?");
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("the process can be asked").is_none()
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                return status;
            }
            assert!(start.elapsed() < within, "still running after {within:?}\n{}", self.log());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// kill -9 and a new process on the same directory.
    pub async fn kill_and_restart(self) -> Self {
        let stopped = self.kill();
        stopped.start().await
    }

    /// kill -9.
    pub fn kill(mut self) -> Stopped {
        self.child.kill().expect("the host can be killed");
        let status = self.child.wait().expect("the host can be waited for");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it was dead already\n{}", self.log());
        Stopped { dir: self.dir.clone(), options: self.options.clone() }
    }

    /// SIGTERM, and a clean end.
    pub async fn terminate(self, within: Duration) -> Stopped {
        self.stop_by(libc::SIGTERM, within).await
    }

    /// A signal, and a clean end.
    pub async fn stop_by(mut self, signal: i32, within: Duration) -> Stopped {
        self.signal(signal);
        let status = self.ended(within).await;
        assert!(status.success(), "ended with {status}\n{}", self.log());
        Stopped { dir: self.dir.clone(), options: self.options.clone() }
    }

    /// The Prometheus text.
    pub async fn metrics(&self) -> String {
        self.admin.get("/metrics").await.text()
    }

    /// The sum of a metric over all its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
            eprintln!("the end of the host's log:");
            for line in lines.iter().rev() {
                eprintln!("  | {line}");
            }
        }
    }
}

/// A host that has ended, with its data.
#[derive(Clone)]
pub struct Stopped {
    dir: Arc<TempDir>,
    pub options: Options,
}

impl Stopped {
    pub fn data(&self) -> PathBuf {
        self.options.data.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    pub async fn start(self) -> Host {
        self.try_start().await.unwrap_or_else(|failed| panic!("the host did not start: {failed}"))
    }

    pub async fn try_start(self) -> Result<Host, Refused> {
        self.options.start_in(self.dir).await
    }
}

fn read_ports(path: &Path) -> Option<(String, String)> {
    let text = std::fs::read(path).ok()?;
    let ports: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some((ports["services"].as_str()?.to_owned(), ports["admin"].as_str()?.to_owned()))
}
