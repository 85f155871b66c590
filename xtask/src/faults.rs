//! Every fault of a cluster, the long ones too: nodes in network namespaces, private PostgreSQL servers.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::test::EXCLUDED;
use crate::{cargo, guests, steps, tools};

/// What the tests start, how to ask whether it is there, and where it comes from.
const TOOLS: [(&str, &str, &str); 3] =
    [("ip", "-V", "iproute2"), ("nft", "-V", "nftables"), ("faketime", "--version", "faketime")];

pub fn run(filter: Option<&str>) -> anyhow::Result<()> {
    steps::title("Faults of Stead");
    tools::ensure_toolchain()?;
    tools::ensure_postgres()?;
    ensure_tools()?;
    // The selection of `cargo xtask test`, so that nothing is compiled twice.
    steps::long("build", "building the host and the tests", "host and tests are built", || {
        let mut build = cargo::cargo(&["build", "--workspace", "--bin", "stead"]);
        tools::run(build.args(EXCLUDED))?;
        let mut tests = cargo::cargo(&["test", "--workspace", "--test", "faults", "--no-run"]);
        tools::run(tests.args(EXCLUDED))
    })?;
    if filter.is_none() {
        model()?;
    }
    let stead = cargo::host_binary("debug");
    guests::build_for_loads(&stead)?;
    steps::long("faults", "cargo test --test faults", "every fault was survived", || {
        let mut test = cargo::cargo(&["test", "--workspace", "--test", "faults"]);
        test.args(EXCLUDED).arg("--");
        test.args(["--include-ignored", "--test-threads", "1", "--nocapture"])
            .env("STEAD_TEST_BINARY", &stead)
            .env("STEAD_TEST_GUESTS", guests::dir())
            .env("STEAD_TEST_NETWORKS", "required");
        if let Some(filter) = filter {
            test.arg(filter);
        }
        tools::run(&mut test)
    })
}

/// Searches every order of events of the rules of ownership, as far as minutes go.
fn model() -> anyhow::Result<()> {
    steps::long("model", "searching the rules of ownership", "no order breaks a promise", || {
        let mut search = cargo::cargo(&["test", "--workspace", "--lib"]);
        search.args(EXCLUDED).args(["ownership::model", "--", "--include-ignored"]);
        tools::run(&mut search)
    })
}

fn ensure_tools() -> anyhow::Result<()> {
    let user = tools::output(Command::new("id").arg("-u"))?;
    if user.trim() != "0" {
        bail!(
            "the nodes of these tests live in network namespaces, which need root: run \
             `sudo -E env PATH=$PATH cargo xtask faults` (`cargo xtask test` runs the part that does not)"
        );
    }
    for (tool, argument, package) in TOOLS {
        if !tools::runs(tool, argument) {
            install(package)?;
        }
    }
    Ok(())
}

/// We are root already; where apt is not, the package must be installed by hand.
fn install(package: &str) -> anyhow::Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("the package {package} is missing; install it with your system's packages");
    }
    steps::detail(&format!("apt-get install {package}"));
    let mut install = Command::new("apt-get");
    tools::output(install.args(["install", "-y", "--no-install-recommends", package]))?;
    Ok(())
}
