//! Floor 9: the commands of the `stead` binary.
//!
//! Data goes to stdout, words and progress to stderr. Exit codes are stable: 0 done, 1 failed,
//! 2 usage, 3 refused by the host, 4 host not reachable. docs/cli.md is the reference.

pub mod build;

mod admin;
mod args;
mod call;
mod check;
mod cluster;
mod confirm;
mod consumers;
mod dead_letters;
mod deploy;
mod doctor;
mod entity;
mod examples;
mod failed;
mod module_file;
mod output;
mod remote;
mod render;
mod serve;
mod services;
mod store;
mod units;

use std::future::Future;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde_json::json;

use crate::cli::args::{BuildArgs, Cli, Command, StoreCommand};
use crate::cli::build::BuildOptions;
use crate::cli::failed::Failed;
use crate::cli::output::Output;
use crate::words::Digest;

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::InternalCompile = cli.command {
        return crate::wasm::compile::compile_main();
    }
    let out = Output::new(cli.format);
    match run(cli.command, &out).and_then(|()| out.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            out.fail(&failed);
            ExitCode::from(failed.exit.number())
        }
    }
}

fn run(command: Command, out: &Output) -> Result<(), Failed> {
    match command {
        Command::Serve(args) => serve::run(*args),
        Command::Build(args) => build_package(args, out),
        Command::Check(args) => on_runtime(check::run(args, out)),
        Command::Deploy(args) => on_runtime(deploy::run(args, out)),
        Command::Versions(args) => on_runtime(deploy::versions(args, out)),
        Command::Rollback(args) => on_runtime(deploy::roll_back(args, out)),
        Command::Services(args) => on_runtime(services::run(args, out)),
        Command::Call(args) => on_runtime(call::run(args, out)),
        Command::Entity(command) => on_runtime(entity::run(command, out)),
        Command::Consumers(command) => on_runtime(consumers::run(command, out)),
        Command::DeadLetters(command) => on_runtime(dead_letters::run(command, out)),
        Command::Cluster(command) => on_runtime(cluster::run(command, out)),
        Command::Store(StoreCommand::Copy(args)) => on_runtime(store::copy(args, out)),
        Command::Doctor(args) => on_runtime(doctor::run(args, out)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "stead", &mut script);
            out.text(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        // It has an exit code of its own, see `main`.
        Command::InternalCompile => Ok(()),
    }
}

fn build_package(args: BuildArgs, out: &Output) -> Result<(), Failed> {
    let options = BuildOptions { dir: args.dir, out: args.out, features: args.features };
    let file = build::build(&options, &mut |step| out.say(step))?;
    let bytes = std::fs::read(&file)
        .map_err(|error| Failed::local(format!("cannot read {}: {error}", file.display())))?;
    if out.is_json() {
        out.json(&json!({
            "file": file,
            "bytes": bytes.len(),
            "digest": Digest::of(&bytes).to_string(),
        }));
    } else {
        out.text(&file.display().to_string());
    }
    Ok(())
}

/// Clients wait more than they work: two threads are plenty.
fn on_runtime(work: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failed::local(format!("cannot start threads: {error}")))?
        .block_on(work)
}
