//! Measures the release build, and writes down what was measured.

use std::path::Path;
use std::process::Command;

use crate::{cargo, guests, steps, tools};

pub fn run(quick: bool, functions: bool, cluster: bool, out: &Path) -> anyhow::Result<()> {
    steps::title("Benchmarks of Stead");
    tools::ensure_toolchain()?;
    steps::long(
        "build",
        "building the host and the bench (release)",
        "host and bench are built",
        || {
            tools::run(&mut cargo::cargo(&[
                "build",
                "--release",
                "--package",
                "stead-host",
                "--package",
                "stead-tests",
                "--bins",
            ]))
        },
    )?;
    let stead = cargo::host_binary("release");
    guests::build_for_loads(&stead)?;
    steps::long("bench", "measuring", "measured", || {
        let mut bench = Command::new(stead.with_file_name("bench"));
        bench.env("STEAD_TEST_BINARY", &stead).env("STEAD_TEST_GUESTS", guests::dir());
        if quick {
            bench.arg("--quick");
        }
        if cluster {
            bench.arg("--cluster");
        } else if functions {
            bench.arg("--functions");
        } else if !quick {
            bench.arg("--out").arg(tools::root().join(out));
        }
        tools::run(&mut bench)
    })
}

/// Clusters of many nodes in simulated time. Needs no guest, and takes some minutes.
pub fn simulate(quick: bool, out: &Path) -> anyhow::Result<()> {
    steps::title("Membership and placement, simulated");
    tools::ensure_toolchain()?;
    steps::long("build", "building the bench (release)", "bench is built", || {
        tools::run(&mut cargo::cargo(&[
            "build",
            "--release",
            "--package",
            "stead-tests",
            "--bin",
            "bench",
        ]))
    })?;
    let bench = cargo::host_binary("release").with_file_name("bench");
    steps::long("simulate", "simulating", "simulated", || {
        let mut bench = Command::new(bench);
        bench.arg("--simulate");
        if quick {
            bench.arg("--quick");
        } else {
            bench.arg("--out").arg(tools::root().join(out));
        }
        tools::run(&mut bench)
    })
}
