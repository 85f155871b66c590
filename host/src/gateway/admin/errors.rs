//! The one table from what goes wrong below to what a caller of the admin API is told.

use crate::journal::StoreError;
use crate::registry::DeployError;
use crate::wasm::{Failure, Refusal};
use crate::words::{Code, Status};

pub fn from_deploy(error: DeployError) -> Status {
    let text = error.to_string();
    match error {
        DeployError::Refused(Refusal::TooLarge { .. }) => {
            Status::invalid_argument(text).with_http(413)
        }
        DeployError::Describe(Failure::NoRoom { .. }) => Status::resource_exhausted(text),
        DeployError::Refused(Refusal::NoCompiler { .. }) => Status::unavailable(text),
        DeployError::Refused(_) | DeployError::Invalid(_) | DeployError::Describe(_) => {
            Status::invalid_argument(text)
        }
        DeployError::UnknownModule(_)
        | DeployError::UnknownRevision(_)
        | DeployError::NoEarlierRevision => Status::not_found(text),
        DeployError::WouldOrphan { .. } => Status::failed_precondition(text),
        DeployError::Overtaken(_) => Status::aborted(text),
        DeployError::Journal(_) => Status::unavailable(text),
        DeployError::Damaged(_) => Status::data_loss(text),
    }
}

pub fn from_store(error: StoreError) -> Status {
    let text = error.to_string();
    match error {
        StoreError::Conflict { .. } | StoreError::Moved { .. } => Status::aborted(text),
        StoreError::Full { .. } | StoreError::Refused { .. } => Status::resource_exhausted(text),
        StoreError::Poisoned { .. } | StoreError::Unavailable { .. } | StoreError::Read { .. } => {
            Status::unavailable(text)
        }
        StoreError::InDoubt { .. } => Status::new(Code::Unknown, text),
        StoreError::Corrupt { .. } => Status::data_loss(text),
    }
}

/// A task of ours panicked; the log has the details.
pub fn from_join(error: tokio::task::JoinError) -> Status {
    tracing::error!(%error, "a task of the admin API failed");
    Status::internal("the host failed to finish this; its log says more")
}

pub fn to_tonic(status: Status) -> tonic::Status {
    tonic::Status::new((status.code.number() as i32).into(), status.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Digest, JournalName, Revision};

    #[test]
    fn tells_bad_modules_from_forbidden_deployments_and_missing_things() {
        let orphan = DeployError::WouldOrphan {
            journal: JournalName::from("carts"),
            change: "removes it".into(),
        };
        let cases = [
            (DeployError::Refused(Refusal::CoreModule), Code::InvalidArgument, 400),
            (
                DeployError::Refused(Refusal::TooLarge { bytes: 2, max: 1 }),
                Code::InvalidArgument,
                413,
            ),
            (
                DeployError::Refused(Refusal::NoCompiler { reason: "no memory".into() }),
                Code::Unavailable,
                503,
            ),
            (DeployError::UnknownModule(Digest::of(b"cart")), Code::NotFound, 404),
            (DeployError::UnknownRevision(Revision(7)), Code::NotFound, 404),
            (DeployError::NoEarlierRevision, Code::NotFound, 404),
            (orphan, Code::FailedPrecondition, 400),
            (DeployError::Journal("closed".into()), Code::Unavailable, 503),
        ];
        for (error, code, http) in cases {
            let text = error.to_string();
            let status = from_deploy(error);
            assert_eq!((status.code, status.http_status()), (code, http), "{text}");
            assert_eq!(status.message, text);
        }
    }
}
