//! Floor 2: WebAssembly. Turns bytes from users into components, components into instances, and
//! whatever happens inside an instance into a value. Knows nothing of entities' lives.

pub mod engine;

pub mod compile;

mod validate;

mod cache;

pub mod component;

pub mod instance;

mod answer;

pub mod failure;

mod bindings;

mod calls;

mod deadline;

mod limits;

mod arena;

mod wasi;

#[cfg(test)]
pub(crate) mod fixtures;

pub use component::{Component, Interfaces};
pub use engine::{Engine, EngineConfig};
pub use failure::{Failure, Refusal};
pub use instance::{
    Answer, Call, Command, Description, Due, Effect, EntityType, Instance, InstanceLimits, Outcome,
    Rejection, Setting, StateChange, Timer, TimerChange,
};
