//! Calls that functions make: to where their targets are.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::task::AbortOnDropHandle;

use crate::action::{self, WeakActions};
use crate::consumer::Views;
use crate::entity::{Caller, OutCall, Request, WeakEntities};
use crate::registry::{Kind, Registry};
use crate::router::{Clustered, Router};
use crate::words::Status;

/// Reaches functions of every kind: entities through the router, actions in this process, views
/// in the store.
pub struct Callers {
    registry: Registry,
    // Entities and actions hold this caller, so it must not keep them alive.
    entities: WeakEntities,
    cluster: Option<Arc<Clustered>>,
    actions: WeakActions,
    views: Views,
}

impl Callers {
    pub fn new(registry: Registry, router: &Router, actions: WeakActions, views: Views) -> Self {
        let (entities, cluster) = (router.entities.downgrade(), router.cluster.clone());
        Self { registry, entities, cluster, actions, views }
    }

    fn router(&self) -> Option<Router> {
        let entities = self.entities.upgrade()?;
        Some(Router { entities, cluster: self.cluster.clone() })
    }
}

impl Caller for Callers {
    fn call(&self, call: OutCall) -> BoxFuture<'static, Result<Bytes, Status>> {
        let (router, actions, views) = (self.router(), self.actions.clone(), self.views.clone());
        let deadline = call.deadline;
        let request = call.resolve(&self.registry.live());
        Box::pin(async move {
            // A task of its own: guests decide how long a chain of calls is, and awaited within each other they
            // would outgrow the stack. If nobody waits any more, it ends.
            let reply = tokio::spawn(reach(request?, router, actions, views));
            match tokio::time::timeout_at(deadline, AbortOnDropHandle::new(reply)).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(error)) => {
                    tracing::error!(%error, "a call of a function ended without an answer");
                    Err(Status::internal("the call ended without an answer"))
                }
                Err(_) => {
                    Err(Status::deadline_exceeded("the call took longer than its deadline allows"))
                }
            }
        })
    }
}

async fn reach(
    request: Request,
    router: Option<Router>,
    actions: WeakActions,
    views: Views,
) -> Result<Bytes, Status> {
    let stopping = || Status::unavailable("the node is stopping; a retry is safe");
    let path = &request.method.path;
    if request.method.streams() {
        return Err(Status::unimplemented(format!(
            "{path} streams; functions can call only unary methods"
        )));
    }
    match request.service.kind {
        Kind::EventSourced | Kind::Value | Kind::Workflow => {
            router.ok_or_else(stopping)?.call(request).await
        }
        Kind::Action => {
            let actions = actions.upgrade().ok_or_else(stopping)?;
            let request = action::Request {
                service: request.service,
                method: request.method,
                payload: request.payload,
                metadata: request.metadata,
                idempotency_key: request.idempotency_key,
                deadline: request.deadline,
                request_id: request.request_id,
                consistency: request.consistency,
                trail: request.trail,
            };
            actions.call(request, None).await
        }
        Kind::View => views.call(&request.service, &request.method, &request.payload).await,
    }
}
