//! The closed WASI 0.2: what guests need that were built for it, leading nowhere.
//!
//! No files, no sockets, no environment, no arguments; standard input is at its end, and what a
//! guest prints goes to the host's log at level debug. Time stands still within a call and randomness
//! follows from the command's seed, so a replay sees the same. Nothing here waits: a wait for
//! something that is not there yet would never end, and is a trap.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::cli::{
    environment, exit, stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr,
    terminal_stdin, terminal_stdout,
};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::sync::filesystem::types;
use wasmtime_wasi::p2::bindings::sync::io::{error, poll, streams};
use wasmtime_wasi::p2::pipe::ClosedInputStream;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, InputStream, OutputStream, Pollable, StreamError,
    StreamResult, subscribe,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, async_trait};

use crate::wasm::deadline::Ended;
use crate::wasm::failure::printable;
use crate::wasm::limits::Data;
use crate::words::{clock, limits};

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
const CANNOT_WAIT: Ended =
    Ended::Forbidden("the function waits for something; a stateful function cannot wait");

/// Every interface that is granted, at any version 0.2.x.
const GRANTED: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

pub fn is_granted(import: &str) -> bool {
    import.split_once('@').is_some_and(|(interface, version)| {
        GRANTED.contains(&interface) && version.starts_with("0.2.")
    })
}

/// The WASI state of one store.
pub struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    now_ms: u64,
    random: Random,
    random_bytes_left: usize,
    /// Pollables of clocks that will not be ready within this call.
    never_ready: HashSet<u32>,
    log: Log,
    who: String,
}

impl Wasi {
    pub fn new(entity_type: &str, entity_id: &str) -> Self {
        let log = Log::default();
        let mut ctx = WasiCtx::builder();
        ctx.stdin(NoInput).stdout(log.clone()).stderr(log.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::GUEST_WASI_RESOURCES_MAX);
        Self {
            ctx: ctx.build(),
            table,
            now_ms: 0,
            random: Random(0),
            random_bytes_left: limits::GUEST_RANDOM_BYTES_PER_CALL_MAX,
            never_ready: HashSet::new(),
            log,
            who: format!("{entity_type}/{}", printable(entity_id, 128)),
        }
    }

    /// Sets time and randomness for the command that comes.
    pub fn set_command(&mut self, now_ms: u64, seed: u64) {
        self.now_ms = now_ms;
        self.random = Random(seed);
    }

    /// Outside of commands, time and randomness are the same in every life of an entity.
    pub fn set_replay(&mut self) {
        self.set_command(0, 0);
    }

    /// Writes to the log what the guest printed, and opens the budgets again.
    pub fn end_call(&mut self) {
        self.random_bytes_left = limits::GUEST_RANDOM_BYTES_PER_CALL_MAX;
        let printed = self.log.take();
        if !printed.is_empty() {
            let text = printable(&String::from_utf8_lossy(&printed), printed.len());
            tracing::debug!(target: "stead::guest", entity = self.who, "{text}");
        }
    }

    fn random_bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let left = self.random_bytes_left.checked_sub(count).ok_or_else(|| {
            wasmtime::Error::new(Ended::Forbidden(
                "the function asked for more random bytes than one call may have",
            ))
        })?;
        self.random_bytes_left = left;
        let mut bytes = vec![0; count];
        for chunk in bytes.chunks_mut(8) {
            let word = self.random.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(bytes)
    }

