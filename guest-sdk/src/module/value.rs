//! A value entity in memory.

use std::any::Any;
use std::rc::Rc;

use crate::context::Context;
use crate::event::EncodedMessage;
use crate::module::{Command, Entity, Handled};
use crate::rejection::Rejection;
use crate::service::Dispatch;
use crate::value::{Value, restored};
use crate::view::StateChange;

pub(super) struct Live<V> {
    service: &'static str,
    id: Rc<str>,
    state: V,
    exists: bool,
    dispatch: Dispatch<V>,
}

impl<V: Value> Live<V> {
    pub(super) fn new(service: &'static str, dispatch: Dispatch<V>, id: &str) -> Self {
        Self { service, id: id.into(), state: V::default(), exists: false, dispatch }
    }
}

impl<V: Value> Entity for Live<V> {
    fn id(&self) -> Rc<str> {
        self.id.clone()
    }

    fn restore(&mut self, state: &EncodedMessage) -> Result<(), String> {
        self.state = restored::<V>(state.decode::<V::State>()?)?;
        self.exists = true;
        Ok(())
    }

    fn apply(&mut self, type_name: &str, _data: &[u8]) -> Result<(), String> {
        Err(format!("a value entity has no events, but is given a {type_name}"))
    }

    fn handle(&mut self, mut command: Command) -> Result<Handled, Rejection> {
        command.invocation.service = self.service;
        command.invocation.exists = self.exists;
        let mut ctx = Context::new(command.invocation);
        let reply = (self.dispatch)(&self.state, &mut ctx, &command.method, &command.payload)?;
        let consequences = ctx.consequences();
        let change = changed::<V>(consequences.changes);
        match &change {
            StateChange::None => {}
            StateChange::Update(state) => {
                if let Err(fault) = self.restore(state) {
                    panic!("the entity cannot read the state that it has just made: {fault}");
                }
            }
            StateChange::Delete => {
                self.state = V::default();
                self.exists = false;
            }
        }
        Ok(Handled {
            answer: reply.answer(&self.state),
            effects: consequences.effects,
            events: Vec::new(),
            state: change,
            timers: consequences.timers,
        })
    }

    fn snapshot(&self) -> Option<EncodedMessage> {
        None
    }
}

/// The change that a context has noted.
pub(crate) fn changed<V: Value>(changes: Option<Box<dyn Any>>) -> StateChange {
    match changes.and_then(|changes| changes.downcast::<Option<V::State>>().ok()) {
        None => StateChange::None,
        Some(change) => match *change {
            Some(state) => StateChange::Update(EncodedMessage::of(&state)),
            None => StateChange::Delete,
        },
    }
}
