//! The deployed services as the backend of a port.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::action::{self, Actions};
use crate::consumer::Views;
use crate::entity;
use crate::gateway::backend::{Backend, CallContext, Streamed};
use crate::gateway::body::Body;
use crate::gateway::route::{Endpoint, Routes, Target};
use crate::gateway::{health, reflection};
use crate::registry::{Kind, Live, Method, Registry, Service};
use crate::router::Router;
use crate::words::{Status, Trail};

pub struct Services {
    registry: Registry,
    router: Router,
    actions: Actions,
    views: Views,
    routes: ArcSwap<Known>,
    draining: watch::Receiver<bool>,
    /// Without a sender, `draining` would count as ended.
    _never: watch::Sender<bool>,
}

const REFLECTION: &str = "/grpc.reflection.";
const HEALTH: &str = "/grpc.health.";

/// The routes of what is live, or was a moment ago.
struct Known {
    generation: u64,
    routes: Arc<Routes>,
}

impl Services {
    pub fn new(registry: Registry, router: Router, actions: Actions, views: Views) -> Self {
        let routes = ArcSwap::from_pointee(Known::of(&registry.live()));
        let never = watch::Sender::new(false);
        let draining = never.subscribe();
        Self { registry, router, actions, views, routes, draining, _never: never }
    }

    /// `draining` turns true once, when the node is about to stop: then it is no longer healthy.
    pub fn healthy_until(mut self, draining: watch::Receiver<bool>) -> Self {
        self.draining = draining;
        self
    }
}

impl Known {
    fn of(live: &Live) -> Self {
        let endpoints = live.services.values().flat_map(|service| {
            service.methods.values().map(|method| {
                let (service, method) = (service.clone(), method.clone());
                let descriptor = method.descriptor.clone();
                Endpoint::new(descriptor, Target::Function { service, method })
            })
        });
        let routes = Arc::new(Routes::new(endpoints));
        for fault in routes.faults() {
            tracing::warn!(revision = %live.revision, "not served by HTTP template: {fault}");
        }
        Self { generation: live.generation, routes }
    }
}

fn action_request(
    endpoint: &Endpoint,
    service: &Arc<Service>,
    method: &Arc<Method>,
    payload: Bytes,
    context: CallContext,
) -> action::Request {
    action::Request {
        service: service.clone(),
        method: method.clone(),
        payload,
        metadata: context.metadata,
        idempotency_key: context.idempotency_key,
        deadline: context.deadline,
        request_id: context.request_id,
        consistency: context.consistency.or(endpoint.consistency).unwrap_or_default(),
        trail: Trail::default(),
    }
}

fn not_here() -> Status {
    Status::unimplemented("the admin API is not served on this port")
}

impl Backend for Services {
    fn routes(&self) -> Arc<Routes> {
        let live = self.registry.live();
        let known = self.routes.load();
        if known.generation == live.generation {
            return known.routes.clone();
        }
        // Several requests may build the same routes at once, right after a deployment; a late
        // store of older ones is corrected by the next request.
        let known = Arc::new(Known::of(&live));
        self.routes.store(known.clone());
        known.routes.clone()
    }

    async fn call(
        &self,
        endpoint: &Endpoint,
        payload: Bytes,
        context: CallContext,
    ) -> Result<Bytes, Status> {
        let Target::Function { service, method } = &endpoint.target else {
            return Err(not_here());
        };
        if service.kind == Kind::Action {
            let request = action_request(endpoint, service, method, payload, context);
            return Box::pin(self.actions.call(request, None)).await;
        }
        if service.kind == Kind::View {
            return Box::pin(self.views.call(service, method, &payload)).await;
        }
        self.router
            .call(entity::Request {
                service: service.clone(),
                method: method.clone(),
                payload,
                metadata: context.metadata,
                idempotency_key: context.idempotency_key,
                deadline: context.deadline,
                request_id: context.request_id,
                consistency: context.consistency.or(endpoint.consistency).unwrap_or_default(),
                trail: Trail::default(),
                origin: entity::Origin::Client,
                fresh: None,
            })
            .await
    }

    fn stream(
        &self,
        endpoint: &Endpoint,
        call: Streamed,
        context: CallContext,
    ) -> BoxFuture<'static, Result<Bytes, Status>> {
        let Target::Function { service, method } = &endpoint.target else {
            return Box::pin(std::future::ready(Err(not_here())));
        };
        let Streamed { payload, input, output } = call;
        let request = action_request(endpoint, service, method, payload, context);
        let actions = self.actions.clone();
        Box::pin(async move {
            match output {
                Some(output) => actions.stream(request, input, output).await.map(|()| Bytes::new()),
                None => actions.call(request, input).await,
            }
        })
    }

    fn wants(&self, path: &str) -> bool {
        path.starts_with("/grpc.")
    }

    async fn intercept(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Request<Incoming>> {
        let path = request.uri().path();
        if path.starts_with(REFLECTION) {
            Ok(reflection::serve(request, &self.registry).await)
        } else if path.starts_with(HEALTH) {
            Ok(health::serve(request, &self.registry, self.draining.clone()).await)
        } else {
            Err(request)
        }
    }
}
