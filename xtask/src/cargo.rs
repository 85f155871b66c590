//! Calls of cargo, all of them.

use std::path::PathBuf;
use std::process::Command;

use crate::tools;

/// A cargo command in the root of the repository.
pub fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(tools::root());
    // What `cargo run` says about this program: build scripts that look at it (ring's does) would run again,
    // and everything above them, each time that one types `cargo build` oneself.
    for (name, _) in std::env::vars_os() {
        let is_ours = |prefix| name.to_str().is_some_and(|name| name.starts_with(prefix));
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].into_iter().any(is_ours) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds the `stead` binary alone, in the development profile: its dependencies are optimised
/// there too, and what it compiles is most of what the tests need.
pub fn build_host() -> anyhow::Result<PathBuf> {
    tools::run(&mut cargo(&["build", "--package", "stead-host", "--bin", "stead"]))?;
    Ok(host_binary("debug"))
}

pub fn host_binary(profile: &str) -> PathBuf {
    tools::target_dir().join(profile).join(format!("stead{}", std::env::consts::EXE_SUFFIX))
}
