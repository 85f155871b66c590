//! The component's exports and imports: the WIT contract on one side, a [`Module`] on the other.

mod convert;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::action::Gone;
use crate::call::{Answer, Effect, Request};
use crate::context::{Invocation, Metadata};
use crate::descriptors;
use crate::module::{self, Acting, Entity, EntityType, Module, Runs, UpdateRow};
use crate::rejection::Rejection;

pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "functions",
        pub_export_macro: true,
        export_macro_name: "__export_function",
        default_bindings_module: "stead_sdk::__private::bindings",
    });
}

use bindings::exports::stead::function::{action, discovery, entity, view};
use bindings::stead::function::{calls, types};

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
        kind: entity_type.kind.into(),
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

fn runs<M: Module>(service: &str) -> Option<Runs> {
    let found = M::entity_types().into_iter().find(|entity_type| entity_type.service == service);
    found.map(|entity_type| entity_type.runs)
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
        let Some(Runs::Entity(create)) = runs::<M>(&entity_type) else {
            panic!("this module has no entity type {entity_type}")
        };
        Self { entity: RefCell::new(create(&entity_id)), module: PhantomData }
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
        let id = entity.id();
        match entity.handle(delivered(command, id)) {
            Ok(handled) => Ok(handled.into()),
            Err(rejection) => Err(rejection.into()),
        }
    }

    fn snapshot(&self) -> Option<types::Message> {
        self.entity.borrow().snapshot().map(Into::into)
    }
}

fn delivered(command: types::Command, entity_id: Rc<str>) -> module::Command {
    let metadata = command.metadata.into_iter().map(|entry| (entry.name, entry.value));
    let invocation = Invocation {
        entity_id,
        command_id: command.id,
        metadata: Metadata::new(metadata.collect()),
        now_ms: command.now_ms,
        seed: command.seed,
        ..Invocation::default()
    };
    module::Command { method: command.method, payload: command.payload, invocation }
}

/// What an instance of the module keeps from one call to the next.
#[derive(Default)]
struct Kept {
    actions: Vec<(String, Rc<dyn Acting>)>,
    views: Vec<(String, UpdateRow)>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

impl<M: Module> action::Guest for M {
    fn handle(service: String, command: types::Command) -> action::Conclusion {
        let known = KEPT.with_borrow(|kept| {
            kept.actions.iter().find(|entry| entry.0 == service).map(|entry| Rc::clone(&entry.1))
        });
        let acting = known.unwrap_or_else(|| {
            let Some(Runs::Action(create)) = runs::<M>(&service) else {
                panic!("this module has no action {service}")
            };
            let created = create();
            KEPT.with_borrow_mut(|kept| kept.actions.push((service, Rc::clone(&created))));
            created
        });
        let conclusion = acting.handle(delivered(command, Rc::from("")));
        action::Conclusion {
            answer: conclusion.answer.map(Into::into).map_err(Into::into),
            effects: conclusion.effects.into_iter().map(Into::into).collect(),
        }
    }
}

impl<M: Module> view::Guest for M {
    fn update(
        service: String,
        entity_id: String,
        row: Option<types::Message>,
        events: Vec<types::Message>,
    ) -> Result<types::StateChange, String> {
        let known = KEPT.with_borrow(|kept| {
            kept.views.iter().find(|entry| entry.0 == service).map(|entry| entry.1)
        });
        let update = known.unwrap_or_else(|| {
            let Some(Runs::View(update)) = runs::<M>(&service) else {
                panic!("this module has no view {service}")
            };
            KEPT.with_borrow_mut(|kept| kept.views.push((service, update)));
            update
        });
        let events = events.into_iter().map(Into::into).collect::<Vec<_>>();
        update(&entity_id, row.map(Into::into), &events).map(Into::into)
    }
}

pub(crate) fn receive() -> Result<Option<Vec<u8>>, Gone> {
    calls::receive().map_err(Into::into)
}

pub(crate) fn send(answer: Answer<Vec<u8>>, effects: Vec<Effect>) -> Result<(), Gone> {
    let effects = effects.into_iter().map(Into::into).collect::<Vec<_>>();
    calls::send(&calls::Response { answer: answer.into(), effects }).map_err(Into::into)
}

pub(crate) fn call(call: Request) -> Result<Vec<u8>, Rejection> {
    calls::call(&types::Call::from(call)).map_err(Into::into)
}
