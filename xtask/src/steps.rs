//! What people see: one line a step, with the time it took.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

const NAME_COLUMNS: usize = 10;
const TEXT_COLUMNS: usize = 62;

/// The headline of a task.
pub fn title(text: &str) {
    eprintln!("\n{}\n", paint("1", text));
}

/// Announces a step that prints lines of its own, runs it and closes it with its time.
pub fn long<T>(
    name: &str,
    doing: &str,
    done: &str,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    eprintln!("  {} {name:<NAME_COLUMNS$} {doing}", paint("36", ">"));
    short(name, |_| work(), done)
}

/// A step that is over soon: one line, when it is done.
pub fn short<T>(
    name: &str,
    work: impl FnOnce(&mut String) -> anyhow::Result<T>,
    done: &str,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let mut text = done.to_owned();
    let result = work(&mut text);
    let mark = if result.is_ok() { paint("32", "✓") } else { paint("31", "✗") };
    let time = paint("2", &format!("{:>9}", elapsed(start.elapsed())));
    eprintln!("  {mark} {name:<NAME_COLUMNS$} {text:<TEXT_COLUMNS$} {time}");
    result
}

/// A line that belongs to the step above it.
pub fn detail(text: &str) {
    for line in text.lines() {
        eprintln!("  {:NAME_COLUMNS$}   {}", "", paint("2", line));
    }
}

pub fn failed(error: &anyhow::Error) {
    eprintln!("\n{} {error:#}", paint("1;31", "failed:"));
}

fn elapsed(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} m {:02} s", seconds / 60, seconds % 60),
    }
}

fn paint(code: &str, text: &str) -> String {
    if stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
