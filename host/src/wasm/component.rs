//! A module of a user, validated, compiled and linked: ready to be instantiated.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::wasm::answer;
use crate::wasm::bindings::{action, discovery, entity, view};
use crate::wasm::deadline;
use crate::wasm::engine::Engine;
use crate::wasm::failure::{Failure, Refusal};
use crate::wasm::http::{Granted, Http};
use crate::wasm::instance::{self, Description, Instance, InstanceLimits};
use crate::wasm::limits::Data;
use crate::wasm::validate::Checked;
use crate::wasm::wasi::Wasi;
use crate::words::{Origin, limits};

/// Cheap to clone.
#[derive(Clone)]
pub struct Component {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    /// To it, `calls` is a trap.
    plain: InstancePre<Data>,
    discovery: discovery::GuestIndices,
    entity: Option<entity::GuestIndices>,
    action: Option<action::GuestIndices>,
    /// With `calls` that wait; none if it does not import them.
    waiting: Option<InstancePre<Data>>,
    view: Option<view::GuestIndices>,
    imports_wasi: bool,
    /// If it imports `wasi:http`.
    http: Option<Granted>,
}

/// What a component implements beside `discovery`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    pub entity: bool,
    pub action: bool,
    pub view: bool,
}

impl Component {
    pub(in crate::wasm) fn link(
        engine: &Engine,
        component: &wasmtime::component::Component,
        checked: Checked,
    ) -> Result<Self, Refusal> {
        let plain = engine
            .linker(checked.imports_wasi)
            .instantiate_pre(component)
            .map_err(|error| Refusal::Invalid { reason: format!("{error:#}") })?;
        let other_types =
            |error: wasmtime::Error| Refusal::OtherTypes { reason: format!("{error:#}") };
        let Interfaces { entity, action, view } = checked.interfaces;
        let waiting = match action && (checked.imports_calls || checked.imports_http) {
            true => Some(
                engine
                    .waiting_linker(checked.imports_http)
                    .instantiate_pre(component)
                    .map_err(|error| Refusal::Invalid { reason: format!("{error:#}") })?,
            ),
            false => None,
        };
        let inner = Inner {
            engine: engine.clone(),
            discovery: discovery::GuestIndices::new(&plain).map_err(other_types)?,
            entity: entity
                .then(|| entity::GuestIndices::new(&plain))
                .transpose()
                .map_err(other_types)?,
            action: action
                .then(|| action::GuestIndices::new(&plain))
                .transpose()
                .map_err(other_types)?,
            waiting,
            view: view.then(|| view::GuestIndices::new(&plain)).transpose().map_err(other_types)?,
            plain,
            imports_wasi: checked.imports_wasi,
            http: checked.imports_http.then(Granted::default),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether its actions can be deployed only with a grant.
    pub fn needs_grant(&self) -> bool {
        self.inner.http.is_some()
    }

    /// Says where its actions may send requests, those that run included.
    pub fn grant(&self, origins: Vec<Origin>) {
        if let Some(http) = &self.inner.http {
            http.set(origins);
        }
    }

    fn interfaces(&self) -> Interfaces {
        Interfaces {
            entity: self.inner.entity.is_some(),
            action: self.inner.action.is_some(),
            view: self.inner.view.is_some(),
        }
    }

    /// Runs `discovery.describe` in a fresh instance.
    pub fn describe(&self) -> Result<Description, Failure> {
        let limits = InstanceLimits {
            memory_bytes_max: limits::GUEST_MEMORY_BYTES_DEFAULT,
            deadline: limits::GUEST_DEADLINE_DEFAULT,
        };
        let mut store = self.store(limits, "discovery", "describe");
        let described = instance::call(&mut store, limits::GUEST_HOSTCALL_BYTES_MAX, |store| {
            let instance = self.inner.plain.instantiate(&mut *store)?;
            self.inner.discovery.load(&mut *store, &instance)?.call_describe(store)
        })?;
        answer::description(described, self.interfaces())
    }

    /// A fresh instance, with `constructor(entity_type, entity_id)` called.
    pub fn instantiate(
        &self,
        entity_type: &str,
        entity_id: &str,
        limits: InstanceLimits,
    ) -> Result<Instance, Failure> {
        let Some(indices) = &self.inner.entity else { return Err(not_exported("entity")) };
        let mut store = self.store(limits, entity_type, entity_id);
        let (guest, resource) =
            instance::call(&mut store, limits::GUEST_HOSTCALL_BYTES_MAX, |store| {
                let instance = self.inner.plain.instantiate(&mut *store)?;
                let guest = indices.load(&mut *store, &instance)?;
                let resource = guest.instance().call_constructor(store, entity_type, entity_id)?;
                Ok((guest, resource))
            })?;
        Ok(Instance::new(store, guest, resource))
    }

    /// A store of actions, which may send requests.
    pub(in crate::wasm) fn action_store(
        &self,
        limits: InstanceLimits,
        service: &str,
    ) -> Store<Data> {
        let mut store = self.store(limits, service, "");
        if let Some(http) = &self.inner.http {
            store.data_mut().http = Some(Box::new(Http::new(http.clone())));
        }
        store
    }

    /// What an instance of actions is made of, and whether its calls may wait.
    pub(in crate::wasm) fn action(
        &self,
    ) -> Result<(&InstancePre<Data>, &action::GuestIndices, bool), Failure> {
        let Some(indices) = &self.inner.action else { return Err(not_exported("action")) };
        Ok(match &self.inner.waiting {
            Some(waiting) => (waiting, indices, true),
            None => (&self.inner.plain, indices, false),
        })
    }

    /// What an instance of views is made of.
    pub(in crate::wasm) fn view(
        &self,
    ) -> Result<(&InstancePre<Data>, &view::GuestIndices), Failure> {
        let Some(indices) = &self.inner.view else { return Err(not_exported("view")) };
        Ok((&self.inner.plain, indices))
    }

    pub(in crate::wasm) fn store(
        &self,
        limits: InstanceLimits,
        entity_type: &str,
        entity_id: &str,
    ) -> Store<Data> {
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

/// The registry lets no such service become live.
fn not_exported(interface: &str) -> Failure {
    Failure::Malformed {
        reason: format!("the component does not export the interface {interface}"),
    }
}
