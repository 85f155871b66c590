//! The feed on the admin port: `WatchEvents`, and `GET /v1/feed` as server-sent events.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost_reflect::DescriptorPool;
use stead_proto::admin::v1 as api;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::server::{Grpc, ServerStreamingService};

use crate::consumer::{FedEvent, Feed, FeedFilter, FeedStart};
use crate::gateway::admin::errors::{from_store, to_tonic};
use crate::gateway::admin::{Admin, entities, json, refusal};
use crate::gateway::body::Body;
use crate::gateway::query;
use crate::journal::StoredEvent;
use crate::registry::is_journal_name;
use crate::words::{Status, limits};

pub const PATH: &str = "/v1/feed";
pub const GRPC_PATH: &str = "/stead.admin.v1.Admin/WatchEvents";

/// Cheap to clone.
#[derive(Clone)]
pub struct Feeds {
    admin: Admin,
    places: Arc<Semaphore>,
}

/// A reading, and its place among those that there may be.
struct Reading {
    feed: Feed,
    admin: Admin,
    _place: OwnedSemaphorePermit,
}

impl Feeds {
    pub fn new(admin: Admin) -> Self {
        Self { admin, places: Arc::new(Semaphore::new(limits::FEED_READERS_MAX)) }
    }

    async fn open(&self, request: api::WatchEventsRequest) -> Result<Reading, Status> {
        let start = FeedStart::parse(&request.from).map_err(Status::invalid_argument)?;
        if !start.is_of(self.admin.journal.partitions()) {
            return Err(Status::invalid_argument(
                "from is a position in the feed of another store; begin with `beginning` or `now`",
            ));
        }
        let filter = self.filter(&request)?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{} readers have the feed open already; try again when one is done",
                limits::FEED_READERS_MAX
            )));
        };
        let feed = Feed::open(self.admin.journal.clone(), filter, start).await;
        Ok(Reading { feed: feed.map_err(from_store)?, admin: self.admin.clone(), _place: place })
    }

    fn filter(&self, request: &api::WatchEventsRequest) -> Result<FeedFilter, Status> {
        let refused = |field: &str, value: &str, reason: &str| {
            let shown: String = value.chars().take(100).collect();
            Err(Status::invalid_argument(format!("{field} is {shown:?}; {reason}")))
        };
        let log = match request.event_log.as_str() {
            "" => None,
            name => Some(self.admin.journal_named(name)),
        };
        if log.as_ref().is_some_and(|log| !is_journal_name(log.as_str())) {
            let reason = "it must be the name of a service or of a journal";
            return refused("event_log", &request.event_log, reason);
        }
        if request.entity_id.len() > limits::ENTITY_ID_BYTES_MAX {
            let reason = format!("an id has at most {} bytes", limits::ENTITY_ID_BYTES_MAX);
            return refused("entity_id", &request.entity_id, &reason);
        }
        let id = (!request.entity_id.is_empty()).then(|| request.entity_id.as_str().into());
        Ok(FeedFilter { log, id })
    }

    /// Server-sent events: the type of the event as `event`, its JSON as `data`, its position as `id`.
    pub async fn sse<B>(&self, request: &Request<B>, pool: &DescriptorPool) -> Response<Body> {
        let opened = match asked(request.uri().query().unwrap_or_default(), request.headers()) {
            Ok(asked) => self.open(asked).await,
            Err(status) => Err(status),
        };
        let reading = match opened {
            Ok(reading) => reading,
            Err(status) => return refusal::answer(request.headers(), &status),
        };
        let pool = pool.clone();
        let pieces = stream::unfold(Some(reading), move |reading| {
            let pool = pool.clone();
            async move {
                let mut reading = reading?;
                let next = tokio::time::timeout(limits::FEED_KEEP_ALIVE, reading.next()).await;
                let (text, reading) = match next {
                    Err(_) => (": nothing new\n\n".to_owned(), Some(reading)),
                    Ok(Ok(event)) => match sse_event(&pool, &event) {
                        Ok(text) => (text, Some(reading)),
                        Err(status) => (sse_error(&status), None),
                    },
                    Ok(Err(status)) => (sse_error(&status), None),
                };
                Some((Ok(Frame::data(Bytes::from(text))), reading))
            }
        });
        let mut response =
            Response::new(Body::new(StreamBody::new(until_drain(pieces, &self.admin))));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    pub async fn grpc<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let codec = tonic_prost::ProstCodec::default();
        Grpc::new(codec).server_streaming(self.clone(), request).await.map(|body| {
            Body::new(body.map_err(|status| Status::internal(status.message().to_owned())))
        })
    }
}

