//! The admin API: `stead.admin.v1.Admin` behind the same edge as the services, and what is not a
//! unary call: uploads, probes and metrics.
//!
//! `GET /live` and `GET /ready` are open to everybody. All else, `/metrics` included, wants the
//! admin token if there is one.

mod auth;
mod cluster;
mod entities;
mod errors;
mod feed;
mod functions;
pub mod json;
mod modules;
mod node;
mod page;
mod probe;
mod refusal;
mod time;
mod upload;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use stead_proto::admin::v1 as api;

use crate::action::Actions;
use crate::consumer::Consumers;
use crate::entity::Entities;
use crate::gateway::backend::{Backend, CallContext};
use crate::gateway::body::Body;
use crate::gateway::route::{Endpoint, Routes, Target};
use crate::gateway::{health, reflection};
use crate::journal::Journal;
use crate::registry::Registry;
use crate::words::config::Secret;
use crate::words::telemetry::Metrics;
use crate::words::{Address, Status};

pub use cluster::Membership;
pub use modules::describe_service;
pub use node::About;
pub use probe::Readiness;

const SERVICE: &str = "stead.admin.v1.Admin";

/// What the admin API shows and works on. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pub registry: Registry,
    pub entities: Entities,
    pub actions: Actions,
    pub consumers: Consumers,
    pub journal: Journal,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub about: Arc<About>,
    /// None on a node of its own.
    pub membership: Option<Arc<Membership>>,
}

/// The admin port's side of the edge.
pub struct AdminBackend {
    admin: Admin,
    gate: auth::Gate,
    uploads: upload::Uploads,
    feeds: feed::Feeds,
    pool: DescriptorPool,
    routes: Arc<Routes>,
}

impl AdminBackend {
    pub fn new(admin: Admin, token: Option<&Secret>) -> anyhow::Result<Self> {
        let pool = DescriptorPool::decode(stead_proto::DESCRIPTORS)?;
        Ok(Self {
            uploads: upload::Uploads::new(admin.registry.clone()),
            feeds: feed::Feeds::new(admin.clone()),
            gate: auth::Gate::new(token),
            routes: Arc::new(routes(&pool)),
            admin,
            pool,
        })
    }
}

fn routes(pool: &DescriptorPool) -> Routes {
    let methods = pool.get_service_by_name(SERVICE).into_iter().flat_map(|service| {
        let is_unary = |method: &MethodDescriptor| {
            !method.is_client_streaming() && !method.is_server_streaming()
        };
        service.methods().filter(is_unary).collect::<Vec<_>>()
    });
    Routes::new(methods.map(|method| Endpoint::new(method, Target::Admin)))
}

impl Backend for AdminBackend {
    fn routes(&self) -> Arc<Routes> {
        self.routes.clone()
    }

    async fn call(
        &self,
        endpoint: &Endpoint,
        payload: Bytes,
        _context: CallContext,
    ) -> Result<Bytes, Status> {
        let admin = &self.admin;
        match &*endpoint.method {
            "ListServices" => run(payload, |request| admin.list_services_of_all(request)).await,
            "ListEntities" => run(payload, |request| admin.list_entities_of_all(request)).await,
            "GetEntity" => admin.get_entity_where_it_is(payload).await,
            "Passivate" => admin.passivate_where_it_is(payload).await,
            "RetryDeadLetter" => admin.retry_dead_letter_where_it_is(payload).await,
            "DropDeadLetter" => admin.drop_dead_letter_where_it_is(payload).await,
            "SkipEvent" => admin.skip_event_where_it_is(payload).await,
            "ResetConsumer" => run(payload, |request| admin.reset_consumer_of_all(request)).await,
            method => admin.answer(method, payload).await,
        }
    }

    async fn intercept(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Request<Incoming>> {
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/live" if read => return Ok(probe::live()),
            "/ready" if read => return Ok(probe::ready(&self.admin)),
            _ => {}
        }
        if let Err(status) = self.gate.admit(&request).await {
            return Ok(refusal::answer(request.headers(), &status));
        }
        match request.uri().path() {
            "/metrics" if read => Ok(probe::metrics(&self.admin.metrics)),
            upload::PATH if request.method() == Method::PUT => {
                Ok(self.uploads.put(request, &self.pool).await)
            }
            upload::GRPC_PATH if upload::is_grpc(&request) => Ok(self.uploads.grpc(request).await),
            feed::PATH if request.method() == Method::GET => {
                Ok(self.feeds.sse(&request, &self.pool).await)
            }
            feed::GRPC_PATH if upload::is_grpc(&request) => Ok(self.feeds.grpc(request).await),
            path if path.starts_with("/grpc.reflection.") => {
                Ok(reflection::serve_one(request, SERVICE, self.pool.clone()).await)
            }
            path if path.starts_with("/grpc.health.") => {
                let draining = self.admin.readiness.draining();
                Ok(health::serve(request, &self.admin.registry, draining).await)
            }
            _ => Err(request),
        }
    }
}

