//! Floor 3: what is deployed. Modules, revisions, and the services that they make live.

mod consume;
pub mod deploy;
pub mod descriptor;
pub mod key;
pub mod live;
mod modules;
pub mod plan;
pub mod shape;
pub mod validate;
mod view;
mod wire;

#[cfg(test)]
pub(crate) mod testing;

pub use consume::{Consume, Start};
pub use deploy::{DeployError, DeployRequest, Registry, Upload};
pub use key::{KeyError, KeyReader};
pub use live::{Kind, Live, Method, Module, Service};
pub use plan::{Action, Change, Plan, TypeName};
pub use shape::Shape;
pub use validate::is_journal_name;
pub use view::{Asked, List, View, ViewMethod};
