//! A module's entity types, and a live entity of any of them: the contract of `wit/` in Rust terms,
//! without WebAssembly.

// Off WebAssembly nobody calls a live entity: tests drive the handlers themselves.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

use std::rc::Rc;

use crate::context::{Call, Context};
use crate::entity::EventSourced;
use crate::event::{EncodedMessage, Events};
use crate::rejection::Rejection;
use crate::service::{Dispatch, Service};

/// What [`export!`](crate::export) declares.
pub trait Module {
    fn entity_types() -> Vec<EntityType>;
}

/// One entity type: a service, the entity that implements it, and how the host shall run it.
pub struct EntityType {
    pub(crate) service: &'static str,
    pub(crate) descriptors: &'static [u8],
    pub(crate) journal: &'static str,
    pub(crate) snapshot_every: u32,
    pub(crate) passivate_after_ms: u32,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) create: Create,
}

impl EntityType {
    /// `journal` is 1 to 128 characters of `A-Za-z0-9._-`.
    pub fn new<E: EventSourced>(service: Service<E>, journal: &'static str) -> Self {
        let dispatch = service.dispatch;
        Self {
            service: service.name,
            descriptors: service.descriptors,
            journal,
            snapshot_every: 0,
            passivate_after_ms: 0,
            settings: Vec::new(),
            create: Box::new(move |id| Box::new(Live::new(dispatch, id))),
        }
    }

    /// Ask for a snapshot each time the sequence number passes a multiple of this; otherwise 100.
    pub fn snapshot_every(mut self, events: u32) -> Self {
        self.snapshot_every = events;
        self
    }

    /// Passivate an entity that has been idle for so long; otherwise after 30,000.
    pub fn passivate_after_ms(mut self, milliseconds: u32) -> Self {
        self.passivate_after_ms = milliseconds;
        self
    }

    /// The memory that one entity may grow to, 1 to 1024; otherwise 64.
    pub fn memory_max_mib(mut self, mebibytes: u32) -> Self {
        self.settings.push(("memory-max-mib", mebibytes.to_string()));
        self
    }

    /// The time that one command may take, 1 to 60000; otherwise 1000.
    pub fn deadline_ms(mut self, milliseconds: u32) -> Self {
        self.settings.push(("deadline-ms", milliseconds.to_string()));
        self
    }
}

/// Makes the entity with this id, before its first event.
pub(crate) type Create = Box<dyn Fn(&str) -> Box<dyn Entity>>;

/// A command as the host delivers it.
pub(crate) struct Command {
    pub method: String,
    pub payload: Vec<u8>,
    pub call: Call,
}

/// An entity in memory, whatever its type.
pub(crate) trait Entity {
    fn id(&self) -> Rc<str>;
    fn restore(&mut self, state: &EncodedMessage) -> Result<(), String>;
    fn apply(&mut self, type_name: &str, data: &[u8]) -> Result<(), String>;
    fn handle(&mut self, command: Command) -> Result<Handled, Rejection>;
    fn snapshot(&self) -> Option<EncodedMessage>;
}

/// A command that was accepted; its events have been applied.
pub(crate) struct Handled {
    pub response: Vec<u8>,
    pub events: Vec<EncodedMessage>,
}

struct Live<E: EventSourced> {
    id: Rc<str>,
    state: E,
    dispatch: Dispatch<E>,
}

impl<E: EventSourced> Live<E> {
    fn new(dispatch: Dispatch<E>, id: &str) -> Self {
        Self { id: id.into(), state: E::default(), dispatch }
    }
}

impl<E: EventSourced> Entity for Live<E> {
    fn id(&self) -> Rc<str> {
        self.id.clone()
    }

    fn restore(&mut self, state: &EncodedMessage) -> Result<(), String> {
        let snapshot = state.decode::<E::Snapshot>()?;
        self.state.restore(snapshot)
    }

    fn apply(&mut self, type_name: &str, data: &[u8]) -> Result<(), String> {
        self.state.apply(E::Event::decode(type_name, data)?);
        Ok(())
    }

    fn handle(&mut self, command: Command) -> Result<Handled, Rejection> {
        let mut ctx = Context::new(command.call);
        let reply = (self.dispatch)(&self.state, &mut ctx, &command.method, &command.payload)?;
        // Past this point nothing is refused any more: the events count.
        let events = ctx.events.iter().map(Events::encode).collect();
        for event in ctx.events {
            self.state.apply(event);
        }
        Ok(Handled { response: reply.response(&self.state), events })
    }

    fn snapshot(&self) -> Option<EncodedMessage> {
        self.state.snapshot().map(|snapshot| EncodedMessage::of(&snapshot))
    }
}

#[cfg(test)]
mod tests;
