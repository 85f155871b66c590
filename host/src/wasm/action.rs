//! An instance of a module's actions: one call at a time, reused for the next if it ended well.
//!
//! Of a module that imports `calls` it runs on a stack of its own, for it may wait. Otherwise a call is
//! as synchronous as an entity's.

use wasmtime::Store;

use crate::wasm::answer;
use crate::wasm::bindings::action;
use crate::wasm::bindings::stead::function::types;
use crate::wasm::calls::Conversation;
use crate::wasm::component::Component;
use crate::wasm::failure::Failure;
use crate::wasm::instance::{self, Answer, Command, Effect, InstanceLimits, Rejection};
use crate::wasm::limits::Data;
use crate::wasm::pool::Pooled;
use crate::words::limits;

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Conclusion {
    pub answer: Result<Answer, Rejection>,
    /// Also those of a rejection.
    pub effects: Vec<Effect>,
}

/// After an `Err`, or a call that was dropped before it ended, it is spent: drop it.
pub struct ActionInstance {
    store: Store<Data>,
    guest: action::Guest,
    waits: bool,
    spent: bool,
}

impl Pooled for ActionInstance {
    async fn start(
        component: &Component,
        service: &str,
        limits: InstanceLimits,
    ) -> Result<Self, Failure> {
        let (pre, indices, waits) = component.action()?;
        let mut store = component.action_store(limits, service);
        instance::begin(&mut store, limits::GUEST_HOSTCALL_BYTES_MAX);
        let started = match waits {
            true => {
                store.data_mut().turn.run_on_fiber();
                pre.instantiate_async(&mut store).await
            }
            false => pre.instantiate(&mut store),
        };
        let loaded = started.and_then(|instance| indices.load(&mut store, &instance));
        let guest = instance::end(&mut store, loaded)?;
        Ok(Self { store, guest, waits, spent: false })
    }

    fn is_reusable(&self) -> bool {
        !self.spent && self.store.data().memory.bytes <= limits::IDLE_INSTANCE_BYTES_MAX
    }
}

impl ActionInstance {
    /// Whether calls may ask for something while they run. If not, `handle` does not wait.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Handles one call. Dropping the future ends the guest where it waits.
    pub async fn handle(
        &mut self,
        service: &str,
        command: &Command,
        conversation: Option<Box<dyn Conversation>>,
    ) -> Result<Conclusion, Failure> {
        if std::mem::replace(&mut self.spent, true) {
            return Err(instance::spent());
        }
        let data = self.store.data_mut();
        data.conversation = conversation;
        if let Some(wasi) = &mut data.wasi {
            wasi.set_command(command.now_ms, command.seed);
        }
        instance::begin(&mut self.store, limits::ANSWER_BYTES_MAX);
        let metadata: Vec<_> = command
            .metadata
            .iter()
            .map(|(name, value)| types::MetadataEntryParam { name, value })
            .collect();
        let lowered = action::Command {
            method: &command.method,
            payload: &command.payload,
            metadata: &metadata,
            id: &command.id,
            now_ms: command.now_ms,
            seed: command.seed,
        };
        let answer = match self.waits {
            true => {
                let handle = self.guest.func_handle();
                let called = handle.call_async(&mut self.store, (service, lowered)).await;
                called.map(|(conclusion,)| conclusion)
            }
            false => self.guest.call_handle(&mut self.store, service, lowered),
        };
        let answer = instance::end(&mut self.store, answer);
        self.store.data_mut().conversation = None;
        let conclusion = answer::conclusion(answer?)?;
        self.spent = false;
        Ok(conclusion)
    }

    /// Linear memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory.bytes
    }
}

#[cfg(test)]
mod tests;
