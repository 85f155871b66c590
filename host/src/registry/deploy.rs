//! Uploads, deployments and rollbacks.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::journal::{DeploymentRecord, Journal, ModuleRecord};
use crate::registry::live::Live;
use crate::registry::plan::{Plan, TypeName};
use crate::wasm::{Engine, Failure, Refusal};
use crate::words::{Digest, JournalName, Revision};

/// Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    _live: Arc<ArcSwap<Live>>,
}

#[derive(Clone, Debug)]
pub struct DeployRequest {
    pub modules: Vec<Digest>,
    /// Only say what would change.
    pub plan: bool,
    /// Even if entity types that have journals disappear or change their kind.
    pub force: bool,
    pub note: String,
}

/// What an upload brought.
#[derive(Clone, Debug)]
pub struct Upload {
    pub record: ModuleRecord,
    pub sdk: String,
    /// What a deployment of this module makes live.
    pub entity_types: Vec<TypeName>,
    pub already_present: bool,
}

/// Nothing that runs was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeployError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// One sentence per fault, naming service, method and field.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    #[error("the module failed to describe itself: {0}")]
    Describe(Failure),
    #[error("no module {0} was uploaded")]
    UnknownModule(Digest),
    #[error("there is no revision {0}")]
    UnknownRevision(Revision),
    #[error("{journal} has entities, and this deployment {change}; pass --force if you mean it")]
    WouldOrphan { journal: JournalName, change: String },
    #[error("{0}")]
    Journal(String),
}

impl Registry {
    /// Loads the newest revision and makes it live.
    pub async fn open(_engine: Engine, _journal: Journal) -> Result<Self, DeployError> {
        unreachable!()
    }

    pub fn live(&self) -> Arc<Live> {
        unreachable!()
    }

    /// Changes each time a revision takes effect.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Revision> {
        unreachable!()
    }

    /// Validates, compiles and stores a module; says what it contains. Idempotent.
    pub async fn upload(&self, _name: &str, _bytes: Bytes) -> Result<Upload, DeployError> {
        unreachable!()
    }

    pub async fn deploy(&self, _request: DeployRequest) -> Result<Plan, DeployError> {
        unreachable!()
    }

    /// Makes the modules of an earlier revision (none: the one before the newest) live again, as a
    /// new revision.
    pub async fn roll_back(
        &self,
        _to: Option<Revision>,
        _force: bool,
    ) -> Result<Plan, DeployError> {
        unreachable!()
    }

    pub async fn revisions(&self) -> Result<Vec<DeploymentRecord>, DeployError> {
        unreachable!()
    }
}
