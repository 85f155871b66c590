//! A module of a user, validated, compiled and linked: ready to be instantiated.

use std::sync::Arc;

use wasmtime::Store;

use crate::wasm::bindings::{FunctionPre, GuestInstance};
use crate::wasm::deadline;
use crate::wasm::engine::Engine;
use crate::wasm::failure::{Failure, Refusal};
use crate::wasm::instance::{self, Description, Instance, InstanceLimits};
use crate::wasm::limits::Data;
use crate::wasm::wasi::Wasi;
use crate::wasm::{answer, bindings};
use crate::words::limits;

/// Cheap to clone.
#[derive(Clone)]
pub struct Component {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pre: FunctionPre<Data>,
    imports_wasi: bool,
}

impl Component {
    pub(in crate::wasm) fn link(
        engine: &Engine,
        component: &wasmtime::component::Component,
        imports_wasi: bool,
    ) -> Result<Self, Refusal> {
        let pre = engine
            .linker(imports_wasi)
            .instantiate_pre(component)
            .map_err(|error| Refusal::Invalid { reason: format!("{error:#}") })?;
        let pre = FunctionPre::new(pre)
            .map_err(|error| Refusal::WrongWorld { missing: format!("all of it: {error:#}") })?;
        Ok(Self { inner: Arc::new(Inner { engine: engine.clone(), pre, imports_wasi }) })
    }

    /// Runs `discovery.describe` in a fresh instance.
    pub fn describe(&self) -> Result<Description, Failure> {
        let limits = InstanceLimits {
            memory_bytes_max: limits::GUEST_MEMORY_BYTES_DEFAULT,
            deadline: limits::GUEST_DEADLINE_DEFAULT,
        };
        let mut store = self.store(limits, "discovery", "describe");
        let described = instance::call(&mut store, limits::GUEST_HOSTCALL_BYTES_MAX, |store| {
            let exports = self.inner.pre.instantiate(&mut *store)?;
            exports.stead_function_discovery().call_describe(store)
        })?;
        answer::description(described)
    }

    /// A fresh instance, with `constructor(entity_type, entity_id)` called.
    pub fn instantiate(
        &self,
        entity_type: &str,
        entity_id: &str,
        limits: InstanceLimits,
    ) -> Result<Instance, Failure> {
        let mut store = self.store(limits, entity_type, entity_id);
        let (exports, resource) =
            instance::call(&mut store, limits::GUEST_HOSTCALL_BYTES_MAX, |store| {
                let exports = self.inner.pre.instantiate(&mut *store)?;
                let resource = guest(&exports).call_constructor(store, entity_type, entity_id)?;
                Ok((exports, resource))
            })?;
        Ok(Instance::new(store, exports, resource))
    }

    fn store(&self, limits: InstanceLimits, entity_type: &str, entity_id: &str) -> Store<Data> {
        let engine = &self.inner.engine;
        let mut data = Data::new(limits, engine.long_turns().clone());
        if self.inner.imports_wasi {
            data.wasi = Some(Box::new(Wasi::new(entity_type, entity_id)));
        }
        let mut store = Store::new(engine.wasmtime(), data);
        store.limiter(|data| &mut data.memory);
        store.epoch_deadline_callback(deadline::on_tick);
        store.set_max_component_handles(limits::GUEST_RESOURCES_MAX);
        store
    }
}

pub(in crate::wasm) fn guest(exports: &bindings::Function) -> GuestInstance<'_> {
    exports.stead_function_entity().instance()
}
