//! An event-sourced entity in memory.

use std::rc::Rc;

use crate::context::Context;
use crate::entity::EventSourced;
use crate::event::{EncodedMessage, Events};
use crate::module::{Command, Entity, Handled};
use crate::rejection::Rejection;
use crate::service::Dispatch;
use crate::view::StateChange;

pub(super) struct Live<E> {
    service: &'static str,
    id: Rc<str>,
    state: E,
    dispatch: Dispatch<E>,
}

impl<E: EventSourced> Live<E> {
    pub(super) fn new(service: &'static str, dispatch: Dispatch<E>, id: &str) -> Self {
        Self { service, id: id.into(), state: E::default(), dispatch }
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

    fn handle(&mut self, mut command: Command) -> Result<Handled, Rejection> {
        command.invocation.service = self.service;
        let mut ctx = Context::new(command.invocation);
        let reply = (self.dispatch)(&self.state, &mut ctx, &command.method, &command.payload)?;
        // Past this point nothing is refused any more: the events count.
        let consequences = ctx.consequences();
        let emitted = events::<E>(consequences.changes);
        let events = emitted.iter().map(Events::encode).collect();
        for event in emitted {
            self.state.apply(event);
        }
        Ok(Handled {
            answer: reply.answer(&self.state),
            effects: consequences.effects,
            events,
            state: StateChange::None,
            timers: consequences.timers,
        })
    }

    fn snapshot(&self) -> Option<EncodedMessage> {
        self.state.snapshot().map(|snapshot| EncodedMessage::of(&snapshot))
    }
}

/// The events that a context has collected.
pub(crate) fn events<E: EventSourced>(changes: Option<Box<dyn std::any::Any>>) -> Vec<E::Event> {
    let events = changes.and_then(|changes| changes.downcast::<Vec<E::Event>>().ok());
    events.map_or_else(Vec::new, |events| *events)
}
