//! From a user's bytes to a component that can be instantiated.
//!
//! A compiler fed by strangers may need any amount of time and memory, so it runs in a process of
//! its own, under limits: this binary, started with the hidden command `internal-compile`. That
//! process reads the module from its standard input and writes the compiled form to its output.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::wasm::component::Component;
use crate::wasm::engine::{self, Engine};
use crate::wasm::failure::{Refusal, printable};
use crate::wasm::validate::{self, Checked};
use crate::words::{Digest, limits};

/// The hidden command under which `stead` calls `compile_main`.
pub const COMPILE_COMMAND: &str = "internal-compile";

/// What it ends with if the module is at fault. Anything else is the machine's fault, or the host's.
const REFUSED: u8 = 1;
const UNABLE: u8 = 2;

pub(in crate::wasm) struct Compiler {
    program: Option<PathBuf>,
    at_once: Semaphore,
}

impl Compiler {
    pub fn new(program: Option<PathBuf>) -> Self {
        Self { program, at_once: Semaphore::new(limits::COMPILATIONS_AT_ONCE_MAX) }
    }

    async fn compile(&self, engine: &Engine, module: Bytes) -> Result<Vec<u8>, Refusal> {
        match &self.program {
            Some(program) => compile_in_child(program, &module, limits::COMPILE_WALL_MAX).await,
            None => {
                let engine = engine.wasmtime().clone();
                blocking(move || precompile(&engine, &module)).await
            }
        }
    }
}

/// Checks, compiles and links a module.
pub(in crate::wasm) async fn load(
    engine: Engine,
    digest: Digest,
    module: Bytes,
) -> Result<Component, Refusal> {
    let bytes = module.clone();
    let checked = blocking(move || validate::check(&bytes)).await?;
    let _turn = engine.compiler().at_once.acquire().await.map_err(stopped)?;
    let from_cache = engine.clone();
    if let Some(component) = blocking(move || Ok(read_cache(&from_cache, &digest, checked))).await?
    {
        return Ok(component);
    }
    let compiled = engine.compiler().compile(&engine, module).await?;
    let engine = engine.clone();
    blocking(move || {
        if let Some(cache) = engine.cache() {
            cache.write(&digest, &compiled);
        }
        link(&engine, &compiled, checked)
    })
    .await
}

fn read_cache(engine: &Engine, digest: &Digest, checked: Checked) -> Option<Component> {
    let compiled = engine.cache()?.read(digest)?;
    link(engine, &compiled, checked)
        .inspect_err(|error| {
            tracing::warn!(%digest, %error, "a compiled module is not usable: compiling it again");
        })
        .ok()
}

fn link(engine: &Engine, compiled: &[u8], checked: Checked) -> Result<Component, Refusal> {
    // SAFETY: `compiled` comes from our own compiler: this process, our child, or our cache, which
    // authenticates what it reads.
    let component =
        unsafe { wasmtime::component::Component::deserialize(engine.wasmtime(), compiled) }
            .map_err(|error| unable(format!("what it made cannot be used: {error:#}")))?;
    Component::link(engine, &component, checked)
}

fn precompile(engine: &wasmtime::Engine, module: &[u8]) -> Result<Vec<u8>, Refusal> {
    engine.precompile_component(module).map_err(|error| failed(format!("{error:#}")))
}

async fn compile_in_child(
    program: &Path,
    module: &[u8],
    wall_max: Duration,
) -> Result<Vec<u8>, Refusal> {
    let child = Command::new(program)
        .arg(COMPILE_COMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| unable(format!("cannot start {}: {error}", program.display())))?;
    let finished = tokio::time::timeout(wall_max, finish(child, module)).await;
    let (status, compiled, report) = match finished {
        Ok(Ok(finished)) => finished,
        Ok(Err(error)) => return Err(unable(format!("it cannot be reached: {error}"))),
        Err(_) => {
            let limit = format!("{} seconds", wall_max.as_secs());
            return Err(Refusal::CompileLimit { limit });
        }
    };
    if compiled.len() > limits::COMPILED_BYTES_MAX {
        let max = format!("{} MiB", limits::COMPILED_BYTES_MAX / limits::MIB);
        return Err(Refusal::TooCostly { what: "its compiled code".into(), max });
    }
    match status.code() {
        Some(0) => Ok(compiled),
        Some(code) => {
            let reason = printable(&report, limits::COMPILE_REPORT_BYTES_MAX);
            Err(if code == i32::from(REFUSED) { failed(reason) } else { unable(reason) })
        }
        // Ended by a signal: the kernel's for CPU time, or its own for want of memory or stack.
        None => Err(Refusal::CompileLimit {
            limit: format!(
                "{} seconds of CPU time and {} MiB of memory",
                limits::COMPILE_CPU_SECONDS_MAX,
                limits::COMPILE_MEMORY_BYTES_MAX / limits::MIB as u64
            ),
        }),
    }
}

