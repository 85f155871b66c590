//! What a module contains: its functions of every kind, as the contract of `wit/` has them, in Rust
//! terms and without WebAssembly.

// Off WebAssembly nobody calls a live function: tests drive the handlers themselves.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

mod acting;
pub(crate) mod event_sourced;
pub(crate) mod value;

use std::rc::Rc;

use crate::action::Action;
use crate::call::{Answer, Effect, TimerChange};
use crate::context::Invocation;
use crate::entity::EventSourced;
use crate::event::EncodedMessage;
use crate::rejection::Rejection;
use crate::service::{Rows, Service};
use crate::value::Value;
use crate::view::{self, StateChange, View};
use crate::workflow::{self, Workflow};

/// What [`export!`](crate::export) declares.
pub trait Module {
    fn entity_types() -> Vec<EntityType>;
}

/// One entity type, or another kind of function: a service, what implements it, and how the host shall
/// run it.
pub struct EntityType {
    pub(crate) service: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) descriptors: &'static [u8],
    pub(crate) journal: &'static str,
    pub(crate) snapshot_every: u32,
    pub(crate) passivate_after_ms: u32,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) runs: Runs,
}

/// What runs it.
pub(crate) enum Runs {
    Entity(Create),
    Action(Box<dyn Fn() -> Rc<dyn Acting>>),
    View(UpdateRow),
}

/// Makes the entity with this id, before its first event or state.
pub(crate) type Create = Box<dyn Fn(&str) -> Box<dyn Entity>>;

/// The row of an entity after some of its events.
pub(crate) type UpdateRow =
    fn(&str, Option<EncodedMessage>, &[EncodedMessage]) -> Result<StateChange, String>;

impl EntityType {
    fn of(
        service: &'static str,
        kind: &'static str,
        descriptors: &'static [u8],
        journal: &'static str,
        runs: Runs,
    ) -> Self {
        Self {
            service,
            kind,
            descriptors,
            journal,
            snapshot_every: 0,
            passivate_after_ms: 0,
            settings: Vec::new(),
            runs,
        }
    }

    /// `journal` is 1 to 128 characters of `A-Za-z0-9._-`.
    pub fn event_sourced<E: EventSourced>(service: Service<E>, journal: &'static str) -> Self {
        let Service { name, descriptors, dispatch } = service;
        let create: Create =
            Box::new(move |id| Box::new(event_sourced::Live::new(name, dispatch, id)));
        Self::of(name, "event-sourced", descriptors, journal, Runs::Entity(create))
    }

    /// `journal` as of [`event_sourced`](Self::event_sourced).
    pub fn value<V: Value>(service: Service<V>, journal: &'static str) -> Self {
        let Service { name, descriptors, dispatch } = service;
        let create: Create = Box::new(move |id| Box::new(value::Live::new(name, dispatch, id)));
        Self::of(name, "value", descriptors, journal, Runs::Entity(create))
    }

    /// `journal` as of [`event_sourced`](Self::event_sourced).
    pub fn workflow<W: Workflow>(
        service: workflow::service::Service<W>,
        journal: &'static str,
    ) -> Self {
        let (name, descriptors) = (service.name, service.descriptors);
        let create: Create = Box::new(move |id| Box::new(workflow::Live::new(service, id)));
        Self::of(name, "workflow", descriptors, journal, Runs::Entity(create))
    }

    /// Stateless: it has no journal.
    pub fn action<A: Action>(service: Service<A>) -> Self {
        let Service { name, descriptors, dispatch } = service;
        let create = Box::new(move || -> Rc<dyn Acting> {
            Rc::new(acting::Live { service: name, action: A::default(), dispatch })
        });
        Self::of(name, "action", descriptors, name, Runs::Action(create))
    }

    /// `source` is the journal name of the entity type of whose events it is made.
    pub fn view<V: View>(service: Rows, source: &'static str) -> Self {
        let Rows { name, descriptors } = service;
        Self::of(name, "view", descriptors, name, Runs::View(view::update::<V>))
            .setting("source", source)
    }

    fn setting(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    /// Ask for a snapshot each time the sequence number passes a multiple of this; otherwise 100. For
    /// event-sourced entities.
    pub fn snapshot_every(mut self, events: u32) -> Self {
        self.snapshot_every = events;
        self
    }

    /// Passivate an entity that has been idle for so long; otherwise after 30,000.
    pub fn passivate_after_ms(mut self, milliseconds: u32) -> Self {
        self.passivate_after_ms = milliseconds;
        self
    }

    /// The memory that one instance may grow to, 1 to 1024; otherwise 64.
    pub fn memory_max_mib(self, mebibytes: u32) -> Self {
        self.setting("memory-max-mib", mebibytes)
    }

    /// The time that one command may take, 1 to 60000; otherwise 1000. While an action waits for the
    /// host, it does not count.
    pub fn deadline_ms(self, milliseconds: u32) -> Self {
        self.setting("deadline-ms", milliseconds)
    }

    /// Of a value entity: how many of its newest states are kept, 1 to 1000; otherwise 1.
    pub fn history(self, states: u32) -> Self {
        self.setting("history", states)
    }

    /// Of a view: with another number, 1 to 1000000000, it is made anew; otherwise 1.
    pub fn version(self, version: u32) -> Self {
        self.setting("version", version)
    }
}

/// A command as the host delivers it.
pub(crate) struct Command {
    pub method: String,
    pub payload: Vec<u8>,
    pub invocation: Invocation,
}

/// An entity in memory, whatever its type.
pub(crate) trait Entity {
    fn id(&self) -> Rc<str>;
    fn restore(&mut self, state: &EncodedMessage) -> Result<(), String>;
    fn apply(&mut self, type_name: &str, data: &[u8]) -> Result<(), String>;
    fn handle(&mut self, command: Command) -> Result<Handled, Rejection>;
    fn snapshot(&self) -> Option<EncodedMessage>;
}

/// An action in memory.
pub(crate) trait Acting {
    fn handle(&self, command: Command) -> Conclusion;
}

/// A command that was accepted; what it changes has been applied.
#[derive(Debug, PartialEq)]
pub(crate) struct Handled {
    pub answer: Answer<Vec<u8>>,
    pub effects: Vec<Effect>,
    pub events: Vec<EncodedMessage>,
    pub state: StateChange,
    pub timers: Vec<TimerChange>,
}

/// How a call of an action ended.
pub(crate) struct Conclusion {
    pub answer: Result<Answer<Vec<u8>>, Rejection>,
    pub effects: Vec<Effect>,
}

#[cfg(test)]
mod tests;
