//! The commands of this repository: `cargo xtask demo | test | faults | bench | guests | ci-checks`.

mod steps;

mod tools;

mod cargo;

mod host;

mod http;

mod guests;

mod clients;

mod demo;

mod test;

mod faults;

mod bench;

mod checks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Build, test, measure and show Stead", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build Stead and show a shopping cart that survives kill -9
    Demo {
        /// Three nodes over PostgreSQL instead: one is killed, one added, one drained
        #[arg(long, conflicts_with = "keep")]
        cluster: bool,
        /// Leave the host running and print what to try next
        #[arg(long)]
        keep: bool,
    },
    /// Run every test, the end-to-end ones with real clients included
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Break clusters in every way that is known, as root; half an hour and more
    Faults {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Measure, and write docs/benchmarks.md
    Bench {
        /// Short rounds, small populations, nothing written
        #[arg(long)]
        quick: bool,
        /// Only what functions of other kinds cost; nothing written
        #[arg(long)]
        functions: bool,
        /// Only what a cluster does; nothing written
        #[arg(long)]
        cluster: bool,
        /// Simulate large clusters instead of measuring this machine
        #[arg(long)]
        simulate: bool,
        /// Where to write the report
        #[arg(long, default_value = "docs/benchmarks.md")]
        out: PathBuf,
    },
    /// Build every example and test guest into target/guests
    Guests,
    /// Formatting, lints, documentation, deploy/ and licences, as CI checks them
    CiChecks,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Demo { cluster: true, .. } => demo::run_cluster(),
        Task::Demo { keep, .. } => demo::run(keep),
        Task::Test { filter } => test::run(filter.as_deref()),
        Task::Faults { filter } => faults::run(filter.as_deref()),
        Task::Bench { quick, simulate: true, out, .. } => bench::simulate(quick, &out),
        Task::Bench { quick, functions, cluster, out, .. } => {
            bench::run(quick, functions, cluster, &out)
        }
        Task::Guests => guests::run(),
        Task::CiChecks => checks::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            steps::failed(&error);
            ExitCode::FAILURE
        }
    }
}
