//! A private PostgreSQL server: on a free port of 127.0.0.1, with a directory of its own, as a user without
//! privileges, and gone when this process is, however it ends.
//!
//! The host's unit tests include this file too, so it needs nothing but std and libc.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MISSING: &str = "these tests need PostgreSQL's server: `apt-get install postgresql`";
const START_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Of free memory, for a server whose files are there.
const MEMORY_MIN: u64 = 4 << 30;

/// Waits for the end of the process that holds its input, then stops whatever runs in the directory, and
/// deletes it.
const REAPER: &str = r#"
cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
[ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null
sleep 0.2
rm -rf "$1" || { sleep 2; rm -rf "$1"; }
"#;

/// Stops and deletes the server when it is dropped.
pub struct Server {
    programs: PathBuf,
    dir: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    settings: Vec<String>,
    postmaster: Mutex<Option<Child>>,
    _reaper: Reaper,
}

struct Reaper(Child);

impl Drop for Reaper {
    fn drop(&mut self) {
        // Closing its input is the signal.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A server that does not sync has nothing to do with the disk, so what else writes there shall not slow it
/// down: its files are in memory, if there is room.
fn place(settings: &[&str]) -> PathBuf {
    let memory = Path::new("/dev/shm");
    if settings.contains(&"fsync=off") && free_bytes(memory) >= MEMORY_MIN {
        return memory.to_owned();
    }
    std::env::temp_dir()
}

fn free_bytes(dir: &Path) -> u64 {
    let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes()).expect("no NUL");
    // SAFETY: a plain struct of numbers, filled in by the call.
    let mut room: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: takes a text that ends with NUL, and a place for the answer.
    match unsafe { libc::statvfs(path.as_ptr(), &mut room) } {
        0 => room.f_bavail * room.f_frsize,
        _ => 0,
    }
}

impl Server {
    /// The one that the tests of this process share; each makes a database of its own. It does not sync.
    pub fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Server::start(&["fsync=off", "max_connections=400"]))
    }

    /// Starts a new server with settings (`name=value`) of its own.
    pub fn start(settings: &[&str]) -> Server {
        let server = Self::prepare(settings);
        let mut initdb = server.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "--encoding=UTF8", "--no-locale"]);
        check("initdb", initdb.args(["--no-sync", "-D"]).arg(server.data()).output());
        server.launch();
        server
    }

    fn prepare(settings: &[&str]) -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let programs = programs();
        let user = unprivileged();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("stead-postgres-{}-{count}", std::process::id());
        let dir = place(settings).join(name);
        // Left by a process of the same number.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).expect("a directory for PostgreSQL");
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).expect("giving a directory away");
        }
        let reaper = Command::new("sh")
            .args(["-c", REAPER, "reaper"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a free port").port();
        Server {
            programs,
            dir,
            port,
            user,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            postmaster: Mutex::new(None),
            _reaper: Reaper(reaper),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A new database, and its URL.
    pub fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// Runs SQL. Returns the rows, unaligned, with `|` between columns.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]);
        psql.args(["-U", "postgres", "-d", database, "-c", sql]);
        let output = check("psql", psql.arg("-p").arg(self.port.to_string()).output());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills the server in the midst of whatever it does (SIGKILL, its backends too).
    pub fn stop_immediate(&self) {
        let mut postmaster = self.postmaster.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = postmaster.take() else { return };
        // Each backend is a group of its own.
        let backends = children(child.id());
        let _ = child.kill();
        for backend in backends {
            // SAFETY: takes two numbers. The process is a child of one that has not been waited for.
            unsafe { libc::kill(backend, libc::SIGKILL) };
        }
        let _ = child.wait();
    }

    /// Starts it again on its port.
    pub fn restart(&self) {
        self.stop_immediate();
        self.launch();
    }

    /// A standby that follows this server and answers reads. If it is synchronous, commits wait for it from
    /// now on.
    pub fn standby(&self, synchronous: bool) -> Server {
        // It must allow what the primary allows, or it does not start.
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let standby = Self::prepare(&settings);
        let mut backup = standby.command("pg_basebackup");
        backup.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-c", "fast", "--no-sync", "-D"]);
        let backup = backup.arg(standby.data()).arg("-p").arg(self.port.to_string());
        check("pg_basebackup", backup.output());
        standby.launch();
        if synchronous {
            self.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
            self.sql("postgres", "SELECT pg_reload_conf()");
            let is_sync =
                || self.sql("postgres", "SELECT sync_state FROM pg_stat_replication") == "sync";
            wait_for("the standby to be synchronous", is_sync);
        }
        standby
    }

    /// Makes a standby take writes.
    pub fn promote(&self) {
        let promote =
            self.command("pg_ctl").args(["promote", "-w", "-D"]).arg(self.data()).output();
        check("pg_ctl promote", promote);
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.dir).stdin(Stdio::null());
        command.env_remove("PGPASSWORD").env_remove("PGHOST").env_remove("PGOPTIONS");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn launch(&self) {
        let mut postmaster = self.postmaster.lock().unwrap_or_else(PoisonError::into_inner);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log"));
        let log = log.expect("a log for PostgreSQL");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        command.args(["-h", "127.0.0.1", "-k"]).arg(&self.dir);
        // A server that is killed leaves its memory behind: where it is deleted with the rest.
        command.args(["-c", "dynamic_shared_memory_type=mmap"]);
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        command.stdout(Stdio::null()).stderr(log).process_group(0);
        let deadline = Instant::now() + START_WITHIN;
        // After a kill the old server's memory may be in use for a moment.
        loop {
            let mut child = command.spawn().expect("postgres");
            while child.try_wait().expect("postgres").is_none() {
                if self.is_ready() {
                    *postmaster = Some(child);
                    return;
                }
                assert!(Instant::now() < deadline, "PostgreSQL is not ready: {}", self.log());
                sleep(POLL_EVERY);
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", self.log());
            sleep(POLL_EVERY);
        }
    }

    fn is_ready(&self) -> bool {
        let mut ready = self.command("pg_isready");
        ready.args(["-q", "-h", "127.0.0.1", "-p"]).arg(self.port.to_string());
        ready.status().is_ok_and(|status| status.success())
    }

    fn log(&self) -> String {
        let log = std::fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_immediate();
    }
}

pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + START_WITHIN;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        sleep(POLL_EVERY);
    }
}

/// The processes whose parent is this one.
fn children(parent: u32) -> Vec<i32> {
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in parentheses: the state, and the parent.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split(' ').nth(1) == Some(&parent.to_string())
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

/// Where `initdb` and its like are. Debian keeps them out of PATH.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for root in ["/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt"] {
        let mut versions: Vec<PathBuf> = std::fs::read_dir(root)
            .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
            .unwrap_or_default();
        versions.sort();
        places.extend(versions.into_iter().rev());
    }
    let has_server = |place: &PathBuf| {
        ["initdb", "postgres", "psql"].iter().all(|program| place.join(program).exists())
    };
    places.into_iter().find(has_server).unwrap_or_else(|| panic!("{MISSING}"))
}

/// PostgreSQL refuses to run as root.
fn unprivileged() -> Option<(u32, u32)> {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let user = ["postgres", "nobody"].iter().find_map(|name| look_up(name));
    Some(user.expect("a user `postgres` or `nobody` to run PostgreSQL as"))
}

/// The numbers of a user and of its group.
fn look_up(name: &str) -> Option<(u32, u32)> {
    let users = std::fs::read_to_string(Path::new("/etc/passwd")).ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn check(program: &str, output: std::io::Result<Output>) -> Output {
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; {MISSING}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} failed: {complaint}");
    output
}
