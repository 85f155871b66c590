//! Floor 2: WebAssembly. Turns bytes from users into components, components into instances, and
//! whatever happens inside an instance into a value. Knows nothing of entities' lives.

pub mod engine;

pub mod compile;

mod validate;

mod cache;

pub mod component;

pub mod instance;

pub mod action;

pub mod view;

pub mod pool;

mod answer;

pub mod failure;

mod bindings;

pub mod calls;

mod deadline;

mod limits;

mod arena;

mod wasi;

mod http;

#[cfg(test)]
pub(crate) mod fixtures;

pub use action::{ActionInstance, Conclusion};
pub use calls::{Conversation, Gone};
pub use component::{Component, Interfaces};
pub use engine::{Engine, EngineConfig};
pub use failure::{Failure, Refusal};
pub use instance::{
    Answer, Call, Command, Description, Due, Effect, EntityType, Instance, InstanceLimits, Outcome,
    Rejection, Setting, StateChange, Timer, TimerChange,
};
pub use pool::{Place, Pool, PoolError, Pooled};
pub use view::ViewInstance;
