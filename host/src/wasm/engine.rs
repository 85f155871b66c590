//! The one wasmtime configuration.

use std::path::PathBuf;
use std::sync::Arc;

use crate::wasm::component::Component;
use crate::wasm::failure::Refusal;
use crate::words::Digest;

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
    _private: Arc<()>,
}

impl Engine {
    pub fn new(_config: EngineConfig) -> Result<Self, anyhow::Error> {
        unreachable!()
    }

    /// Validates and compiles a module, or takes its compiled form from the cache. Blocking work runs
    /// elsewhere; dropping the future stops waiting, not the compilation.
    pub async fn load(&self, _digest: Digest, _module: bytes::Bytes) -> Result<Component, Refusal> {
        unreachable!()
    }
}
