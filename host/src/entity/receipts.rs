//! Idempotency: a command whose key was seen is answered from its receipt.
//!
//! Receipts are stored with the events that they vouch for, in the same transaction, so a command
//! without events leaves none: running it again changes nothing either. A receipt that is on its way
//! to the journal is kept here until it can be read there.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::entity::actor::{Answer, Running};
use crate::entity::{CallError, Request};
use crate::journal::{Commit, Receipt};
use crate::words::{Status, clock, limits};

pub(super) struct PendingReceipt {
    key: String,
    request_hash: [u8; 32],
    reply: Bytes,
    commit: Commit,
}

impl PendingReceipt {
    pub(super) fn new(receipt: &Receipt, commit: Commit) -> Self {
        Self {
            key: receipt.key.clone(),
            request_hash: receipt.request_hash,
            reply: receipt.reply.clone(),
            commit,
        }
    }
}

/// The receipt of a command, if it carries a key.
pub(super) fn issue(request: &Request, reply: &Bytes, now_ms: u64) -> Option<Receipt> {
    let key = request.idempotency_key.as_ref()?;
    Some(Receipt {
        key: key.clone(),
        request_hash: hash(request),
        reply: reply.clone(),
        expires_at_ms: now_ms + limits::IDEMPOTENCY_KEPT.as_millis() as u64,
    })
}

/// The answer to a command that ran before. Asked within the command's turn, so that no other can
/// run in between.
pub(super) async fn look_up(running: &mut Running, request: &Request) -> Option<Answer> {
    let key = request.idempotency_key.as_ref()?;
    if let Some(hot) = running.hot.as_mut() {
        hot.pending_receipts.retain(|pending| pending.commit.outcome().is_none());
        if let Some(pending) = hot.pending_receipts.iter().find(|pending| pending.key == *key) {
            let result = compare(request, pending.request_hash, &pending.reply);
            return Some(Answer { result, hold: Some(pending.commit.clone()), seen: None });
        }
    }
    let journal = &running.house.journal;
    match journal.receipt(&running.actor.address, key, clock::unix_ms()).await {
        Ok(None) => None,
        Ok(Some(receipt)) => Some(Answer {
            result: compare(request, receipt.request_hash, &receipt.reply),
            hold: None,
            seen: None,
        }),
        Err(error) => {
            tracing::error!(address = %running.actor.address, %error, "cannot read a receipt");
            Some(Status::unavailable("the journal cannot be read; a retry is safe").into())
        }
    }
}

fn compare(request: &Request, request_hash: [u8; 32], reply: &Bytes) -> Result<Bytes, CallError> {
    if request_hash == hash(request) {
        return Ok(reply.clone());
    }
    Err(Status::invalid_argument(
        "this idempotency key was used for another request; use a fresh key for each command",
    )
    .with_http(422)
    .into())
}

fn hash(request: &Request) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(request.method.name.as_bytes());
    hasher.update([0]);
    hasher.update(&request.payload);
    hasher.finalize().into()
}