impl Admin {
    /// The answer of this node, to a request in protobuf's binary encoding: what other nodes ask for.
    pub async fn answer(&self, method: &str, payload: Bytes) -> Result<Bytes, Status> {
        match method {
            "Deploy" => run(payload, |request| self.deploy(request)).await,
            "ListRevisions" => run(payload, |request| self.list_revisions(request)).await,
            "RollBack" => run(payload, |request| self.roll_back(request)).await,
            "ListServices" => run(payload, |request| self.list_services(request)).await,
            "ListEntities" => run(payload, |request| self.list_entities(request)).await,
            "GetEntity" => run(payload, |request| self.get_entity(request)).await,
            "ListEvents" => run(payload, |request| self.list_events(request)).await,
            "GetState" => run(payload, |request| self.get_state(request)).await,
            "Passivate" => run(payload, |request| self.passivate(request)).await,
            "ListDeadLetters" => run(payload, |request| self.list_dead_letters(request)).await,
            "RetryDeadLetter" => run(payload, |request| self.retry_dead_letter(request)).await,
            "DropDeadLetter" => run(payload, |request| self.drop_dead_letter(request)).await,
            "ListConsumers" => run(payload, |request| self.list_consumers(request)).await,
            "ResetConsumer" => run(payload, |request| self.reset_consumer(request)).await,
            "DeleteConsumer" => run(payload, |request| self.delete_consumer(request)).await,
            "SkipEvent" => run(payload, |request| self.skip_event(request)).await,
            "GetCluster" => run(payload, |request| self.get_cluster(request)).await,
            "DrainNode" => run(payload, |request| self.drain_node(request)).await,
            "GetNode" => run(payload, |request| self.get_node(request)).await,
            other => Err(Status::unimplemented(format!("{SERVICE} has no method {other}"))),
        }
    }

    async fn get_entity_where_it_is(&self, payload: Bytes) -> Result<Bytes, Status> {
        let request: api::GetEntityRequest = decoded(payload)?;
        let address = self.address_of(&request.entity_type, &request.id)?;
        self.where_it_is(&address, "GetEntity", request, |request| self.get_entity(request)).await
    }

    async fn passivate_where_it_is(&self, payload: Bytes) -> Result<Bytes, Status> {
        let request: api::PassivateRequest = decoded(payload)?;
        let address = self.address_of(&request.entity_type, &request.id)?;
        self.where_it_is(&address, "Passivate", request, |request| self.passivate(request)).await
    }

    async fn retry_dead_letter_where_it_is(&self, payload: Bytes) -> Result<Bytes, Status> {
        let request: api::RetryDeadLetterRequest = decoded(payload)?;
        let source = self.dead_letter(&request.id).await?.source;
        let retry = |request| self.retry_dead_letter(request);
        self.where_it_is(&source, "RetryDeadLetter", request, retry).await
    }

    async fn drop_dead_letter_where_it_is(&self, payload: Bytes) -> Result<Bytes, Status> {
        let request: api::DropDeadLetterRequest = decoded(payload)?;
        let source = self.dead_letter(&request.id).await?.source;
        let drop = |request| self.drop_dead_letter(request);
        self.where_it_is(&source, "DropDeadLetter", request, drop).await
    }

    async fn skip_event_where_it_is(&self, payload: Bytes) -> Result<Bytes, Status> {
        let request: api::SkipEventRequest = decoded(payload)?;
        let address = self.address_in_group(&request)?;
        self.where_it_is(&address, "SkipEvent", request, |request| self.skip_event(request)).await
    }

    /// The answer of the node that holds the entity.
    async fn where_it_is<I, O, F>(
        &self,
        address: &Address,
        method: &str,
        request: I,
        here: impl FnOnce(I) -> F,
    ) -> Result<Bytes, Status>
    where
        I: Message,
        O: Message,
        F: Future<Output = Result<O, Status>>,
    {
        match self.answer_of_owner(address, method, &request).await {
            Some(answer) => answer,
            None => Ok(here(request).await?.encode_to_vec().into()),
        }
    }
}

/// Decodes, runs, encodes.
async fn run<I, O, F>(payload: Bytes, handler: impl FnOnce(I) -> F) -> Result<Bytes, Status>
where
    I: Message + Default,
    O: Message,
    F: Future<Output = Result<O, Status>>,
{
    Ok(handler(decoded(payload)?).await?.encode_to_vec().into())
}

fn decoded<I: Message + Default>(payload: Bytes) -> Result<I, Status> {
    I::decode(payload)
        .map_err(|error| Status::invalid_argument(format!("the request is malformed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unary_method_has_a_route_and_an_http_binding() {
        let pool = DescriptorPool::decode(stead_proto::DESCRIPTORS).unwrap();
        let routes = routes(&pool);
        assert_eq!(routes.faults(), <[String; 0]>::default());
        let service = pool.get_service_by_name(SERVICE).unwrap();
        let bound = |path: &str| routes.by_path.contains_key(path);
        for method in service.methods() {
            let path = format!("/{SERVICE}/{}", method.name());
            assert_eq!(
                bound(&path),
                !["UploadModule", "WatchEvents"].contains(&method.name()),
                "{path}"
            );
            let rule = crate::registry::descriptor::http_rule(&method);
            assert_eq!(rule.is_some(), bound(&path), "{path}");
        }
    }
}
