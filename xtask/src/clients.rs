//! The external clients of the tests, from PyPI and npm, into `target/clients`.

use std::path::PathBuf;
use std::process::Command;

use crate::{steps, tools};

const SOURCE: &str = "tests/clients";

pub fn dir() -> PathBuf {
    tools::target_dir().join("clients")
}

/// Installs what is not installed yet.
pub fn install() -> anyhow::Result<()> {
    tools::ensure_client_tools()?;
    std::fs::create_dir_all(dir())?;
    once("clients", "grpcio from PyPI", "requirements.txt", |source| {
        let python = dir().join("venv/bin/python");
        tools::output(Command::new("python3").args(["-m", "venv"]).arg(dir().join("venv")))?;
        tools::output(
            Command::new(python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(source),
        )?;
        Ok(())
    })?;
    once("clients", "Connect and buf from npm", "package.json", |source| {
        std::fs::copy(source, dir().join("package.json"))?;
        // No lock file: it would have to name buf's packages for every platform, and `npm ci` refuses
        // where a registry lacks one of them. The versions in package.json are exact.
        tools::output(
            Command::new("npm")
                .args([
                    "install",
                    "--no-package-lock",
                    "--no-audit",
                    "--no-fund",
                    "--loglevel=error",
                ])
                .current_dir(dir()),
        )?;
        Ok(())
    })
}

/// Runs an installation unless the same list has been installed before.
fn once(
    name: &str,
    done: &str,
    list: &str,
    install: impl FnOnce(PathBuf) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let source = tools::root().join(SOURCE).join(list);
    let stamp = dir().join(format!("installed-{list}"));
    let wanted = std::fs::read(&source)?;
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    steps::short(name, |_| install(source), done)?;
    std::fs::write(stamp, wanted)?;
    Ok(())
}