    fn random_word(&mut self) -> wasmtime::Result<u64> {
        let bytes = self.random_bytes(8)?;
        Ok(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }
}

impl WasiView for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = wasi(self);
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

/// The stores of components that import WASI have it from the start.
fn wasi(data: &mut Data) -> &mut Wasi {
    data.wasi.get_or_insert_with(|| Box::new(Wasi::new("", "")))
}

pub fn table(wasi: &mut Option<Box<Wasi>>) -> &mut ResourceTable {
    &mut wasi.get_or_insert_with(|| Box::new(Wasi::new("", ""))).table
}

struct Closed;

impl HasData for Closed {
    type Data<'a> = &'a mut Wasi;
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

pub fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    // Ours: all that could wait, tell the time, or differ from one replay to the next.
    poll::add_to_linker::<Data, Closed>(linker, wasi)?;
    streams::add_to_linker::<Data, Closed>(linker, wasi)?;
    wall_clock::add_to_linker::<Data, Closed>(linker, wasi)?;
    monotonic_clock::add_to_linker::<Data, Closed>(linker, wasi)?;
    random::add_to_linker::<Data, Closed>(linker, wasi)?;
    insecure::add_to_linker::<Data, Closed>(linker, wasi)?;
    insecure_seed::add_to_linker::<Data, Closed>(linker, wasi)?;
    exit::add_to_linker::<Data, Closed>(linker, wasi)?;
    // wasmtime's own: given nothing, they give nothing.
    error::add_to_linker::<Data, Table>(linker, |data| &mut wasi(data).table)?;
    environment::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    stdin::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    stdout::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    stderr::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    terminal_input::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    terminal_output::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    terminal_stdin::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    terminal_stdout::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    terminal_stderr::add_to_linker::<Data, WasiCli>(linker, Data::cli)?;
    preopens::add_to_linker::<Data, WasiFilesystem>(linker, Data::filesystem)?;
    types::add_to_linker::<Data, WasiFilesystem>(linker, Data::filesystem)?;
    Ok(())
}

/// In place of what must not wait: for actions that may send requests, waiting for them is waiting for
/// the host.
pub fn add_open_io_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::io;
    linker.allow_shadowing(true);
    io::poll::add_to_linker::<Data, Table>(linker, |data| &mut wasi(data).table)?;
    io::streams::add_to_linker::<Data, Table>(linker, |data| &mut wasi(data).table)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl exit::Host for Wasi {
    fn exit(&mut self, _status: Result<(), ()>) -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(Ended::Forbidden("the function called exit")))
    }

    fn exit_with_code(&mut self, _status: u8) -> wasmtime::Result<()> {
        self.exit(Ok(()))
    }
}

impl wall_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let nanoseconds = (self.now_ms % 1_000) * NANOSECONDS_PER_MILLISECOND;
        Ok(wall_clock::Datetime { seconds: self.now_ms / 1_000, nanoseconds: nanoseconds as u32 })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: NANOSECONDS_PER_MILLISECOND as u32 })
    }
}

impl Wasi {
    fn now_ns(&self) -> u64 {
        self.now_ms.saturating_mul(NANOSECONDS_PER_MILLISECOND)
    }
}

impl monotonic_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now_ns())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(NANOSECONDS_PER_MILLISECOND)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wait = Duration::from_nanos(when.saturating_sub(self.now_ns()));
        let alarm = self.table.push(Alarm(clock::now() + wait.min(limits::CALL_DEADLINE_MAX)))?;
        let pollable = subscribe(&mut self.table, alarm)?;
        if when > self.now_ns() {
            self.never_ready.insert(pollable.rep());
        }
        Ok(pollable)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe_instant(self.now_ns().saturating_add(duration))
    }
}

/// What a pollable of a clock is about. Where nothing waits, whether it is ready is known without asking
/// it.
struct Alarm(clock::Instant);

#[async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        tokio::time::sleep_until(self.0).await;
    }
}

impl random::Host for Wasi {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_word()
    }
}

impl insecure::Host for Wasi {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_word()
    }
}

impl insecure_seed::Host for Wasi {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random_word()?, self.random_word()?))
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the seed is random already and needs spreading only.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl poll::Host for Wasi {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        let mut ready = Vec::new();
        for (index, pollable) in (0..).zip(&pollables) {
            self.table.get(pollable)?;
            if !self.never_ready.contains(&pollable.rep()) {
                ready.push(index);
            }
        }
        if ready.is_empty() {
            return Err(wasmtime::Error::new(CANNOT_WAIT));
        }
        Ok(ready)
    }
}

impl poll::HostPollable for Wasi {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.table.get(&pollable)?;
        Ok(!self.never_ready.contains(&pollable.rep()))
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        if self.ready(pollable)? {
            return Ok(());
        }
        Err(wasmtime::Error::new(CANNOT_WAIT))
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.never_ready.remove(&pollable.rep());
        poll::HostPollable::drop(&mut self.table, pollable)
    }
}

impl streams::Host for Wasi {
    fn convert_stream_error(
        &mut self,
        error: StreamError,
    ) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(&mut self.table, error)
    }
}

