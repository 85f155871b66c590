//! What must be on the machine. Whatever is missing is added, or named with the command that
//! installs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::steps;

pub const WASM_TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent").to_owned()
}

/// Where cargo builds.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A compiler, a linker and the WebAssembly targets.
pub fn ensure_toolchain() -> anyhow::Result<()> {
    steps::short(
        "tools",
        |text| {
            if !runs("cc", "--version") {
                bail!(
                    "a C compiler is needed (for SQLite), and `cc` was not found; install one with \
                     `apt-get install build-essential`, `dnf install gcc` or `xcode-select --install`"
                );
            }
            let version = output(Command::new("rustc").arg("--version"))?;
            for target in WASM_TARGETS {
                ensure_target(target)?;
            }
            *text = format!(
                "{}, {}",
                version.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
                WASM_TARGETS.join(", ")
            );
            Ok(())
        },
        "",
    )
}

fn ensure_target(target: &str) -> anyhow::Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").exists() {
        return Ok(());
    }
    if !runs("rustup", "--version") {
        bail!(
            "the Rust target {target} is missing and rustup was not found to add it; \
             install rustup from https://rustup.rs, or the target with your system's packages"
        );
    }
    steps::detail(&format!("rustup target add {target}"));
    run(Command::new("rustup").args(["target", "add", target]).current_dir(root()))
}

pub fn ensure_python() -> anyhow::Result<()> {
    if !runs("python3", "--version") {
        bail!(
            "the tests use packages from PyPI, and `python3` was not found; install it with \
             `apt-get install python3 python3-venv`"
        );
    }
    Ok(())
}

/// The tools that run the external clients of the tests.
pub fn ensure_client_tools() -> anyhow::Result<()> {
    ensure_python()?;
    for (tool, install) in [("node", "apt-get install nodejs npm"), ("npm", "apt-get install npm")]
    {
        if !runs(tool, "--version") {
            bail!(
                "the tests call Stead with clients from PyPI and npm, and `{tool}` was not found; \
                 install it with `{install}`"
            );
        }
    }
    let version = output(Command::new("node").arg("--version"))?;
    let major = version.trim().trim_start_matches('v').split('.').next().unwrap_or_default();
    if major.parse::<u32>().is_ok_and(|major| major < 20) {
        bail!("node {} is too old for the test clients: 20 or newer is needed", version.trim());
    }
    Ok(())
}

/// The server that tests of clusters start.
pub fn ensure_postgres() -> anyhow::Result<()> {
    if has_postgres() {
        return Ok(());
    }
    if runs("apt-get", "--version") && output(Command::new("id").arg("-u"))?.trim() == "0" {
        let install = ["install", "-y", "postgresql"];
        let mut apt = Command::new("apt-get");
        apt.args(install).env("DEBIAN_FRONTEND", "noninteractive");
        steps::detail(&format!("{}: tests start PostgreSQL servers of their own", show(&apt)));
        output(&mut apt).context("the package lists may be missing: try `apt-get update` first")?;
        if has_postgres() {
            return Ok(());
        }
    }
    bail!(
        "the tests start PostgreSQL servers of their own, and `initdb` was not found; install it with \
         `apt-get install postgresql`, `dnf install postgresql-server` or `brew install postgresql`"
    )
}

/// Debian keeps it out of PATH.
fn has_postgres() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    places.iter().any(|place| place.join("initdb").exists())
}

pub fn runs(tool: &str, argument: &str) -> bool {
    Command::new(tool)
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command that prints for itself.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", show(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", show(command));
    }
    Ok(())
}

/// Runs a command for its standard output; what it complains about is in the error.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output().with_context(|| format!("cannot start {}", show(command)))?;
    if !done.status.success() {
        bail!(
            "{} ended with {}\n{}",
            show(command),
            done.status,
            String::from_utf8_lossy(&done.stderr).trim_end()
        );
    }
    String::from_utf8(done.stdout).with_context(|| format!("{} did not write UTF-8", show(command)))
}

/// The command as one would type it.
pub fn show(command: &Command) -> String {
    let mut text = String::from("`");
    text.push_str(
        &Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy(),
    );
    for argument in command.get_args() {
        text.push(' ');
        let argument = argument.to_string_lossy();
        if argument.contains([' ', '"', '{']) {
            text.push_str(&format!("'{argument}'"));
        } else {
            text.push_str(&argument);
        }
    }
    text.push('`');
    text
}
