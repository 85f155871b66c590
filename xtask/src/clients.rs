//! What the tests need from PyPI and npm, into `target`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{steps, tools};

const SOURCE: &str = "tests/clients";

pub fn dir() -> PathBuf {
    tools::target_dir().join("clients")
}

/// Installs the external clients of the tests, those that are not installed yet.
pub fn install() -> anyhow::Result<()> {
    tools::ensure_client_tools()?;
    let source = tools::root().join(SOURCE);
    let requirements = source.join("requirements.txt");
    python("clients", "grpcio from PyPI", &requirements, &dir())?;
    let package = source.join("package.json");
    once("clients", "Connect and buf from npm", &package, &dir(), || {
        std::fs::copy(&package, dir().join("package.json"))?;
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

/// A Python with the packages that the file `requirements` lists, in `dir`.
pub fn python(name: &str, done: &str, requirements: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    let python = dir.join("venv/bin/python");
    once(name, done, requirements, dir, || {
        tools::output(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")))?;
        tools::output(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(requirements),
        )?;
        Ok(())
    })?;
    Ok(python)
}

/// Runs an installation into `dir` unless the same list has been installed there before.
fn once(
    name: &str,
    done: &str,
    list: &Path,
    dir: &Path,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let file = list.file_name().unwrap_or_default().to_string_lossy();
    let stamp = dir.join(format!("installed-{file}"));
    let wanted = std::fs::read(list)?;
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    steps::short(name, |_| install(), done)?;
    std::fs::write(stamp, wanted)?;
    Ok(())
}
