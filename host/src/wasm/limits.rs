//! What one store may use, and what happened in it during the call that runs.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::wasm::calls::Conversation;
use crate::wasm::deadline::{LongTurns, Turn};
use crate::wasm::http::Http;
use crate::wasm::instance::InstanceLimits;
use crate::wasm::wasi::Wasi;
use crate::words::limits;

/// What a store carries. Components without imports have no `wasi`: it would cost more than the
/// rest of the store.
pub struct Data {
    pub memory: MemoryLimiter,
    pub turn: Turn,
    pub wasi: Option<Box<Wasi>>,
    pub http: Option<Box<Http>>,
    /// Of the action that runs.
    pub conversation: Option<Box<dyn Conversation>>,
}

impl Data {
    pub fn new(limits: InstanceLimits, long_turns: Arc<LongTurns>) -> Self {
        Self {
            memory: MemoryLimiter::new(limits.memory_bytes_max),
            turn: Turn::new(limits.deadline, long_turns),
            wasi: None,
            http: None,
            conversation: None,
        }
    }

    /// The guest waited for the host, and goes on: what it may use is measured anew.
    pub fn go_on(&mut self) {
        self.turn.end();
        self.turn.begin();
        if let Some(wasi) = &mut self.wasi {
            wasi.end_call();
        }
    }
}

/// Counts the linear memory of an instance, and denies what is over its limit.
pub struct MemoryLimiter {
    pub bytes: usize,
    pub bytes_max: usize,
    /// The growth that was allowed last, in case the arena has no room for it.
    pending_bytes: usize,
    /// Since the start of the call: a growth was over the limit.
    pub denied: bool,
    /// Since the start of the call: the host had no room for a growth.
    pub no_room: Option<String>,
}

impl MemoryLimiter {
    fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(limits::GUEST_MEMORY_BYTES_MAX);
        Self { bytes: 0, bytes_max, pending_bytes: 0, denied: false, no_room: None }
    }

    pub fn begin(&mut self) {
        self.denied = false;
        self.no_room = None;
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = desired.saturating_sub(current);
        let after = self.bytes.saturating_add(wanted);
        if after > self.bytes_max {
            self.denied = true;
            return Ok(false);
        }
        // Denied by the memory's own type: wasmtime will not grow it, so it must not be counted.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.bytes = after;
        self.pending_bytes = wanted;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.bytes = self.bytes.saturating_sub(std::mem::take(&mut self.pending_bytes));
        let reason = error.to_string();
        if reason.starts_with(crate::wasm::arena::NO_ROOM) {
            self.no_room = Some(reason);
        }
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= limits::GUEST_TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        limits::GUEST_CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        limits::GUEST_TABLES_MAX
    }

    fn memories(&self) -> usize {
        limits::GUEST_MEMORIES_MAX
    }
}