/// wasmtime-wasi's streams, without the methods that would wait on tokio: on a worker of the runtime
/// they would panic. Our streams are always ready, so these do not need to wait.
impl streams::HostOutputStream for Wasi {
    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        self.table.check_write(stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.table.write(stream, bytes)
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        self.table.write(stream, bytes)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        self.table.flush(stream)
    }

    fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        self.table.flush(stream)
    }

    fn subscribe(
        &mut self,
        stream: Resource<DynOutputStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostOutputStream::subscribe(&mut self.table, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        self.table.write_zeroes(stream, len)
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        self.table.write_zeroes(stream, len)
    }

    fn splice(
        &mut self,
        stream: Resource<DynOutputStream>,
        source: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        self.table.splice(stream, source, len)
    }

    fn blocking_splice(
        &mut self,
        stream: Resource<DynOutputStream>,
        source: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        self.table.splice(stream, source, len)
    }

    fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

impl streams::HostInputStream for Wasi {
    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        self.table.read(stream, len)
    }

    fn blocking_read(
        &mut self,
        stream: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<Vec<u8>> {
        self.table.read(stream, len)
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        self.table.skip(stream, len)
    }

    fn blocking_skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        self.table.skip(stream, len)
    }

    fn subscribe(
        &mut self,
        stream: Resource<DynInputStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostInputStream::subscribe(&mut self.table, stream)
    }

    fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

struct NoInput;

impl IsTerminal for NoInput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for NoInput {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(ClosedInputStream)
    }
}

/// What a guest prints during a call. What is over the limit is dropped, not refused: a guest must
/// not fail for what it logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Log {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = limits::GUEST_LOG_BYTES_PER_CALL_MAX.saturating_sub(printed.len());
        printed.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(limits::GUEST_LOG_BYTES_PER_CALL_MAX)
    }
}

#[async_trait]
impl Pollable for Log {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::fixtures::{Guest, command, engine};
    use crate::wasm::{Answer, Command, Failure, Instance};
    use crate::words::Digest;

    fn guest(imports: &str, handle: &str) -> Guest {
        Guest::new().with_wasi().with_imports(imports).with("handle", handle)
    }

    /// Replies with the 8 bytes at 512.
    const REPLY: &str = "(call $pair (i32.const 24) (i32.const 512) (i32.const 8)) (i32.const 16)";

    fn reply(instance: &mut Instance, command: &Command) -> u64 {
        let outcome = instance.handle(command).expect("answers").expect("accepts");
        let Answer::Reply(reply) = outcome.answer else { panic!("a reply is expected") };
        u64::from_le_bytes(reply[..].try_into().expect("8 bytes"))
    }

    fn trap(imports: &str, handle: &str) -> String {
        match guest(imports, handle).instance().handle(&command(b"")) {
            Err(Failure::Trap { reason, .. }) => reason,
            other => panic!("a trap is expected: {other:?}"),
        }
    }

    #[test]
    fn the_clocks_stand_still_at_the_time_of_the_command() {
        let imports = r#"
            (import "wasi:clocks/wall-clock@0.2.3" "now" (func $wall (param i32)))
            (import "wasi:clocks/monotonic-clock@0.2.3" "now" (func $ticks (result i64)))"#;
        let wall = format!("(call $wall (i32.const 512)) {REPLY}");
        let mut instance = guest(imports, &wall).instance();
        assert_eq!(reply(&mut instance, &command(b"")), 1_700_000_000);
        let ticks = format!("(i64.store (i32.const 512) (call $ticks)) {REPLY}");
        let mut instance = guest(imports, &ticks).instance();
        assert_eq!(reply(&mut instance, &command(b"")), 1_700_000_000_123_000_000);
    }

    #[test]
    fn randomness_follows_from_the_seed_of_the_command() {
        let import =
            r#"(import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))"#;
        let random = format!("(i64.store (i32.const 512) (call $random)) {REPLY}");
        let component = guest(import, &random).load(&engine());
        let limits = crate::wasm::fixtures::instance_limits();
        let mut one = component.instantiate("t", "one", limits).expect("starts");
        let mut other = component.instantiate("t", "other", limits).expect("starts");
        let first = reply(&mut one, &command(b""));
        assert_eq!(reply(&mut one, &command(b"")), first);
        assert_eq!(reply(&mut other, &command(b"")), first);
        assert_ne!(reply(&mut one, &Command { seed: 8, ..command(b"") }), first);
    }

