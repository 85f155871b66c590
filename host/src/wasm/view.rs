//! An instance of a module's views: synchronous, reused if it ended well.

use wasmtime::Store;

use crate::wasm::answer;
use crate::wasm::bindings::view;
use crate::wasm::component::Component;
use crate::wasm::failure::{Failure, printable};
use crate::wasm::instance::{self, InstanceLimits, StateChange, lower};
use crate::wasm::limits::Data;
use crate::wasm::pool::Pooled;
use crate::words::{Message, limits};

/// After an `Err` it is spent: drop it.
pub struct ViewInstance {
    store: Store<Data>,
    guest: view::Guest,
    spent: bool,
}

impl Pooled for ViewInstance {
    async fn start(
        component: &Component,
        service: &str,
        limits: InstanceLimits,
    ) -> Result<Self, Failure> {
        let (pre, indices) = component.view()?;
        let mut store = component.store(limits, service, "");
        let guest = instance::call(&mut store, limits::GUEST_HOSTCALL_BYTES_MAX, |store| {
            let instance = pre.instantiate(&mut *store)?;
            indices.load(store, &instance)
        })?;
        Ok(Self { store, guest, spent: false })
    }

    fn is_reusable(&self) -> bool {
        !self.spent && self.store.data().memory.bytes <= limits::IDLE_INSTANCE_BYTES_MAX
    }
}

impl ViewInstance {
    /// What the events of an entity make of its row. The inner error is the guest's word that it cannot
    /// understand an event, at most 4 KiB; the instance lives on.
    pub fn update(
        &mut self,
        service: &str,
        entity_id: &str,
        row: Option<&Message>,
        events: &[Message],
    ) -> Result<Result<StateChange, String>, Failure> {
        if std::mem::replace(&mut self.spent, true) {
            return Err(instance::spent());
        }
        let events: Vec<_> = events.iter().map(lower).collect();
        let row = row.map(lower);
        let guest = &self.guest;
        let answer = instance::call(&mut self.store, limits::ANSWER_BYTES_MAX, |store| {
            guest.call_update(store, service, entity_id, row, &events)
        })?;
        let update = match answer {
            Ok(change) => Ok(answer::state_change(change)?),
            Err(reason) => Err(printable(&reason, limits::REJECTION_MESSAGE_BYTES_MAX)),
        };
        self.spent = false;
        Ok(update)
    }
}
