//! `stead doctor`: what stands in the way of a host on this machine, and what to do about it.

mod host;
mod machine;

use serde_json::{Value, json};

use crate::cli::args::DoctorArgs;
use crate::cli::failed::Failed;
use crate::cli::output::{Output, Tone, printable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Warn,
    Fail,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "fail",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Outcome::Ok => Tone::Good,
            Outcome::Warn => Tone::Warn,
            Outcome::Fail => Tone::Fail,
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Stable, for programs.
    pub name: &'static str,
    pub outcome: Outcome,
    pub message: String,
}

impl Check {
    pub fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, message: message.into() }
    }

    pub fn warn(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warn, message: message.into() }
    }

    pub fn fail(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Fail, message: message.into() }
    }
}

pub async fn run(args: DoctorArgs, out: &Output) -> Result<(), Failed> {
    let mut checks = vec![machine::toolchain().await];
    checks.extend(machine::data_directory(&args.data));
    checks.extend(machine::limits());
    checks.push(machine::clock());
    checks.extend(host::ports(&args).await);
    print(&checks, out);
    let failures = checks.iter().filter(|check| check.outcome == Outcome::Fail).count();
    match failures {
        0 => Ok(()),
        1 => Err(Failed::local("one check failed")),
        more => Err(Failed::local(format!("{more} checks failed"))),
    }
}

fn print(checks: &[Check], out: &Output) {
    if out.is_json() {
        let check = |check: &Check| {
            json!({
                "name": check.name,
                "result": check.outcome.name(),
                "message": check.message,
            })
        };
        out.json(&json!({ "checks": checks.iter().map(check).collect::<Value>() }));
        return;
    }
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    for check in checks {
        let outcome = out.paint(check.outcome.tone(), &format!("{:<4}", check.outcome.name()));
        out.text(&format!("{outcome}  {:<width$}  {}", check.name, printable(&check.message)));
    }
}