    #[test]
    fn randomness_is_bounded() {
        let import = r#"(import "wasi:random/random@0.2.3" "get-random-bytes"
            (func $random (param i64 i32)))"#;
        let reason =
            trap(import, "(call $random (i64.const 1073741824) (i32.const 512)) unreachable");
        assert!(reason.contains("random bytes"), "{reason}");
        let drain = "(loop $forever (call $random (i64.const 1024) (i32.const 512))
            (global.set $heap (i32.const 4096)) (br $forever)) unreachable";
        assert!(trap(import, drain).contains("random bytes"));
    }

    const WAIT: &str = r#"
        (import "wasi:clocks/monotonic-clock@0.2.3" "subscribe-duration"
          (func $after (param i64) (result i32)))
        (import "wasi:io/poll@0.2.3" "poll" (func $poll (param i32 i32 i32)))
        (import "wasi:io/poll@0.2.3" "[method]pollable.block" (func $block (param i32)))"#;

    #[test]
    fn nothing_waits() {
        let block = "(call $block (call $after (i64.const 1))) unreachable";
        assert!(trap(WAIT, block).contains("cannot wait"));
        let poll = "(i32.store (i32.const 512) (call $after (i64.const 1)))
            (call $poll (i32.const 512) (i32.const 1) (i32.const 520)) unreachable";
        assert!(trap(WAIT, poll).contains("cannot wait"));
    }

    #[test]
    fn what_is_ready_needs_no_wait() {
        let poll = format!(
            "(call $block (call $after (i64.const 0)))
            (i32.store (i32.const 512) (call $after (i64.const 1)))
            (i32.store (i32.const 516) (call $after (i64.const 0)))
            (call $poll (i32.const 512) (i32.const 2) (i32.const 520))
            ;; One is ready, and it is the second.
            (i64.store (i32.const 512)
              (i64.extend_i32_u
                (i32.add
                  (i32.mul (i32.load (i32.const 524)) (i32.const 10))
                  (i32.load (i32.load (i32.const 520))))))
            {REPLY}"
        );
        assert_eq!(reply(&mut guest(WAIT, &poll).instance(), &command(b"")), 11);
    }

    #[test]
    fn exit_is_a_trap() {
        let import = r#"(import "wasi:cli/exit@0.2.3" "exit" (func $exit (param i32)))"#;
        assert!(trap(import, "(call $exit (i32.const 0)) unreachable").contains("exit"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn printing_does_not_wait_and_does_not_fail() {
        let imports = r#"
            (import "wasi:cli/stdout@0.2.3" "get-stdout" (func $stdout (result i32)))
            (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush"
              (func $write (param i32 i32 i32 i32)))
            (import "wasi:io/streams@0.2.3" "[resource-drop]output-stream"
              (func $drop (param i32)))"#;
        let flood = format!(
            "(i32.store (i32.const 600) (call $stdout))
            (local.set $i (i32.const 100))
            (loop $next
              (call $write (i32.load (i32.const 600)) (i32.const 0) (i32.const 4096) (i32.const 620))
              (br_if $next (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
            (call $drop (i32.load (i32.const 600)))
            (i64.store (i32.const 512) (i64.load8_u (i32.const 620)))
            {REPLY}"
        );
        let module = guest(imports, &flood).component();
        let component = engine().load(Digest::of(&module), module.into()).await.expect("loads");
        let limits = crate::wasm::fixtures::instance_limits();
        tokio::spawn(async move {
            let mut instance = component.instantiate("t", "i", limits).expect("starts");
            assert_eq!(reply(&mut instance, &command(b"")), 0);
        })
        .await
        .expect("no panic");
    }

    #[test]
    fn what_is_printed_is_bounded() {
        let mut log = Log::default();
        for _ in 0..100 {
            log.write(Bytes::from_static(&[b'x'; 4_096])).expect("never fails");
        }
        assert_eq!(log.take().len(), limits::GUEST_LOG_BYTES_PER_CALL_MAX);
        log.write(Bytes::from_static(b"again")).expect("never fails");
        assert_eq!(log.take(), b"again");
    }
}