async fn finish(mut child: Child, module: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>, String)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let send = async {
        if let Some(mut stdin) = stdin {
            // A compiler that gave up does not read to the end; its exit status says why.
            let _ = stdin.write_all(module).await;
        }
    };
    let receive = async {
        let mut compiled = Vec::new();
        if let Some(stdout) = stdout {
            let max = limits::COMPILED_BYTES_MAX as u64 + 1;
            stdout.take(max).read_to_end(&mut compiled).await?;
        }
        std::io::Result::Ok(compiled)
    };
    let listen = async {
        let mut report = Vec::new();
        if let Some(stderr) = stderr {
            let max = limits::COMPILE_REPORT_BYTES_MAX as u64;
            stderr.take(max).read_to_end(&mut report).await?;
        }
        std::io::Result::Ok(String::from_utf8_lossy(&report).into_owned())
    };
    let ((), compiled, report) = tokio::join!(send, receive, listen);
    Ok((child.wait().await?, compiled?, report?))
}

/// What `stead internal-compile` does.
pub fn compile_main() -> ExitCode {
    let (error, code) = match compile_stdin() {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => (error, REFUSED),
        Err(error) => (error, UNABLE),
    };
    eprintln!("{error:#}");
    ExitCode::from(code)
}

/// The outer error is this machine's, the inner one the module's.
fn compile_stdin() -> anyhow::Result<anyhow::Result<()>> {
    // Whoever calls entities goes first.
    rustix::process::nice(limits::COMPILE_NICE)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Cpu, limits::COMPILE_CPU_SECONDS_MAX)?;
    limit(Resource::As, limits::COMPILE_MEMORY_BYTES_MAX)?;
    std::thread::Builder::new().name("orphaned".into()).spawn(end_when_nobody_reads)?;
    let mut module = Vec::new();
    std::io::stdin().take(limits::MODULE_BYTES_MAX as u64).read_to_end(&mut module)?;
    let engine = wasmtime::Engine::new(&engine::configuration()).map_err(describe)?;
    let compiled = match engine.precompile_component(&module) {
        Ok(compiled) => compiled,
        Err(error) => return Ok(Err(describe(error))),
    };
    let mut stdout = std::io::stdout();
    stdout.write_all(&compiled)?;
    stdout.flush()?;
    Ok(Ok(()))
}

/// A host that was killed cannot end its compiler. Its end of the pipe closes with it; a signal at the
/// death of the parent would come at the end of the thread that started us, which may be earlier.
fn end_when_nobody_reads() {
    let stdout = std::io::stdout();
    loop {
        // No event is asked for: an error or a hang-up is told all the same.
        let mut pipe = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut pipe, None) {
            Ok(_) if pipe[0].revents().contains(PollFlags::ERR) => std::process::exit(1),
            Err(Errno::INTR) => {}
            _ => return,
        }
    }
}

/// With everything that it was caused by.
fn describe(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

fn limit(resource: Resource, max: u64) -> std::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(max), maximum: Some(max) })?;
    Ok(())
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Refusal> + Send + 'static,
) -> Result<R, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

fn failed(reason: String) -> Refusal {
    Refusal::CompileFailed { reason }
}

fn unable(reason: String) -> Refusal {
    Refusal::NoCompiler { reason }
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    failed(format!("the compiler stopped: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What comes of a compiler that does this.
    async fn compile_with(script: &str, wall: Duration) -> Result<Vec<u8>, Refusal> {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("compiler");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("writes");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("sets");
        compile_in_child(&program, b"module", wall).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_compiler_gets_the_module_and_gives_the_compiled_form() {
        let compiled = compile_with("test $1 = internal-compile && exec /bin/cat", LONG).await;
        assert_eq!(compiled.expect("compiles"), b"module");
    }

    #[tokio::test]
    async fn a_compiler_that_fails_is_quoted() {
        let refused = compile_with("echo bad module >&2; exit 1", LONG).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused, failed("bad module".into()));
        assert!(!refused.may_pass());
    }

    #[tokio::test]
    async fn a_compiler_that_cannot_work_is_quoted_and_may_work_another_time() {
        let refused = compile_with("echo no memory >&2; exit 2", LONG).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused, unable("no memory".into()));
        assert!(refused.may_pass());
    }

    #[tokio::test]
    async fn a_compiler_that_the_kernel_ends_went_over_a_limit() {
        let refused = compile_with("kill -XCPU $$", LONG).await.expect_err("refused");
        assert!(matches!(refused, Refusal::CompileLimit { .. }), "{refused}");
        assert!(refused.may_pass());
    }

    #[tokio::test]
    async fn a_compiler_that_does_not_end_is_ended() {
        let refused = compile_with("exec /bin/sleep 600", Duration::from_millis(50)).await;
        assert!(matches!(refused, Err(Refusal::CompileLimit { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_compiler_that_is_not_there_is_named() {
        let refused = compile_in_child(Path::new("/nowhere/stead"), b"module", LONG).await;
        let refused = refused.expect_err("refused");
        assert!(refused.to_string().contains("/nowhere/stead"), "{refused}");
        assert!(refused.may_pass());
    }
}
