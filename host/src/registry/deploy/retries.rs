//! Modules that could not be loaded for a reason that may pass: tried again, less and less often.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::DeployError;
use crate::registry::modules::{Loaded, Modules};
use crate::words::Digest;
use crate::words::limits::{MODULE_RETRY_MAX, MODULE_RETRY_MIN};

/// What came of trying one.
pub(super) type Retried = (Digest, Result<Arc<Loaded>, DeployError>);

/// Those of the live revision. They are tried beside the task that deploys, which goes on meanwhile.
pub(super) struct Retries {
    modules: Modules,
    /// One task at most.
    round: JoinSet<Vec<Retried>>,
    rounds: u32,
}

impl Retries {
    pub(super) fn new(modules: Modules) -> Self {
        Self { modules, round: JoinSet::new(), rounds: 0 }
    }

    /// Another revision is live, with these left out. What is under way for the one before ends.
    pub(super) fn begin(&mut self, digests: Vec<Digest>) {
        self.rounds = 0;
        self.again(digests);
    }

    /// Tries these after a while, which is longer each time.
    pub(super) fn again(&mut self, digests: Vec<Digest>) {
        self.round = JoinSet::new();
        if digests.is_empty() {
            return;
        }
        let factor = 1 << self.rounds.min(16);
        let wait = (MODULE_RETRY_MIN * factor).min(MODULE_RETRY_MAX);
        self.rounds = self.rounds.saturating_add(1);
        tracing::warn!(count = digests.len(), ?wait, "modules that were left out are tried again");
        let modules = self.modules.clone();
        self.round.spawn(async move {
            tokio::time::sleep(wait).await;
            join_all(digests.into_iter().map(|digest| load(modules.clone(), digest))).await
        });
    }

    /// What came of the round that is under way. Waits for ever if there is none.
    pub(super) async fn ended(&mut self) -> Vec<Retried> {
        match self.round.join_next().await {
            Some(Ok(retried)) => retried,
            Some(Err(error)) => {
                tracing::error!(%error, "trying modules again panicked");
                Vec::new()
            }
            None => std::future::pending().await,
        }
    }
}

async fn load(modules: Modules, digest: Digest) -> Retried {
    (digest, modules.load(digest).await)
}
