//! gRPC health checking, for load balancers and probes.
//!
//! The empty service name stands for the node. Everything stops serving when the node drains.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use http::{Request, Response};
use stead_proto::grpc::health::v1::health_check_response::ServingStatus;
use stead_proto::grpc::health::v1::health_server::{Health, HealthServer};
use stead_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tokio::sync::watch;

use crate::gateway::body::Body;
use crate::gateway::grpc_service;
use crate::registry::Registry;
use crate::words::Revision;
use crate::words::limits::HEALTH_REQUEST_BYTES_MAX;

/// Serves the paths that start with `/grpc.health.`. `draining` turns true once.
pub async fn serve<B>(
    request: Request<B>,
    registry: &Registry,
    draining: watch::Receiver<bool>,
) -> Response<Body>
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let revision = registry.watch();
    let registry = registry.clone();
    let is_live = move |service: &str| registry.live().services.contains_key(service);
    Probe { is_live: Arc::new(is_live), revision, draining }.serve(request).await
}

#[derive(Clone)]
struct Probe {
    is_live: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    revision: watch::Receiver<Revision>,
    draining: watch::Receiver<bool>,
}

impl Probe {
    async fn serve<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let server = HealthServer::new(self).max_decoding_message_size(HEALTH_REQUEST_BYTES_MAX);
        grpc_service::serve(server, request).await
    }

    fn status(&self, service: &str) -> ServingStatus {
        if !service.is_empty() && !(self.is_live)(service) {
            ServingStatus::ServiceUnknown
        } else if *self.draining.borrow() {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        }
    }

    /// False when nothing will ever change again.
    async fn changed(&mut self) -> bool {
        if *self.draining.borrow() {
            return false;
        }
        tokio::select! {
            result = self.revision.changed() => result.is_ok(),
            result = self.draining.changed() => result.is_ok(),
        }
    }
}

#[tonic::async_trait]
impl Health for Probe {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => {
                Err(tonic::Status::not_found(format!("no service {service} is deployed")))
            }
            status => Ok(tonic::Response::new(response(status))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, tonic::Status>>;

    /// Tells each change once, the present state first. Ends when the node drains.
    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        let service = request.into_inner().service;
        let mut probe = self.clone();
        // What changes from here on is a change.
        probe.revision.mark_unchanged();
        probe.draining.mark_unchanged();
        let told = stream::unfold((probe, None), move |(mut probe, last)| {
            let service = service.clone();
            async move {
                loop {
                    let status = probe.status(&service);
                    if last != Some(status) {
                        return Some((Ok(response(status)), (probe, Some(status))));
                    }
                    if !probe.changed().await {
                        return None;
                    }
                }
            }
        });
        Ok(tonic::Response::new(told.boxed()))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests;
