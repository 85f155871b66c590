//! The component's exports: the WIT contract on one side, a [`Module`] on the other.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::context::{Call, Metadata};
use crate::descriptors;
use crate::event::EncodedMessage;
use crate::module::{self, Entity, EntityType, Module};

pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "function",
        pub_export_macro: true,
        export_macro_name: "__export_function",
        default_bindings_module: "stead_sdk::__private::bindings",
    });
}

use bindings::exports::stead::function::{discovery, entity};
use bindings::stead::function::types;

const SDK: &str = concat!("stead-sdk-rust/", env!("CARGO_PKG_VERSION"));

impl<M: Module> discovery::Guest for M {
    fn describe() -> types::Description {
        let entity_types = M::entity_types();
        types::Description {
            file_descriptor_set: descriptors::merge(entity_types.iter().map(|t| t.descriptors)),
            entity_types: entity_types.into_iter().map(described).collect(),
            sdk: SDK.into(),
        }
    }
}

fn described(entity_type: EntityType) -> types::EntityType {
    types::EntityType {
        service: entity_type.service.into(),
        kind: "event-sourced".into(),
        journal_name: entity_type.journal.into(),
        snapshot_every: entity_type.snapshot_every,
        passivate_after_ms: entity_type.passivate_after_ms,
        settings: entity_type
            .settings
            .into_iter()
            .map(|(name, value)| types::Setting { name: name.into(), value })
            .collect(),
    }
}

impl<M: Module + 'static> entity::Guest for M {
    type Instance = Instance<M>;
}

pub struct Instance<M> {
    entity: RefCell<Box<dyn Entity>>,
    module: PhantomData<M>,
}

impl<M: Module + 'static> entity::GuestInstance for Instance<M> {
    fn new(entity_type: String, entity_id: String) -> Self {
        let found = M::entity_types().into_iter().find(|t| t.service == entity_type);
        let Some(found) = found else { panic!("this module has no entity type {entity_type}") };
        Self { entity: RefCell::new((found.create)(&entity_id)), module: PhantomData }
    }

    fn restore(&self, state: types::Message) -> Result<(), String> {
        self.entity.borrow_mut().restore(&state.into())
    }

    fn apply(&self, events: Vec<types::Message>) -> Result<(), String> {
        let mut entity = self.entity.borrow_mut();
        events.iter().try_for_each(|event| entity.apply(&event.type_name, &event.data))
    }

    fn handle(&self, command: types::Command) -> Result<types::Outcome, types::Rejection> {
        let mut entity = self.entity.borrow_mut();
        let metadata = command.metadata.into_iter().map(|entry| (entry.name, entry.value));
        let call = Call {
            entity_id: entity.id(),
            command_id: command.id,
            metadata: Metadata::new(metadata.collect()),
            now_ms: command.now_ms,
            seed: command.seed,
        };
        let command = module::Command { method: command.method, payload: command.payload, call };
        match entity.handle(command) {
            Ok(handled) => Ok(types::Outcome {
                answer: types::Answer::Reply(handled.response),
                effects: Vec::new(),
                events: handled.events.into_iter().map(Into::into).collect(),
                state_change: types::StateChange::None,
                timers: Vec::new(),
            }),
            Err(rejection) => Err(types::Rejection {
                code: rejection.code as u32,
                message: rejection.message,
                details: rejection.details.into_iter().map(Into::into).collect(),
            }),
        }
    }

    fn snapshot(&self) -> Option<types::Message> {
        self.entity.borrow().snapshot().map(Into::into)
    }
}

impl From<types::Message> for EncodedMessage {
    fn from(message: types::Message) -> Self {
        Self { type_name: message.type_name, data: message.data }
    }
}

impl From<EncodedMessage> for types::Message {
    fn from(message: EncodedMessage) -> Self {
        Self { type_name: message.type_name, data: message.data }
    }
}
