//! What an action has other functions do: effects, forwards and calls.

use std::sync::Arc;

use bytes::Bytes;

use crate::action::{Inner, Request};
use crate::entity::OutCall;
use crate::registry::Kind;
use crate::wasm::{Call, Effect};
use crate::words::telemetry::EffectLabels;
use crate::words::{Status, clock, limits};

impl Inner {
    /// Calls the functions in order. A synchronous one is waited for; of none the result matters.
    pub(super) async fn perform(self: &Arc<Self>, request: &Request, effects: Vec<Effect>) {
        for effect in effects {
            let call = effect.call;
            if effect.synchronous {
                self.effect(request, call).await;
                continue;
            }
            // Waits where too many have been started and have not ended.
            let permit = self.started_effects.clone().acquire_owned();
            let Ok(Ok(permit)) = tokio::time::timeout_at(request.deadline, permit).await else {
                self.failed(
                    request,
                    &call,
                    &Status::deadline_exceeded("it was not started in time"),
                );
                continue;
            };
            let (actions, request) = (self.clone(), request.clone());
            let guest = self.enter();
            tokio::spawn(async move {
                let (_permit, _guest) = (permit, guest);
                actions.effect(&request, call).await;
            });
        }
    }

    async fn effect(&self, request: &Request, call: Call) {
        let until = clock::now() + limits::EFFECT_TIMEOUT_DEFAULT;
        let result = self.out(request, call.clone(), Vec::new(), until).await;
        match result {
            Ok(_) => self.counted(request, "ok"),
            Err(status) => self.failed(request, &call, &status),
        }
    }

    fn failed(&self, request: &Request, call: &Call, status: &Status) {
        tracing::warn!(
            request_id = &*request.request_id,
            path = &*request.method.path,
            to = format!("/{}/{}", call.service, call.method),
            code = status.code.name(),
            reason = status.message,
            "an effect of an action failed"
        );
        self.counted(request, status.code.name());
    }

    fn counted(&self, request: &Request, result: &'static str) {
        let labels = EffectLabels { service: request.service.name.to_arc(), result };
        self.metrics.action_effects.get_or_create(&labels).inc();
    }

    /// Another function answers in this one's place.
    pub(super) async fn forward(&self, request: &Request, call: Call) -> Result<Bytes, Status> {
        let route = format!("{} -> /{}/{}", request.method.path, call.service, call.method);
        let live = self.registry.live();
        if live.method(&call.service, &call.method).is_none() {
            tracing::warn!(route, request_id = &*request.request_id, "a forward leads nowhere");
            let path = &request.method.path;
            return Err(Status::internal(format!(
                "{path} forwards to a function that is not deployed; the log says which"
            )));
        }
        let metadata = request.metadata.clone();
        self.out(request, call, metadata, request.deadline).await
    }

    /// Calls another function while this one runs, or after it.
    pub(super) async fn out(
        &self,
        request: &Request,
        call: Call,
        mut metadata: Vec<(String, String)>,
        until: clock::Instant,
    ) -> Result<Bytes, Status> {
        let Call { service, method, payload, metadata: own } = call;
        let live = self.registry.live();
        let Some((target, target_method)) = live.method(&service, &method) else {
            return Err(Status::unimplemented(format!("/{service}/{method} is not deployed")));
        };
        if target.kind == Kind::Action && target_method.streams() {
            return Err(Status::unimplemented(format!(
                "/{service}/{method} streams; functions can call only unary methods"
            )));
        }
        let Some(caller) = self.caller.get() else {
            return Err(Status::unavailable("the node is starting"));
        };
        let mut timeout = limits::CALL_DEADLINE_MAX;
        let mut idempotency_key = None;
        for (name, value) in own {
            match name.as_str() {
                "stead-timeout-ms" => {
                    let ms = value.parse().unwrap_or(u64::MAX);
                    timeout = timeout.min(std::time::Duration::from_millis(ms));
                }
                "stead-idempotency-key" => idempotency_key = Some(value),
                "stead-result-to" => {}
                _ => {
                    metadata.retain(|(other, _)| *other != name);
                    metadata.push((name, value));
                }
            }
        }
        let call = caller.call(OutCall {
            service,
            method,
            payload,
            metadata,
            idempotency_key,
            fresh: None,
            deadline: until.min(clock::now() + timeout),
            request_id: request.request_id.clone(),
            trail: request.trail.through(&request.method.path),
            consistency: request.consistency,
        });
        call.await
    }
}
