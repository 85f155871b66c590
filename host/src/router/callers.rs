//! Calls that functions make: to where their targets are.

use futures_util::future::BoxFuture;

use bytes::Bytes;

use crate::action::{self, WeakActions};
use crate::entity::{self, Caller, OutCall};
use crate::registry::{Kind, Registry};
use crate::router::Router;
use crate::words::{Code, Status, limits};

/// Reaches functions of every kind: entities through the router, actions in this process.
pub struct Callers {
    registry: Registry,
    router: Router,
    /// They hold this caller.
    actions: WeakActions,
}

impl Callers {
    pub fn new(registry: Registry, router: Router, actions: WeakActions) -> Self {
        Self { registry, router, actions }
    }
}

impl Caller for Callers {
    fn call(&self, call: OutCall) -> BoxFuture<'static, Result<Bytes, Status>> {
        let live = self.registry.live();
        let (router, actions) = (self.router.clone(), self.actions.clone());
        Box::pin(async move {
            let to = || format!("/{}/{}", call.service, call.method);
            if call.hops > limits::CALL_HOPS_MAX {
                return Err(Status::new(
                    Code::FailedPrecondition,
                    format!(
                        "the call went through {} functions, perhaps in a circle, the last of them {}",
                        limits::CALL_HOPS_MAX,
                        to()
                    ),
                ));
            }
            let Some((service, method)) = live.method(&call.service, &call.method) else {
                return Err(Status::unimplemented(format!("{} is not deployed", to())));
            };
            if method.streams() {
                return Err(Status::unimplemented(format!(
                    "{} streams; functions can call only unary methods",
                    to()
                )));
            }
            let (service, method) = (service.clone(), method.clone());
            let deadline = call.deadline;
            let reply: BoxFuture<'static, _> = match service.kind {
                Kind::EventSourced | Kind::Value | Kind::Workflow => Box::pin(async move {
                    router
                        .call(entity::Request {
                            service,
                            method,
                            payload: call.payload,
                            metadata: call.metadata,
                            idempotency_key: call.idempotency_key,
                            deadline,
                            request_id: call.request_id,
                            consistency: call.consistency,
                        })
                        .await
                }),
                Kind::Action => Box::pin(async move {
                    let Some(actions) = actions.upgrade() else {
                        return Err(Status::unavailable("the node is stopping"));
                    };
                    let request = action::Request {
                        service,
                        method,
                        payload: call.payload,
                        metadata: call.metadata,
                        idempotency_key: call.idempotency_key,
                        deadline,
                        request_id: call.request_id,
                        consistency: call.consistency,
                        hops: call.hops,
                    };
                    actions.call(request, None).await
                }),
                Kind::View => {
                    return Err(Status::unimplemented(format!(
                        "{} is of a view, which functions cannot call",
                        to()
                    )));
                }
            };
            tokio::time::timeout_at(deadline, reply).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded("the call took longer than its deadline allows"))
            })
        })
    }
}
