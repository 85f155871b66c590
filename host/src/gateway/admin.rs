//! The admin API: `stead.admin.v1.Admin` behind the same edge as the services, and what is not a
//! unary call: uploads, probes and metrics.
//!
//! `GET /live` and `GET /ready` are open to everybody. All else, `/metrics` included, wants the
//! admin token if there is one.

mod auth;
mod cluster;
mod entities;
mod errors;
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
use prost_reflect::DescriptorPool;
use stead_proto::admin::v1 as api;

use crate::entity::Entities;
use crate::gateway::backend::{Backend, CallContext};
use crate::gateway::body::Body;
use crate::gateway::route::{Endpoint, Routes, Target};
use crate::gateway::{health, reflection};
use crate::journal::Journal;
use crate::registry::Registry;
use crate::words::Status;
use crate::words::config::Secret;
use crate::words::telemetry::Metrics;

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
    pool: DescriptorPool,
    routes: Arc<Routes>,
}

impl AdminBackend {
    pub fn new(admin: Admin, token: Option<&Secret>) -> anyhow::Result<Self> {
        let pool = DescriptorPool::decode(stead_proto::DESCRIPTORS)?;
        Ok(Self {
            uploads: upload::Uploads::new(admin.registry.clone()),
            gate: auth::Gate::new(token),
            routes: Arc::new(routes(&pool)),
            admin,
            pool,
        })
    }
}

fn routes(pool: &DescriptorPool) -> Routes {
    let methods = pool.get_service_by_name(SERVICE).into_iter().flat_map(|service| {
        service.methods().filter(|method| !method.is_client_streaming()).collect::<Vec<_>>()
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
            "ListEntities" => run(payload, |request| admin.list_entities_of_all(request)).await,
            "GetEntity" => admin.get_entity_where_it_is(payload).await,
            "Passivate" => admin.passivate_where_it_is(payload).await,
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
            "GetCluster" => run(payload, |request| self.get_cluster(request)).await,
            "DrainNode" => run(payload, |request| self.drain_node(request)).await,
            "GetNode" => run(payload, |request| self.get_node(request)).await,
            other => Err(Status::unimplemented(format!("{SERVICE} has no method {other}"))),
        }
    }

    async fn get_entity_where_it_is(&self, payload: Bytes) -> Result<Bytes, Status> {
        let request: api::GetEntityRequest = decoded(payload)?;
        let address = self.address_of(&request.entity_type, &request.id)?;
        match self.answer_of_owner(&address, "GetEntity", &request).await {
            Some(answer) => answer,
            None => Ok(self.get_entity(request).await?.encode_to_vec().into()),
        }
    }

    async fn passivate_where_it_is(&self, payload: Bytes) -> Result<Bytes, Status> {
        let request: api::PassivateRequest = decoded(payload)?;
        let address = self.address_of(&request.entity_type, &request.id)?;
        match self.answer_of_owner(&address, "Passivate", &request).await {
            Some(answer) => answer,
            None => Ok(self.passivate(request).await?.encode_to_vec().into()),
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
            assert_eq!(bound(&path), method.name() != "UploadModule", "{path}");
            let rule = crate::registry::descriptor::http_rule(&method);
            assert_eq!(rule.is_some(), bound(&path), "{path}");
        }
    }
}
