//! Rows, medians and the report.

use std::fmt::Write;
use std::process::Command;

use crate::load::Measured;
use crate::{Settings, process};

/// One measured number.
pub struct Result {
    name: String,
    unit: Unit,
    goal: Goal,
    values: Vec<f64>,
    latencies_ms: Vec<(f64, f64)>,
    pub note: Option<String>,
}

#[derive(Clone, Copy)]
pub enum Unit {
    PerSecond,
    EventsPerSecond,
    Bytes,
    Kib,
    Ms,
}

#[derive(Clone, Copy)]
pub enum Goal {
    /// There for comparison.
    None,
    AtLeast(f64),
    AtMost(f64),
    /// At least this share of another row.
    Share(usize, f64),
    /// At least this share of another row, which is called so.
    ShareOf(usize, f64, &'static str),
    /// The 99th percentile, at most.
    P99(f64),
    /// Half of them at most so much, and all of them at most so much.
    HalfAndAll(f64, f64),
    /// At least so much, and so many times another row.
    Both(f64, usize, f64),
}

impl Result {
    pub fn new(name: &str, unit: Unit, goal: Goal) -> Self {
        Self { name: name.into(), unit, goal, values: vec![], latencies_ms: vec![], note: None }
    }

    pub fn value(&mut self, value: f64) {
        self.values.push(value);
    }

    /// Many values of one run, sorted: the median, and their percentiles.
    pub fn spread(&mut self, sorted: Vec<f64>) {
        let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
        self.latencies_ms.push((at(50), at(99)));
        self.values = sorted;
    }

    pub fn measured(&mut self, measured: Measured) {
        let ms = |percent| f64::from(measured.percentile_us(percent)) / 1_000.0;
        self.values.push(measured.per_second());
        self.latencies_ms.push((ms(50), ms(99)));
    }

    fn median(&self) -> f64 {
        median(self.values.iter().copied())
    }

    fn latency(&self) -> String {
        if self.latencies_ms.is_empty() {
            return String::new();
        }
        let p50 = median(self.latencies_ms.iter().map(|(p50, _)| *p50));
        let p99 = median(self.latencies_ms.iter().map(|(_, p99)| *p99));
        format!("{p50:.1} / {p99:.1}")
    }

    fn range(&self) -> String {
        if self.values.len() < 2 {
            return String::new();
        }
        let low = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.values.iter().copied().fold(0.0, f64::max);
        format!("{} to {}", self.unit.number(low), self.unit.number(high))
    }
}

/// Rows that compare themselves with each other come after so many others.
pub fn shift(results: &mut [Result], by: usize) {
    for result in results {
        match &mut result.goal {
            Goal::Share(row, _) | Goal::ShareOf(row, ..) | Goal::Both(_, row, _) => *row += by,
            Goal::None
            | Goal::AtLeast(_)
            | Goal::AtMost(_)
            | Goal::P99(_)
            | Goal::HalfAndAll(..) => {}
        }
    }
}

impl Unit {
    fn number(self, value: f64) -> String {
        match self {
            Unit::PerSecond if value < 100.0 => format!("{value:.1}"),
            Unit::PerSecond | Unit::EventsPerSecond | Unit::Bytes => thousands(value),
            Unit::Kib | Unit::Ms => format!("{value:.1}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "/s",
            Unit::EventsPerSecond => "events/s",
            Unit::Bytes => "bytes",
            Unit::Kib => "KiB",
            Unit::Ms => "ms",
        }
    }
}

pub struct Report {
    settings: Settings,
    results: Vec<Result>,
}

const HEADER: [&str; 6] = ["what", "median", "lowest to highest", "p50 / p99 ms", "goal", "met"];

impl Report {
    pub fn new(settings: &Settings, results: Vec<Result>) -> Self {
        Self { settings: settings.clone(), results }
    }

    fn rows(&self) -> Vec<[String; 6]> {
        let rows = self.results.iter().map(|result| {
            let (goal, met) = self.judge(result);
            let median = format!("{} {}", result.unit.number(result.median()), result.unit.name());
            let name = match &result.note {
                Some(note) => format!("{} ({note})", result.name),
                None => result.name.clone(),
            };
            [name, median, result.range(), result.latency(), goal, met.into()]
        });
        rows.collect()
    }

