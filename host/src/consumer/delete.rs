//! The end of a group: what the store has of one that nothing deployed has any more.

use crate::consumer::Consumers;
use crate::consumer::subscription::Subscription;
use crate::journal::StoreError;
use crate::registry::Live;
use crate::words::Status;

impl Consumers {
    /// Deletes a group's places and laggards, and a view's rows. May be done by any node of a cluster; a step
    /// of the group that is still on its way there finds its place gone, and stores nothing.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION while a live service uses it, NOT_FOUND if the store has nothing of it, UNAVAILABLE.
    pub async fn delete(&self, group: &str) -> Result<(), Status> {
        let inner = &self.inner;
        if let Some(user) = user(&inner.registry.live(), group) {
            return Err(Status::failed_precondition(format!(
                "{group} is used by {user}, which is deployed; deploy a module without it first"
            )));
        }
        let positions = inner.journal.group_positions(group).await.map_err(failed)?;
        if positions.is_empty() {
            return Err(Status::not_found(format!(
                "the store has no group {group:?}; `stead consumers list` shows what it has"
            )));
        }
        // Last of all the places, so that a deletion that broke off can be asked for again.
        if group.starts_with("view:") {
            inner.journal.delete_view(group).await.map_err(failed)?;
        }
        inner.journal.delete_group(group).await.map_err(failed)?;
        tracing::warn!(group, "an operator had a group deleted");
        Ok(())
    }
}

/// The live service that reads what a group has stored. Older rows of a view may be served until newer ones are
/// made, and go then by themselves.
fn user(live: &Live, group: &str) -> Option<String> {
    if let Some(subscription) = Subscription::all(live).get(group) {
        return Some(subscription.service().to_string());
    }
    let (service, _version) = group.strip_prefix("view:")?.rsplit_once('@')?;
    let service = live.services.get(service).filter(|service| service.view.is_some())?;
    Some(service.name.to_string())
}

fn failed(error: StoreError) -> Status {
    Status::unavailable(format!("the store did not delete the group; a retry is safe: {error}"))
}