impl ServerStreamingService<api::WatchEventsRequest> for Feeds {
    type Response = api::FeedEvent;
    type ResponseStream = BoxStream<'static, Result<api::FeedEvent, tonic::Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<api::WatchEventsRequest>) -> Self::Future {
        let feeds = self.clone();
        Box::pin(async move {
            let reading = feeds.open(request.into_inner()).await.map_err(to_tonic)?;
            let events = stream::unfold(Some(reading), |reading| async {
                let mut reading = reading?;
                match reading.next().await {
                    Ok(event) => Some((Ok(event), Some(reading))),
                    Err(status) => Some((Err(to_tonic(status)), None)),
                }
            });
            Ok(tonic::Response::new(until_drain(events, &feeds.admin).boxed()))
        })
    }
}

impl Reading {
    async fn next(&mut self) -> Result<api::FeedEvent, Status> {
        let FedEvent { entry, position } = self.feed.next().await.map_err(from_store)?;
        let live = self.admin.registry.live();
        let service = live.by_journal(&entry.address.journal);
        let stored = StoredEvent { seq: entry.seq, at_ms: entry.at_ms, event: entry.event };
        Ok(api::FeedEvent {
            event_log: entry.address.journal.to_string(),
            entity_id: entry.address.id.to_string(),
            event: Some(entities::event(service.map(|service| &**service), stored)),
            position: position.unwrap_or_default(),
        })
    }
}

/// Ends when the node drains: readers go on elsewhere.
fn until_drain<T>(
    items: impl Stream<Item = T> + Send + 'static,
    admin: &Admin,
) -> impl Stream<Item = T> + Send + 'static {
    let mut draining = admin.readiness.draining();
    items.take_until(async move {
        // Without a sender nothing drains any more.
        let _ = draining.wait_for(|draining| *draining).await;
    })
}

fn asked(query: &str, headers: &http::HeaderMap) -> Result<api::WatchEventsRequest, Status> {
    let mut asked = api::WatchEventsRequest::default();
    // What browsers send when they connect again.
    if let Some(last) = headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        asked.from = last.to_owned();
    }
    for pair in query::pairs(query) {
        let (name, value) = pair?;
        match name.as_str() {
            "event_log" | "eventLog" => asked.event_log = value,
            "entity_id" | "entityId" => asked.entity_id = value,
            "from" if asked.from.is_empty() => asked.from = value,
            "from" => {}
            other => {
                let shown: String = other.chars().take(100).collect();
                return Err(Status::invalid_argument(format!(
                    "the query has no parameter {shown}; it has event_log, entity_id and from"
                )));
            }
        }
    }
    Ok(asked)
}

fn sse_event(pool: &DescriptorPool, event: &api::FeedEvent) -> Result<String, Status> {
    let text = String::from_utf8(json::message(pool, "FeedEvent", event)?)
        .map_err(|_| Status::internal("an event's JSON is not UTF-8"))?;
    let id = match event.position.as_str() {
        "" => String::new(),
        position => format!("id: {position}\n"),
    };
    let name = event.event.as_ref().map(|event| event.r#type.as_str()).unwrap_or_default();
    Ok(format!("{id}event: {name}\ndata: {text}\n\n"))
}

fn sse_error(status: &Status) -> String {
    let error = serde_json::json!({ "code": status.code.name(), "message": status.message });
    format!("event: stead.error\ndata: {error}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &str, last: Option<&'static str>) -> Result<api::WatchEventsRequest, Status> {
        let mut headers = http::HeaderMap::new();
        headers.extend(last.map(|id| {
            (http::HeaderName::from_static("last-event-id"), HeaderValue::from_static(id))
        }));
        asked(query, &headers)
    }

    #[test]
    fn a_browser_that_connects_again_goes_on_where_it_was() {
        assert_eq!(ask("event_log=cart&from=beginning", None).expect("valid").from, "beginning");
        assert_eq!(ask("from=beginning", Some("CAE")).expect("valid").from, "CAE");
    }

    #[test]
    fn unknown_parameters_are_refused_by_name() {
        let status = ask("journal=cart", None).expect_err("refused");
        assert!(status.message.contains("no parameter journal"), "{status:?}");
    }
}
