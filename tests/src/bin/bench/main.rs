//! `cargo xtask bench`: what one node does on this machine, beside what the machine can do.

mod cluster;
mod hello;
mod load;
mod measures;
mod process;
mod report;
mod sqlite;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// Short rounds and small populations
    #[arg(long)]
    quick: bool,
    /// Only what a cluster does
    #[arg(long)]
    cluster: bool,
    /// Write the report into this file
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    pub rounds: usize,
    /// Of one measurement.
    pub time: Duration,
    pub carts: usize,
    /// Hot entities whose memory is measured.
    pub populations: &'static [usize],
    pub replay_carts: usize,
    pub starts: usize,
}

const FULL: Settings = Settings {
    rounds: 5,
    time: Duration::from_secs(2),
    carts: 1_000,
    populations: &[1_000, 10_000, 100_000],
    replay_carts: 2_000,
    starts: 10,
};

const QUICK: Settings = Settings {
    rounds: 1,
    time: Duration::from_secs(1),
    carts: 1_000,
    populations: &[1_000, 10_000],
    replay_carts: 500,
    starts: 3,
};

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = if arguments.quick { QUICK } else { FULL };
    // The host process is started and asked through async code; the load has a thread of its own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let results = match arguments.cluster {
        true => runtime.block_on(cluster::all(&settings))?,
        false => runtime.block_on(measures::all(&settings))?,
    };
    let report = report::Report::new(&settings, results);
    print!("{}", report.table());
    if let Some(out) = arguments.out {
        std::fs::write(&out, report.markdown())?;
        println!("written to {}", out.display());
    }
    Ok(())
}
