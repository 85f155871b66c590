//! Modules on their way from bytes to something that can be live.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::journal::Journal;
use crate::registry::deploy::DeployError;
use crate::registry::live::{Module, Service};
use crate::registry::plan::{Outline, TypeName};
use crate::registry::validate;
use crate::wasm::{Engine, Failure, Refusal};
use crate::words::limits::{IDLE_MODULES_MAX, MODULE_BYTES_MAX, MODULES_PREPARED_AT_ONCE_MAX};
use crate::words::{Digest, ServiceName};

/// A module that can be made live.
pub struct Loaded {
    pub module: Arc<Module>,
    pub services: Vec<Arc<Service>>,
    pub outline: Outline,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Modules {
    engine: Engine,
    journal: Journal,
    turns: Arc<Semaphore>,
    /// The newest last. The live ones are kept by who makes them live.
    recent: Arc<Mutex<VecDeque<Arc<Loaded>>>>,
}

/// The groups that a service consumes with, each once.
fn groups_of(service: &Service) -> BTreeSet<(String, ServiceName)> {
    let consumes = service.methods.values().filter_map(|method| method.consume.as_ref());
    consumes.map(|consume| (consume.group_of_log(), service.name.clone())).collect()
}

impl Modules {
    pub fn new(engine: Engine, journal: Journal) -> Self {
        let turns = Arc::new(Semaphore::new(MODULES_PREPARED_AT_ONCE_MAX));
        Self { engine, journal, turns, recent: Arc::default() }
    }

    /// A module that was uploaded before.
    pub async fn load(&self, digest: Digest) -> Result<Arc<Loaded>, DeployError> {
        if let Some(loaded) = self.recent(digest) {
            return Ok(loaded);
        }
        let stored = self.journal.module(&digest).await?;
        let (record, bytes) = stored.ok_or(DeployError::UnknownModule(digest))?;
        self.prepare(digest, &record.name, bytes).await
    }

    /// Compiles and judges a module. Stores nothing.
    pub async fn prepare(
        &self,
        digest: Digest,
        name: &str,
        bytes: Bytes,
    ) -> Result<Arc<Loaded>, DeployError> {
        if bytes.len() > MODULE_BYTES_MAX {
            let bytes = bytes.len();
            return Err(Refusal::TooLarge { bytes, max: MODULE_BYTES_MAX }.into());
        }
        // Never closed, so an error means that there is no turn to wait for.
        let _turn = self.turns.acquire().await.ok();
        if let Some(loaded) = self.recent(digest) {
            return Ok(loaded);
        }
        let component = self.engine.load(digest, bytes).await?;
        let name = name.to_owned();
        let loaded = spawn_blocking(move || {
            let description = component.describe().map_err(DeployError::Describe)?;
            let checked = validate::check(&description).map_err(DeployError::Invalid)?;
            let (module, services) =
                validate::assemble(digest, &name, component, &description, checked);
            let types = services.iter().map(|service| TypeName::of(service)).collect();
            let groups = services.iter().flat_map(|service| groups_of(service)).collect();
            let outline = Outline { digest, name, types, groups };
            Ok(Arc::new(Loaded { module, services, outline }))
        });
        let loaded = loaded.await.unwrap_or_else(|panic| {
            tracing::error!(module = %digest, %panic, "judging a module panicked");
            let reason = "the host could not judge its description".to_owned();
            Err(DeployError::Describe(Failure::Malformed { reason }))
        })?;
        self.remember(Arc::clone(&loaded));
        Ok(loaded)
    }

    fn recent(&self, digest: Digest) -> Option<Arc<Loaded>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().find(|loaded| loaded.module.digest == digest).cloned()
    }

    /// Keeps a module compiled for a while.
    pub fn remember(&self, loaded: Arc<Loaded>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|other| other.module.digest != loaded.module.digest);
        recent.push_back(loaded);
        while recent.len() > IDLE_MODULES_MAX {
            recent.pop_front();
        }
    }
}
