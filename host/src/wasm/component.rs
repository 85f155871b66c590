//! A module of a user, validated, compiled and linked: ready to be instantiated.

use crate::wasm::failure::Failure;
use crate::wasm::instance::{Description, Instance, InstanceLimits};

/// Cheap to clone.
#[derive(Clone)]
pub struct Component {
    _private: (),
}

impl Component {
    /// Runs `discovery.describe` in a fresh instance.
    pub fn describe(&self) -> Result<Description, Failure> {
        unreachable!()
    }

    /// A fresh instance, with `constructor(entity_type, entity_id)` called.
    pub fn instantiate(
        &self,
        _entity_type: &str,
        _entity_id: &str,
        _limits: InstanceLimits,
    ) -> Result<Instance, Failure> {
        unreachable!()
    }
}
