//! The one wasmtime configuration.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{Config, OptLevel, WasmBacktraceDetails, WasmFeatures};

use crate::wasm::arena::{Arena, Creator};
use crate::wasm::cache::Cache;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Component;
use crate::wasm::deadline::LongTurns;
use crate::wasm::failure::Refusal;
use crate::wasm::limits::Data;
use crate::wasm::{calls, compile, http, wasi};
use crate::words::{Digest, limits};

#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Where compiled modules are kept; none keeps them in memory only.
    pub cache_dir: Option<PathBuf>,
    /// The `stead` binary, to compile in a child process; none compiles in this process (tests).
    pub compiler: Option<PathBuf>,
    /// Upper bound for hot instances, for the arena.
    pub instances_max: usize,
}

/// Cheap to clone. Owns the thread that ticks the epoch clock.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasmtime: wasmtime::Engine,
    /// For components that import no WASI.
    plain: Linker<Data>,
    /// For components that import it.
    closed_wasi: Linker<Data>,
    /// For actions that may wait.
    waiting: Linker<Data>,
    /// For those that may also send requests.
    sending: Linker<Data>,
    compiler: Compiler,
    cache: Option<Cache>,
    long_turns: Arc<LongTurns>,
}

/// Everything that decides what compiled code looks like. The compiler process and the host both
/// start from this, or the host would refuse what the compiler made.
pub(in crate::wasm) fn configuration() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.max_wasm_stack(limits::GUEST_STACK_BYTES);
    config.async_stack_size(limits::FIBER_STACK_BYTES);
    config.cranelift_opt_level(OptLevel::Speed);
    // NaN bits are the one thing in which machines differ; state must replay to the same bytes.
    config.cranelift_nan_canonicalization(true);
    config.concurrency_support(false);
    config.debug_info(false);
    config.native_unwind_info(false);
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.wasm_backtrace_max_frames(NonZeroUsize::new(limits::GUEST_BACKTRACE_FRAMES_MAX));
    config.wasm_relaxed_simd(false);
    config.wasm_multi_memory(false);
    config.wasm_memory64(false);
    config.wasm_features(WasmFeatures::THREADS | WasmFeatures::CUSTOM_PAGE_SIZES, false);
    config.shared_memory(false);
    // The arena's terms: no address space beyond the memory itself, so every access is checked.
    config.memory_reservation(0);
    config.memory_reservation_for_growth(0);
    config.memory_guard_size(0);
    config.guard_before_linear_memory(false);
    config.memory_may_move(true);
    config.memory_init_cow(false);
    config
}

impl Engine {
    pub fn new(config: EngineConfig) -> Result<Self, anyhow::Error> {
        let slots = config.instances_max.saturating_add(config.instances_max / 4);
        let arena = Arena::new(
            slots.saturating_add(limits::GUEST_SLOTS_HEADROOM),
            limits::GUEST_MAPPINGS_MAX,
        )?;
        let mut configuration = configuration();
        configuration.with_host_memory(Arc::new(Creator(arena)));
        let wasmtime = wasmtime::Engine::new(&configuration).map_err(anyhow::Error::msg)?;
        let mut plain = Linker::new(&wasmtime);
        calls::forbid(&mut plain).map_err(anyhow::Error::msg)?;
        let mut closed_wasi = plain.clone();
        wasi::add_to_linker(&mut closed_wasi).map_err(anyhow::Error::msg)?;
        http::add_closed_to_linker(&mut closed_wasi).map_err(anyhow::Error::msg)?;
        let mut waiting = Linker::new(&wasmtime);
        calls::add_to_linker(&mut waiting).map_err(anyhow::Error::msg)?;
        wasi::add_to_linker(&mut waiting).map_err(anyhow::Error::msg)?;
        let mut sending = waiting.clone();
        wasi::add_open_io_to_linker(&mut sending).map_err(anyhow::Error::msg)?;
        http::add_to_linker(&mut sending).map_err(anyhow::Error::msg)?;
        let cache = match &config.cache_dir {
            Some(dir) => Some(Cache::open(dir, &wasmtime)?),
            None => None,
        };
        tick(&wasmtime)?;
        Ok(Self {
            inner: Arc::new(Inner {
                plain,
                closed_wasi,
                waiting,
                sending,
                compiler: Compiler::new(config.compiler),
                cache,
                long_turns: Arc::new(LongTurns::new(limits::LONG_TURNS_MAX)),
                wasmtime,
            }),
        })
    }

    /// Validates and compiles a module, or takes its compiled form from the cache. Blocking work runs
    /// elsewhere; dropping the future stops waiting, not the compilation.
    pub async fn load(&self, digest: Digest, module: bytes::Bytes) -> Result<Component, Refusal> {
        let loading = tokio::spawn(compile::load(self.clone(), digest, module));
        loading.await.unwrap_or_else(|error| {
            Err(Refusal::CompileFailed { reason: format!("the compiler stopped: {error}") })
        })
    }

    pub(in crate::wasm) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.wasmtime
    }

    pub(in crate::wasm) fn linker(&self, imports_wasi: bool) -> &Linker<Data> {
        if imports_wasi { &self.inner.closed_wasi } else { &self.inner.plain }
    }

    pub(in crate::wasm) fn waiting_linker(&self, imports_http: bool) -> &Linker<Data> {
        if imports_http { &self.inner.sending } else { &self.inner.waiting }
    }

    pub(in crate::wasm) fn compiler(&self) -> &Compiler {
        &self.inner.compiler
    }

    pub(in crate::wasm) fn cache(&self) -> Option<&Cache> {
        self.inner.cache.as_ref()
    }

    pub(in crate::wasm) fn long_turns(&self) -> &Arc<LongTurns> {
        &self.inner.long_turns
    }
}

/// Starts the epoch clock of an engine; it ends by itself when the engine is gone.
fn tick(engine: &wasmtime::Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new().name("stead-epoch".into()).spawn(move || {
        loop {
            std::thread::sleep(limits::EPOCH_TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    })?;
    Ok(())
}
