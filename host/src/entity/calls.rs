//! Calls from one function to another: forwards, effects, and what actions call.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};

use crate::entity::house::{Entities, House};
use crate::entity::{CallError, Consistency, Origin, Request};
use crate::journal::{EffectId, Fence};
use crate::kind::call::{KEY, RESERVED};
use crate::registry::Live;
use crate::wasm::Call;
use crate::words::clock::Instant;
use crate::words::telemetry::ResultLabels;
use crate::words::{Address, Code, Status, Trail, limits};

/// A call of a function by another one, before anybody knows where it is.
#[derive(Clone, Debug)]
pub struct OutCall {
    pub service: String,
    pub method: String,
    pub payload: Bytes,
    pub metadata: Vec<(String, String)>,
    pub idempotency_key: Option<String>,
    /// As [`Request::fresh`].
    pub fresh: Option<Fence>,
    pub deadline: Instant,
    pub request_id: Arc<str>,
    /// Functions that it came through, the calling one included. Above [`limits::CALL_HOPS_MAX`] it fails.
    pub trail: Trail,
    pub consistency: Consistency,
}

pub type Called = BoxFuture<'static, Result<Bytes, Status>>;

/// Reaches functions of every kind, wherever they are.
pub trait Caller: Send + Sync + 'static {
    /// UNIMPLEMENTED if no such function is deployed; FAILED_PRECONDITION if the call came through too many.
    fn call(&self, call: OutCall) -> Called;
}

impl OutCall {
    /// The command that it is for what is deployed now.
    pub fn resolve(self, live: &Live) -> Result<Request, Status> {
        let path = || format!("/{}/{}", self.service, self.method);
        if self.trail.hops() > limits::CALL_HOPS_MAX {
            tracing::warn!(
                path = path(),
                trail = %self.trail,
                request_id = &*self.request_id,
                "a call came through too many functions"
            );
            self.trail.check(&path())?;
        }
        let Some((service, method)) = live.method(&self.service, &self.method) else {
            return Err(Status::unimplemented(format!("{} is not deployed", path())));
        };
        // What the host says to functions by metadata, only the host says.
        let mut metadata = self.metadata;
        metadata.retain(|(name, _)| !name.starts_with(RESERVED));
        Ok(Request {
            service: service.clone(),
            method: method.clone(),
            payload: self.payload,
            metadata,
            idempotency_key: self.idempotency_key,
            deadline: self.deadline,
            request_id: self.request_id,
            consistency: self.consistency,
            trail: self.trail,
            origin: Origin::Function,
            fresh: self.fresh,
        })
    }

    /// The call that answers a command in its entity's place, with the caller's metadata and deadline. A
    /// command that comes again with its key comes again to the target with the same one.
    pub(super) fn forward(call: Call, request: &Request, source: &Address) -> Self {
        let Call { service, method, payload, metadata: mut own } = call;
        let chosen = own.iter().find(|(name, _)| name == KEY).map(|(_, key)| own_key(source, key));
        own.retain(|(name, _)| name != KEY);
        let again = || request.idempotency_key.as_deref().map(|key| forward_key(source, key));
        let mut metadata = request.metadata.clone();
        metadata.retain(|(name, _)| own.iter().all(|(other, _)| other != name));
        metadata.extend(own);
        Self {
            service,
            method,
            payload,
            metadata,
            idempotency_key: chosen.or_else(again),
            fresh: None,
            deadline: request.deadline,
            request_id: request.request_id.clone(),
            trail: request.trail.through(&request.method.path),
            consistency: request.consistency,
        }
    }
}

// Keys of the host begin with a byte that those of users cannot have.

/// With which an effect comes to its target.
pub(super) fn effect_key(id: EffectId) -> String {
    format!("\u{1}{id}")
}

/// With which an effect's result comes back.
pub(super) fn result_key(id: EffectId) -> String {
    format!("\u{1}r{id}")
}

/// With which a call comes to its target, if its source has chosen a key.
pub(super) fn own_key(source: &Address, key: &str) -> String {
    format!("\u{1}k{}", of_source(source, key))
}

fn forward_key(source: &Address, key: &str) -> String {
    format!("\u{1}f{}", of_source(source, key))
}

fn of_source(source: &Address, key: &str) -> String {
    let mut hasher = Sha256::new();
    for text in [source.journal.as_str(), source.id.as_str(), key] {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hex::encode(hasher.finalize())
}

impl Entities {
    /// Tells how functions are reached. Only the first call counts; without it, calls reach the entities of
    /// this process.
    pub fn set_caller(&self, caller: Arc<dyn Caller>) {
        // A second caller would be the same one.
        let _ = self.house.caller.set(caller);
    }

    /// Calls a function, wherever it is.
    pub fn reach(&self, call: OutCall) -> Called {
        self.house.reach(call)
    }

    /// The command that a call is for what is deployed now.
    pub fn resolve(&self, call: OutCall) -> Result<Request, Status> {
        call.resolve(&self.house.registry.live())
    }
}

impl House {
    pub(super) fn reach(self: &Arc<Self>, call: OutCall) -> Called {
        if let Some(caller) = self.caller.get() {
            return caller.call(call);
        }
        let entities = Entities { house: self.clone() };
        Box::pin(async move {
            let request = entities.resolve(call)?;
            entities.call(request).await.map_err(CallError::into_status)
        })
    }

    pub(super) fn is_deployed(&self, service: &str, method: &str) -> bool {
        self.registry.live().method(service, method).is_some()
    }

    /// Has another function answer a command of `source`.
    pub(super) async fn forward(
        self: &Arc<Self>,
        call: OutCall,
        request: &Request,
    ) -> Result<Bytes, CallError> {
        let from = &request.method.path;
        let (service, method) = (call.service.clone(), call.method.clone());
        let result = if self.is_deployed(&service, &method) {
            self.reach(call).await
        } else {
            tracing::error!(
                from = &**from,
                service,
                method,
                request_id = &*request.request_id,
                "a forward to a function that is not deployed"
            );
            Err(Status::internal(format!(
                "{from} forwards to {service}/{method}, which is not deployed"
            )))
        };
        let code = result.as_ref().err().map_or(Code::Ok, |status| status.code);
        let labels = ResultLabels { result: code.name() };
        self.metrics.command_forwards.get_or_create(&labels).inc();
        Ok(result?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_host_are_short_and_tell_commands_apart() {
        let (a, b) = (Address::new("j", "a"), Address::new("ja", ""));
        assert_ne!(forward_key(&a, "k"), forward_key(&b, "k"));
        assert_ne!(forward_key(&a, "k"), forward_key(&a, "l"));
        let id = EffectId::new(1, 2);
        for key in [forward_key(&a, "k"), effect_key(id), result_key(id)] {
            assert!(key.starts_with('\u{1}') && key.len() <= limits::IDEMPOTENCY_KEY_BYTES_MAX);
        }
    }
}
