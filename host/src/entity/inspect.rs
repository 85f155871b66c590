//! Looking at an entity without touching it: its state at any time.

use std::sync::Arc;

use crate::entity::activation::{self, FoldError};
use crate::entity::house::Entities;
use crate::journal::StoreError;
use crate::registry::{Kind, Service};
use crate::words::{Address, Code, EntityId, Message, Seq, Status};

/// The state of an entity at some sequence number, folded in a fresh instance.
#[derive(Clone, Debug)]
pub struct StateAt {
    pub seq: Seq,
    /// None if the guest has no snapshot to give, or if a value entity has no state.
    pub state: Option<Message>,
}

impl Entities {
    /// Folds the journal up to and including `at` (all of it, if none) in a fresh instance. The hot
    /// instance, if there is one, is not touched. OUT_OF_RANGE for a number that is not reached yet, and for
    /// a state of a value entity that is not kept any more.
    pub async fn state(
        &self,
        service: &Arc<Service>,
        id: &EntityId,
        at: Option<Seq>,
    ) -> Result<StateAt, Status> {
        let address = Address { journal: service.journal.clone(), id: id.clone() };
        let _permit = self.house.activations.acquire().await.ok();
        if service.kind == Kind::Value {
            let (seq, state) = activation::value_at(&self.house, &address, at)
                .await
                .map_err(|error| fold_status(&error))?;
            check_reached(seq, at)?;
            return Ok(StateAt { seq, state });
        }
        let mut folded = activation::fold(&self.house, service, &address, at)
            .await
            .map_err(|error| fold_status(&error))?;
        check_reached(folded.seq, at)?;
        let state = folded.instance.snapshot().map_err(|failure| {
            Status::failed_precondition(format!("snapshot failed: {failure}"))
        })?;
        Ok(StateAt { seq: folded.seq, state })
    }
}

fn check_reached(seq: Seq, at: Option<Seq>) -> Result<(), Status> {
    match at {
        Some(at) if seq < at => Err(Status::new(
            Code::OutOfRange,
            format!("the entity ends with event {seq}; there is no state at {at}"),
        )),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn fold_status(error: &FoldError) -> Status {
    match error {
        FoldError::Guest(failure) => {
            Status::failed_precondition(format!("the events cannot be folded: {failure}"))
        }
        FoldError::Store(error) => store_status(error),
        FoldError::Forgotten { .. } => Status::new(Code::OutOfRange, error.to_string()),
        FoldError::Gap { expected } => Status::data_loss(format!("event {expected} is missing")),
    }
}

fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Corrupt { .. } => Status::data_loss(error.to_string()),
        StoreError::Conflict { .. }
        | StoreError::Moved { .. }
        | StoreError::Refused { .. }
        | StoreError::InDoubt { .. }
        | StoreError::Poisoned { .. }
        | StoreError::Full { .. }
        | StoreError::Unavailable { .. }
        | StoreError::Read { .. } => Status::unavailable(error.to_string()),
    }
}
