//! From a path to a method: full names (`/pkg.Service/Method`) and `google.api.http` templates.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::MethodDescriptor;

use crate::registry::{Method, Service};

/// A unary method that can be called.
pub struct Endpoint {
    pub descriptor: MethodDescriptor,
    pub service: Arc<str>,
    pub method: Arc<str>,
    pub target: Target,
}

/// Who answers.
pub enum Target {
    Entity { service: Arc<Service>, method: Arc<Method> },
    Admin,
}

/// All endpoints of a port. Immutable: a deployment builds a new one.
#[derive(Default)]
pub struct Routes {
    pub by_path: HashMap<Arc<str>, Arc<Endpoint>>,
}
