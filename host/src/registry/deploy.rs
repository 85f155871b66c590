//! Uploads, deployments and rollbacks.

mod deployer;
mod retries;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::journal::{DeploymentRecord, Journal, ModuleRecord, StoreError};
use crate::registry::live::Live;
use crate::registry::modules::Modules;
use crate::registry::plan::{self, Plan, TypeName};
use crate::wasm::{Engine, Failure, Refusal};
use crate::words::limits::{DEPLOYMENTS_QUEUED_MAX, MODULE_NAME_BYTES_MAX};
use crate::words::{Digest, JournalName, Origin, Revision, clock};

use deployer::{Deployer, Look, Message};

/// Cheap to clone. One task decides about deployments, one after the other; it ends with the last clone.
#[derive(Clone)]
pub struct Registry {
    live: Arc<ArcSwap<Live>>,
    revision: watch::Receiver<Revision>,
    deployer: mpsc::Sender<Message>,
    /// How often a look for what other nodes have deployed was wished for.
    wishes: watch::Sender<u64>,
    looked: watch::Receiver<Look>,
    modules: Modules,
    journal: Journal,
}

#[derive(Clone, Debug)]
pub struct DeployRequest {
    pub modules: Vec<Digest>,
    /// Only say what would change.
    pub plan: bool,
    /// Even if entity types that have journals disappear or change their kind.
    pub force: bool,
    pub note: String,
    /// Where the actions of these modules may send HTTP requests.
    pub allow: Vec<Origin>,
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
    #[error("there is no earlier revision to go back to")]
    NoEarlierRevision,
    #[error("{journal} has entities, and this deployment {change}; pass --force if you mean it")]
    WouldOrphan { journal: JournalName, change: String },
    #[error(
        "other nodes deployed at the same time; revision {0} is theirs. Look at it, and try again"
    )]
    Overtaken(Revision),
    #[error("{0}")]
    Journal(String),
    /// The journal is there, but not as it was written.
    #[error("{0}")]
    Damaged(String),
}

impl DeployError {
    /// Whether the same may succeed another time though nobody has changed anything.
    fn may_pass(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.may_pass(),
            Self::Describe(failure) => failure.may_pass(),
            Self::Journal(_) => true,
            Self::Invalid(_)
            | Self::UnknownModule(_)
            | Self::UnknownRevision(_)
            | Self::NoEarlierRevision
            | Self::WouldOrphan { .. }
            | Self::Overtaken(_)
            | Self::Damaged(_) => false,
        }
    }
}

impl From<StoreError> for DeployError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => Self::Damaged(error.to_string()),
            error => Self::Journal(error.to_string()),
        }
    }
}

impl Registry {
    /// Loads the newest revision and makes it live. A module that cannot be loaded is left out, so that
    /// it does not keep the node from serving the others; `Live::broken` tells. If the reason may pass, it is
    /// tried again.
    pub async fn open(engine: Engine, journal: Journal) -> Result<Self, DeployError> {
        let modules = Modules::new(engine, journal.clone());
        let deployer = Deployer::open(modules.clone(), journal.clone()).await?;
        let (live, revision, looked) = (deployer.live(), deployer.watch(), deployer.looked());
        let (sender, inbox) = mpsc::channel(DEPLOYMENTS_QUEUED_MAX);
        let (wishes, wished) = watch::channel(0);
        tokio::spawn(deployer.run(inbox, wished));
        Ok(Self { live, revision, deployer: sender, wishes, looked, modules, journal })
    }

    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Changes each time that what is live does, from now on: a revision takes effect, or one of its modules
    /// that was left out comes in.
    pub fn watch(&self) -> watch::Receiver<Revision> {
        let mut revision = self.revision.clone();
        revision.mark_unchanged();
        revision
    }

    /// Validates, compiles and stores a module; says what it contains. Idempotent.
    pub async fn upload(&self, name: &str, bytes: Bytes) -> Result<Upload, DeployError> {
        if name.len() > MODULE_NAME_BYTES_MAX {
            return Err(DeployError::Invalid(vec![format!(
                "the module's name has {} bytes; the limit is {MODULE_NAME_BYTES_MAX}",
                name.len()
            )]));
        }
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        let loaded = self.modules.prepare(digest, name, bytes.clone()).await?;
        let shared = plan::shared_groups(&[&loaded.outline]);
        if !shared.is_empty() {
            return Err(DeployError::Invalid(shared));
        }
        let present = self.journal.modules().await?;
        let present = present.into_iter().find(|record| record.digest == digest);
        let already_present = present.is_some();
        let record = match present {
            Some(record) => record,
            None => {
                let uploaded_at_ms = clock::unix_ms();
                let name = name.to_owned();
                let record = ModuleRecord { digest, name, bytes: size, uploaded_at_ms };
                self.journal.put_module(&record, &bytes).await?;
                record
            }
        };
        Ok(Upload {
            record,
            sdk: loaded.module.sdk.clone(),
            entity_types: loaded.outline.types.clone(),
            already_present,
        })
    }

    /// Once it was accepted, a deployment takes place even if its caller goes away.
    pub async fn deploy(&self, request: DeployRequest) -> Result<Plan, DeployError> {
        self.ask(|answer| Message::Deploy { request, answer }).await
    }

    /// Makes the modules of an earlier revision (none: the one before the newest) live again, as a
    /// new revision.
    pub async fn roll_back(&self, to: Option<Revision>, force: bool) -> Result<Plan, DeployError> {
        self.ask(|answer| Message::RollBack { to, force, answer }).await
    }

    /// Makes the newest revision in the store live, if another node has deployed it. Returns the live one.
    ///
    /// One look at the store serves all who came before it began.
    pub async fn follow(&self) -> Result<Revision, DeployError> {
        let mut looked = self.looked.clone();
        let mut wish = 0;
        self.wishes.send_modify(|wishes| {
            *wishes += 1;
            wish = *wishes;
        });
        let look = looked.wait_for(|look| look.wishes >= wish).await.map_err(|_| stopped())?;
        look.live.clone()
    }

    /// The same, unless a revision as new as `wanted` is live. What is live afterwards is older only if the
    /// store has lost `wanted`.
    pub async fn reach(&self, wanted: Revision) -> Result<Revision, DeployError> {
        let live = self.live().revision;
        if live >= wanted {
            return Ok(live);
        }
        self.follow().await
    }

    /// Oldest first.
    pub async fn revisions(&self) -> Result<Vec<DeploymentRecord>, DeployError> {
        Ok(self.journal.deployments().await?)
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, DeployError>>) -> Message,
    ) -> Result<T, DeployError> {
        let (answer, answered) = oneshot::channel();
        self.deployer.send(message(answer)).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> DeployError {
    DeployError::Journal("deployments have stopped; restart the node".into())
}

#[cfg(test)]
mod tests;