    fn judge(&self, result: &Result) -> (String, &'static str) {
        let (value, unit) = (result.median(), result.unit);
        let text = |number: f64| format!("{} {}", unit.number(number), unit.name());
        let (goal, met) = match result.goal {
            Goal::None => return (String::new(), ""),
            Goal::AtLeast(least) => (format!("at least {}", text(least)), value >= least),
            Goal::AtMost(most) => (format!("at most {}", text(most)), value <= most),
            Goal::Share(row, share) => {
                let reached = value / self.results[row].median();
                let goal = format!("at least {share} of hyper; is {reached:.2}");
                (goal, reached >= share)
            }
            Goal::ShareOf(row, share, whose) => {
                let reached = value / self.results[row].median();
                (format!("at least {share} of {whose}; is {reached:.2}"), reached >= share)
            }
            Goal::P99(most) => {
                let p99 = result.latencies_ms.first().map_or(0.0, |(_, p99)| *p99);
                (format!("p99 at most {}", text(most)), p99 <= most)
            }
            Goal::HalfAndAll(half, all) => {
                let longest = result.values.last().copied().unwrap_or_default();
                let goal = format!("half below {}, all below {}", text(half), text(all));
                (goal, value < half && longest < all)
            }
            Goal::Both(least, row, times) => {
                let reached = value / self.results[row].median();
                let goal =
                    format!("at least {} and {times} x SQLite; is {reached:.1} x", text(least));
                (goal, value >= least && reached >= times)
            }
        };
        (goal, if met { "yes" } else { "no" })
    }

    /// Aligned, for a terminal.
    pub fn table(&self) -> String {
        let mut lines = vec![HEADER.map(String::from)];
        lines.extend(self.rows());
        let widths: [usize; 6] = std::array::from_fn(|column| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        });
        let mut text = String::from("\n");
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                let _ = match column {
                    1..=3 => write!(text, "{cell:>width$}  "),
                    _ => write!(text, "{cell:<width$}  "),
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    pub fn markdown(&self) -> String {
        let Settings { rounds, time, carts, replay_carts, starts, .. } = &self.settings;
        let mut text = format!(
            "# Benchmarks

Written by `cargo xtask bench`, which measures all of it in one run.

- machine: {machine}
- date: {date}, commit {commit}

| {header} |
|---|---:|---:|---:|---|---|
",
            machine = process::machine(),
            date = output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            commit = output("git", &["rev-parse", "--short", "HEAD"]),
            header = HEADER.join(" | "),
        );
        for row in self.rows() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        let _ = write!(
            text,
            "
## Method

The release build of the host and the load generator share the machine: there is no network between
them, and each takes processor time from the other. The load generator is one thread that writes
prebuilt requests to keep-alive HTTP/1.1 connections, one in flight on each (64 or 512), and reads
the answers; one that is not a 200 ends the run. The bare hyper server answers `hello` to the same
generator, and is the ceiling of what any server on hyper can do here.

Rows of throughput are measured {rounds} times for {seconds} s each, one after the other in every
round, so that a noisy minute hits all of them; the table has the median. {carts} carts are hot. A
read is `GetCart`, a durable command is `AddItem`: one event, answered when it is on disk (WAL,
synchronous=FULL). SQLite alone is a second file on the same disk with the same settings and one row
of 100 bytes a commit. Bytes written are `write_bytes` of `/proc/<pid>/io`, checkpoints included.

Replay is a restart and then one read of each of {replay_carts} carts that have 99 events and no
snapshot; what counts is events over the whole time, calls included. Activations are reads of carts
that do not exist yet. Resident memory is what the given number of carts with one item each, every
one in a Wasm instance of its own, adds to VmRSS. The first answer is timed {starts} times from the
start of the process, after kill -9, with the module compiled already: reading the journal,
listening, one call with a replay.

Effects, actions and timers are those of the model of the compatibility tests, called with JSON, as are the
reads and durable commands that they are compared with. A command with an effect counts once the other entity
has stored what the effect called for: the time runs until the last one is delivered. Timers are set some
seconds ahead, ten for each of 1,000 entities, 100 ms apart; the time runs from when the last ones are due until
the last command of a timer is durable. The consumer and the view begin with the first of 100 events of each of
{carts} entities, at the same time. Steps are those of the checkout example, of which two are durable commands of
other entities and one an action; the time runs from the first order to the end of the last.

Rows of clusters have a private PostgreSQL 15 on the same machine, with durable commits, and nodes that
share the two processors with it and with the load. Through another node: a drained one, which owns
nothing and forwards every call, measured in turn with the owner in every round. Statements are
those that `pg_stat_statements` counts over 20 s in which nobody calls, for each of three nodes with 1,024
shards. (`xact_commit` of the database is nearly twice as much.)
Pauses and times away are seen by 64 customers who add an item to a cart of their own every few
milliseconds, through nodes that stay: the longest time between two acknowledgements of each cart. After
a kill only carts that waited count: the others were not on that node.
",
            seconds = time.as_secs_f64(),
        );
        text
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => "unknown".into(),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

/// `12,345`
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
