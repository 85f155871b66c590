//! Every test: floors, SDK and examples natively, and the real binary with real clients.

use crate::{cargo, clients, guests, steps, tools};

/// Not part of the test build: this program, which is running, and a guest that only makes sense
/// as WebAssembly.
pub const EXCLUDED: [&str; 4] = ["--exclude", "xtask", "--exclude", "misbehaving-guest"];

pub fn run(filter: Option<&str>) -> anyhow::Result<()> {
    steps::title("Tests of Stead");
    tools::ensure_toolchain()?;
    tools::ensure_postgres()?;
    clients::install()?;
    // The same selection as the test run below, so that nothing is compiled twice.
    steps::long("build", "building the host and all tests", "host and tests are built", || {
        let mut build = cargo::cargo(&["build", "--workspace", "--all-targets"]);
        tools::run(build.args(EXCLUDED))
    })?;
    let stead = cargo::host_binary("debug");
    guests::build_all(&stead)?;
    steps::long("test", "cargo test", "all tests passed", || {
        let mut test = cargo::cargo(&["test", "--workspace", "--no-fail-fast"]);
        test.args(EXCLUDED)
            .env("STEAD_TEST_BINARY", &stead)
            .env("STEAD_TEST_GUESTS", guests::dir())
            .env("STEAD_TEST_CLIENTS", clients::dir());
        if let Some(filter) = filter {
            test.arg(filter);
        }
        tools::run(&mut test)
    })
}
