//! Idempotency: a command whose key was seen is answered from its receipt.
//!
//! Receipts are stored with the events, effects and timers that they vouch for, in the same transaction, so
//! a command that stores nothing leaves none: running it again changes nothing either. A receipt that is on its way
//! to the journal is kept here until it can be read there.

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::entity::actor::{Answer, Running, Said};
use crate::entity::house::House;
use crate::entity::{CallError, OutCall, Request};
use crate::journal::{Commit, Receipt};
use crate::wasm::{self, Call};
use crate::words::{Address, Status, clock, limits};

pub(super) struct PendingReceipt {
    receipt: Receipt,
    commit: Commit,
}

impl PendingReceipt {
    pub(super) fn new(receipt: Receipt, commit: Commit) -> Self {
        Self { receipt, commit }
    }
}

/// Of a command that was forwarded, the receipt has the call, under another hash.
#[derive(Clone, PartialEq, prost::Message)]
struct Forward {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "bytes", tag = "3")]
    payload: Bytes,
    #[prost(message, repeated, tag = "4")]
    metadata: Vec<Entry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// The receipt of a command, if it carries a key.
pub(super) fn issue(request: &Request, answer: &wasm::Answer, now_ms: u64) -> Option<Receipt> {
    let key = request.idempotency_key.as_ref()?;
    let (what, reply) = match answer {
        wasm::Answer::Reply(reply) => (What::Reply, reply.clone()),
        wasm::Answer::None => (What::Reply, Bytes::new()),
        wasm::Answer::Forward(call) => (What::Forward, encode(call)),
    };
    Some(Receipt {
        key: key.clone(),
        request_hash: hash(request, what),
        reply,
        expires_at_ms: now_ms + limits::IDEMPOTENCY_KEPT.as_millis() as u64,
    })
}

/// Whether no receipt can exist for a command, so that none needs to be looked for.
pub(super) fn is_new(house: &House, request: &Request) -> bool {
    let Some(fence) = request.fresh else { return request.idempotency_key.is_none() };
    // Once the shard whose outbox it came from is another's, that one may have sent it too.
    house.holdings.epoch(fence.shard) == Some(fence.epoch) && house.holdings.lease_holds()
}

/// The answer to a command that ran before. Asked within the command's turn, so that no other can
/// run in between.
pub(super) async fn look_up(running: &mut Running, request: &Request) -> Option<Answer> {
    let key = request.idempotency_key.as_ref()?;
    let address = running.actor.address.clone();
    if let Some(hot) = running.hot.as_mut() {
        hot.pending_receipts.retain(|pending| pending.commit.outcome().is_none());
        if let Some(pending) = hot.pending_receipts.iter().find(|p| p.receipt.key == *key) {
            let result = compare(&address, request, &pending.receipt);
            return Some(Answer::of(result, Some(pending.commit.clone())));
        }
    }
    if is_new(&running.house, request) {
        return None;
    }
    let journal = &running.house.journal;
    match journal.receipt(&address, key, clock::unix_ms()).await {
        Ok(None) => None,
        Ok(Some(receipt)) => Some(Answer::of(compare(&address, request, &receipt), None)),
        Err(error) => {
            tracing::error!(%address, %error, "cannot read a receipt");
            Some(Status::unavailable("the journal cannot be read; a retry is safe").into())
        }
    }
}

fn compare(address: &Address, request: &Request, receipt: &Receipt) -> Result<Said, CallError> {
    if receipt.request_hash == hash(request, What::Reply) {
        return Ok(Said::Reply(receipt.reply.clone()));
    }
    if receipt.request_hash == hash(request, What::Forward)
        && let Some(call) = decode(&receipt.reply)
    {
        let call = OutCall::forward(call, request, address);
        return Ok(Said::Forward(Box::new(call)));
    }
    Err(Status::invalid_argument(
        "this idempotency key was used for another request; use a fresh key for each command",
    )
    .with_http(422)
    .into())
}

fn encode(call: &Call) -> Bytes {
    let entry =
        |(name, value): &(String, String)| Entry { name: name.clone(), value: value.clone() };
    let forward = Forward {
        service: call.service.clone(),
        method: call.method.clone(),
        payload: call.payload.clone(),
        metadata: call.metadata.iter().map(entry).collect(),
    };
    forward.encode_to_vec().into()
}

fn decode(bytes: &Bytes) -> Option<Call> {
    let Forward { service, method, payload, metadata } = Forward::decode(bytes.clone()).ok()?;
    let metadata = metadata.into_iter().map(|entry| (entry.name, entry.value)).collect();
    Some(Call { service, method, payload, metadata })
}

/// What a receipt has in its reply.
#[derive(Clone, Copy)]
enum What {
    Reply,
    Forward,
}

fn hash(request: &Request, what: What) -> [u8; 32] {
    let mut hasher = Sha256::new();
    match what {
        What::Reply => {}
        What::Forward => hasher.update(b"forward\0"),
    }
    hasher.update(request.method.name.as_bytes());
    hasher.update([0]);
    hasher.update(&request.payload);
    hasher.finalize().into()
}
