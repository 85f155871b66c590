//! Floor 2: WebAssembly. Turns bytes from users into components, components into instances, and
//! whatever happens inside an instance into a value. Knows nothing of entities' lives.

pub mod arena;
pub mod cache;
pub mod compile;
pub mod component;
pub mod engine;
pub mod failure;
pub mod instance;
pub mod limits;
pub mod wasi;

pub use component::Component;
pub use engine::Engine;
pub use failure::{Failure, Refusal};
pub use instance::{
    Answer, Call, Command, Description, Effect, EntityType, Instance, InstanceLimits, Outcome,
    Rejection, Setting,
};
