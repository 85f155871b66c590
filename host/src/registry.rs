//! Floor 3: what is deployed. Modules, revisions, and the services that they make live.

pub mod deploy;
pub mod descriptor;
pub mod key;
pub mod live;
pub mod validate;

pub use deploy::{DeployError, DeployRequest, Plan, Registry};
pub use key::{KeyError, KeyReader};
pub use live::{Kind, Live, Method, Module, Service};
