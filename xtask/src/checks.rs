//! What CI checks before it runs the tests.

use crate::{cargo, steps, tools};

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
    if !tools::runs("cargo-deny", "--version") {
        steps::detail("licences are not checked: `cargo install cargo-deny` adds that");
        return Ok(());
    }
    steps::long("licences", "cargo deny", "licences and advisories are fine", || {
        tools::run(&mut cargo::cargo(&["deny", "--workspace", "check"]))
    })
}
