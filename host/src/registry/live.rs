//! What is live: an immutable snapshot that is swapped as a whole when a revision takes effect.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::registry::consume::Consume;
use crate::registry::key::KeyReader;
use crate::registry::shape::Shape;
use crate::registry::view::View;
use crate::wasm::{ActionInstance, Component, InstanceLimits, Pool, ViewInstance};
use crate::words::telemetry::CommandMetrics;
use crate::words::{Digest, JournalName, Revision, ServiceName};

/// One revision, ready to serve. Readers keep the `Arc` for the length of a call.
pub struct Live {
    /// 0 before the first deployment.
    pub revision: Revision,
    /// Stepped each time that what is live changes, also within a revision: when a module that was left out
    /// comes in.
    pub generation: u64,
    pub modules: Vec<Arc<Module>>,
    /// By full service name.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Modules of this revision that could not be loaded, and why. Their services are left out.
    pub broken: Vec<(Digest, String)>,
}

/// A module whose description was found valid.
pub struct Module {
    pub digest: Digest,
    pub name: String,
    pub sdk: String,
    pub component: Component,
    pub pool: DescriptorPool,
    /// The file descriptor set as the guest gave it.
    pub file_descriptor_set: bytes::Bytes,
}

/// The method of the command with which a workflow gets the result of an effect.
pub const RESULT_METHOD: &str = "stead.Result";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EventSourced,
    Value,
    Workflow,
    Action,
    View,
}

impl Kind {
    pub const ALL: [Kind; 5] =
        [Kind::EventSourced, Kind::Value, Kind::Workflow, Kind::Action, Kind::View];

    /// As modules, the admin API and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::EventSourced => "event-sourced",
            Kind::Value => "value",
            Kind::Workflow => "workflow",
            Kind::Action => "action",
            Kind::View => "view",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it is made of entities, each with a key and a journal.
    pub fn has_entities(self) -> bool {
        match self {
            Kind::EventSourced | Kind::Value | Kind::Workflow => true,
            Kind::Action | Kind::View => false,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An entity type that can be called.
pub struct Service {
    pub name: ServiceName,
    pub kind: Kind,
    pub journal: JournalName,
    pub module: Arc<Module>,
    pub snapshot_every: u32,
    pub passivate_after: Duration,
    pub limits: InstanceLimits,
    /// Of a value entity: how many of its newest states are kept.
    pub history: u32,
    /// Of a view: its rows and what can be asked of them.
    pub view: Option<View>,
    /// The instances of a service of actions.
    pub action_pool: Option<Pool<ActionInstance>>,
    /// The instances of a view.
    pub view_pool: Option<Pool<ViewInstance>>,
    /// By method name.
    pub methods: BTreeMap<Arc<str>, Arc<Method>>,
    /// Of a workflow: the method, sent by the host alone, that takes the results of its effects.
    pub result: Option<Arc<Method>>,
}

pub struct Method {
    pub name: Arc<str>,
    /// `/package.Service/Method`
    pub path: Arc<str>,
    pub descriptor: MethodDescriptor,
    /// Finds the entity key in the request's binary encoding. None if the service has no entities.
    pub key: Option<KeyReader>,
    /// Of an action: the event log that it consumes.
    pub consume: Option<Consume>,
    /// Tells whether a reply of the guest can be decoded.
    pub response: Shape,
    /// Resolved with the first command.
    pub metrics: OnceLock<CommandMetrics>,
}

impl Method {
    /// Whether the request, the answer or both are streams.
    pub fn streams(&self) -> bool {
        self.descriptor.is_client_streaming() || self.descriptor.is_server_streaming()
    }

    /// The one that takes results, of a workflow with this method. Its replies are dropped.
    pub(super) fn of_results(other: &Method, service: &ServiceName) -> Self {
        Self {
            name: RESULT_METHOD.into(),
            path: format!("/{service}/{RESULT_METHOD}").into(),
            descriptor: other.descriptor.clone(),
            key: None,
            response: other.response.clone(),
            metrics: OnceLock::new(),
            consume: None,
        }
    }
}

impl Live {
    pub fn method(&self, service: &str, method: &str) -> Option<(&Arc<Service>, &Arc<Method>)> {
        let service = self.services.get(service)?;
        Some((service, service.methods.get(method)?))
    }

    /// Which module serves a service.
    pub fn module_of(&self, service: &str) -> Option<Digest> {
        self.services.get(service).map(|service| service.module.digest)
    }

    pub fn by_journal(&self, journal: &JournalName) -> Option<&Arc<Service>> {
        self.services.values().find(|service| service.journal == *journal)
    }
}
