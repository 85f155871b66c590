//! `/live`, `/ready` and `/metrics`.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::gateway::admin::Admin;
use crate::gateway::body::Body;
use crate::words::telemetry::Metrics;

/// Whether the node wants new work. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct Readiness {
    draining: Arc<watch::Sender<bool>>,
    /// What the node still waits for.
    starting: Arc<Mutex<Option<&'static str>>>,
}

impl Readiness {
    /// The node is about to stop: `/ready` says so from now on, for load balancers.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// The node cannot serve yet, and why; none: it can.
    pub fn starting(&self, waits_for: Option<&'static str>) {
        *self.starting.lock() = waits_for;
    }

    /// Turns true once.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    fn obstacle(&self, journal_stopped: Option<Arc<str>>) -> Option<String> {
        if *self.draining.borrow() {
            return Some("draining: the node is stopping".into());
        }
        if let Some(waits_for) = *self.starting.lock() {
            return Some(format!("starting: {waits_for}"));
        }
        journal_stopped.map(|reason| format!("the journal has stopped: {reason}"))
    }
}

pub fn live() -> Response<Body> {
    text(StatusCode::OK, "live\n".into())
}

pub fn ready(admin: &Admin) -> Response<Body> {
    let obstacle = admin.readiness.obstacle(admin.journal.stopped());
    match obstacle.or_else(|| admin.giving_away()) {
        None => text(StatusCode::OK, "ready\n".into()),
        Some(obstacle) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {obstacle}\n")),
    }
}

pub fn metrics(metrics: &Metrics) -> Response<Body> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut response = Response::new(Body::full(metrics.render()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    response
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_node_and_a_stopped_journal_are_not_ready() {
        let readiness = Readiness::default();
        assert_eq!(readiness.obstacle(None), None);
        let stopped = readiness.obstacle(Some("disk on fire".into())).unwrap();
        assert!(stopped.contains("disk on fire"));
        readiness.starting(Some("no shard is held yet"));
        assert!(readiness.obstacle(None).unwrap().starts_with("starting: no shard"));
        readiness.starting(None);
        assert_eq!(readiness.obstacle(None), None);
        readiness.clone().drain();
        assert!(readiness.obstacle(None).unwrap().starts_with("draining"));
    }
}
