//! `cargo xtask bench`: what one node does on this machine, beside what the machine can do.

mod cluster;
mod functions;
mod hello;
mod load;
mod measures;
mod process;
mod report;
mod simulate;
mod sqlite;

use std::path::{Path, PathBuf};
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
    /// Only what functions of other kinds cost
    #[arg(long)]
    functions: bool,
    /// Simulate large clusters instead of measuring this machine
    #[arg(long)]
    simulate: bool,
    /// Write the report into this file, and a plot of what was simulated beside it
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
    if arguments.simulate {
        return simulated(arguments.quick, arguments.out.as_deref());
    }
    let settings = if arguments.quick { QUICK } else { FULL };
    // The host process is started and asked through async code; the load has a thread of its own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let results = match (arguments.cluster, arguments.functions) {
        (true, _) => runtime.block_on(cluster::all(&settings))?,
        (_, true) => runtime.block_on(functions::all(&settings))?,
        _ => runtime.block_on(measures::all(&settings))?,
    };
    let report = report::Report::new(&settings, results);
    print!("{}", report.table());
    if let Some(out) = arguments.out {
        let (_, simulated) = parts(&out);
        std::fs::write(&out, report.markdown() + &simulated)?;
        println!("written to {}", out.display());
    }
    Ok(())
}

fn simulated(quick: bool, out: Option<&Path>) -> anyhow::Result<()> {
    let simulated = simulate::run(if quick { 3 } else { 20 })?;
    if let Some(out) = out {
        let (measured, _) = parts(out);
        let measured = measured.trim_end();
        std::fs::write(out, format!("{measured}\n\n{}", simulate::markdown(&simulated)))?;
        std::fs::write(out.with_file_name("membership.svg"), simulate::plot(&simulated))?;
        println!("written to {}", out.display());
    }
    Ok(())
}

/// What a report has now: what was measured, and what was simulated. Each run replaces its own part.
fn parts(report: &Path) -> (String, String) {
    let text = std::fs::read_to_string(report).unwrap_or_default();
    match text.find(simulate::HEADING) {
        Some(at) => (text[..at].to_owned(), format!("\n{}", &text[at..])),
        None => (text, String::new()),
    }
}
