//! The other nodes, as callers see them: one connection to each, made when it is needed, shared by all
//! calls, and made again after it broke.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use parking_lot::RwLock;
use prost::Message as _;

use crate::cluster::Greeting;
use crate::cluster::routes::Route;
use crate::router::body::{self, Pieces, Unread, Waiter};
use crate::router::link::{InFlight, Link, Sender, Unready};
use crate::router::tls::Identity;
use crate::router::wire::{self, CallHeadRef, NotMine, Refusal};
use crate::words::budget::{self, Budget};
use crate::words::clock::{self, Instant};
use crate::words::telemetry::Metrics;
use crate::words::{NodeId, Status, limits};

/// Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    me: NodeId,
    identity: Identity,
    metrics: Metrics,
    arriving: Arc<Budget>,
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
}

/// What a node answered.
#[derive(Debug)]
pub enum Answer {
    Reply(Bytes),
    Refused(Status),
    /// It changed nothing.
    NotMine(Route),
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum CallFailed {
    /// The request has not reached the node: a retry is safe.
    NotSent(String),
    /// The connection broke; nobody knows what the node has done.
    Broken(String),
    /// Too many calls to that node are in flight, or wait for the network. Nothing was sent.
    Busy,
    /// Nobody knows what the node has done.
    Late,
}

impl CallFailed {
    /// For metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "not_sent",
            Self::Broken(_) => "broken",
            Self::Busy => "busy",
            Self::Late => "deadline",
        }
    }

    /// For callers who do not retry.
    pub fn into_status(self, node: NodeId) -> Status {
        let node = node.short();
        match self {
            Self::NotSent(reason) => {
                Status::unavailable(format!("node {node} cannot be reached: {reason}"))
            }
            Self::Broken(reason) => Status::unavailable(format!(
                "the connection to node {node} broke, so what was asked of it may have taken effect: \
                 {reason}"
            )),
            Self::Busy => Status::resource_exhausted(format!(
                "as many calls to node {node} are in flight as may; nothing was changed, try again \
                 later"
            )),
            Self::Late => Status::deadline_exceeded(format!(
                "the deadline passed before node {node} had answered; what was asked of it may take \
                 effect"
            )),
        }
    }
}

impl Peers {
    pub fn new(me: NodeId, identity: Identity, metrics: Metrics) -> Self {
        let arriving = Arc::new(Budget::new(limits::PEER_ARRIVING_BYTES_MAX));
        Self(Arc::new(Inner { me, identity, metrics, arriving, links: RwLock::default() }))
    }

    pub fn me(&self) -> NodeId {
        self.0.me
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Forwards a command.
    pub async fn call(
        &self,
        node: NodeId,
        address: SocketAddr,
        head: &CallHeadRef<'_>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Answer, CallFailed> {
        let texts = head.service.len() + head.method.len() + head.request_id.len();
        let mut encoded = BytesMut::with_capacity(texts + limits::PEER_HEAD_BYTES);
        head.encode(&mut encoded);
        let body = Pieces::framed(&encoded, payload);
        self.send(node, address, wire::CALL, body, deadline).await
    }

    /// Has a node answer a request of the admin API.
    pub async fn admin(
        &self,
        node: NodeId,
        address: SocketAddr,
        method: &str,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Status> {
        let head = wire::AdminHead { protocol: wire::PROTOCOL, method: method.into() };
        let body = Pieces::framed(&head.encode_to_vec(), payload);
        self.ask(node, address, wire::ADMIN, body, deadline).await
    }

    /// Whether a node answers.
    #[cfg(test)]
    pub async fn ping(
        &self,
        node: NodeId,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<(), Status> {
        let hello = wire::hello(self.0.me).encode_to_vec().into();
        self.ask(node, address, wire::HELLO, Pieces::whole(hello), deadline).await.map(drop)
    }

    /// Whether a node lets this one in. A single failure may be the other's end.
    pub async fn greet(&self, node: NodeId, address: SocketAddr) -> Greeting {
        let link = self.link(node, address);
        let mut was_refused = false;
        let until = clock::now() + limits::PEER_CONNECT_MAX * 2;
        while clock::now() < until {
            match link.ready().await {
                Ok(_) => return Greeting::Met,
                Err(reason @ Unready::Unlike(_)) => {
                    if std::mem::replace(&mut was_refused, true) {
                        return Greeting::Refused(reason.to_string());
                    }
                    // The next one is another attempt.
                    tokio::time::sleep(limits::PEER_RETRY_MIN * 2).await;
                }
                Err(Unready::Connecting) => {}
                Err(Unready::Failed(_)) => return Greeting::Silent,
            }
        }
        Greeting::Silent
    }

    /// Hands shards to a node. True if it took them.
    pub async fn take(
        &self,
        node: NodeId,
        address: SocketAddr,
        shards: Vec<wire::TakeShard>,
        deadline: Instant,
    ) -> Result<bool, Status> {
        let take = wire::Take { protocol: wire::PROTOCOL, shards };
        let body = Pieces::whole(take.encode_to_vec().into());
        let answer = self.ask(node, address, wire::TAKE, body, deadline).await?;
        let taken = wire::Taken::decode(answer).map_err(|error| wire::malformed(&error))?;
        Ok(taken.taken)
    }

    async fn ask(
        &self,
        node: NodeId,
        address: SocketAddr,
        path: &'static str,
        body: Pieces,
        deadline: Instant,
    ) -> Result<Bytes, Status> {
        match self.send(node, address, path, body, deadline).await {
            Ok(Answer::Reply(reply)) => Ok(reply),
            Ok(Answer::Refused(status)) => Err(status),
            Ok(Answer::NotMine(_)) => {
                Err(Status::internal("a peer gave an answer of another kind"))
            }
            Err(failed) => Err(failed.into_status(node)),
        }
    }

    async fn send(
        &self,
        node: NodeId,
        address: SocketAddr,
        path: &'static str,
        body: Pieces,
        deadline: Instant,
    ) -> Result<Answer, CallFailed> {
        let link = self.link(node, address);
        let _in_flight = InFlight::enter(&link).ok_or(CallFailed::Busy)?;
        let waiter = Waiter(body.taken());
        match tokio::time::timeout_at(deadline, exchange(&link, path, body)).await {
            Ok(answer) => answer,
            Err(_) if waiter.0.withdraw() => Err(CallFailed::NotSent("the deadline passed".into())),
            Err(_) => Err(CallFailed::Late),
        }
    }

    fn link(&self, node: NodeId, address: SocketAddr) -> Arc<Link> {
        if let Some(link) = self.0.links.read().get(&node)
            && link.address == address
        {
            return link.clone();
        }
        let mut links = self.0.links.write();
        // Another call may have been quicker.
        match links.get(&node) {
            Some(link) if link.address == address => link.clone(),
            _ => {
                let (identity, metrics) = (self.0.identity.clone(), self.0.metrics.clone());
                let arriving = self.0.arriving.clone();
                let link = Link::new(self.0.me, node, address, identity, metrics, arriving);
                let link = Arc::new(link);
                links.insert(node, link.clone());
                link
            }
        }
    }

    /// Forgets connections to nodes that are not there any more.
    pub fn retain(&self, known: impl Fn(NodeId) -> bool) {
        self.0.links.write().retain(|node, _| known(*node));
    }
}

async fn exchange(
    link: &Arc<Link>,
    path: &'static str,
    mut body: Pieces,
) -> Result<Answer, CallFailed> {
    let sender = link.ready().await.map_err(|reason| CallFailed::NotSent(reason.to_string()))?;
    if path == wire::CALL && body.is_small() {
        body = match sender.pipe().call(body).await {
            Ok(answer) => return answer,
            Err(body) => body,
        };
    }
    Box::pin(alone(&sender, path, body, &link.arriving)).await
}

/// In a stream of its own.
async fn alone(
    sender: &Sender,
    path: &'static str,
    body: Pieces,
    arriving: &Budget,
) -> Result<Answer, CallFailed> {
    let response = sender.send(path, body).await?;
    let status = response.status();
    let mut held = arriving.hold();
    let count = |bytes| held.add(bytes).map_err(|_| budget::too_many_answers());
    let read_whole = body::collect(response.into_body(), limits::PEER_ANSWER_BYTES_MAX, count);
    let body = match read_whole.await {
        Ok(body) => body,
        Err(Unread::Broken(error)) => return Err(CallFailed::Broken(told(&error))),
        Err(Unread::TooLarge) => return Err(CallFailed::Broken("the answer is too large".into())),
        Err(Unread::Refused(status)) => return Ok(Answer::Refused(status)),
    };
    Ok(read(status, body))
}

pub(super) fn read(status: StatusCode, body: Bytes) -> Answer {
    match status {
        wire::REPLY => Answer::Reply(body),
        wire::REFUSED => Answer::Refused(Refusal::decode_status(body)),
        wire::NOT_MINE => match NotMine::decode(body) {
            Ok(not_mine) => Answer::NotMine(not_mine.route()),
            Err(error) => Answer::Refused(wire::malformed(&error)),
        },
        other => Answer::Refused(Status::internal(format!(
            "a peer answered with HTTP status {}, which nodes do not use",
            other.as_u16()
        ))),
    }
}

/// What [`read`] reads. It counts until it was sent; if there is no room for it, a refusal takes its place.
pub(super) fn written(answer: Answer, unread: &Arc<Budget>) -> (StatusCode, Bytes) {
    let (status, body) = match answer {
        Answer::Reply(reply) => (wire::REPLY, reply),
        Answer::Refused(status) => (wire::REFUSED, Refusal::encode_status(&status)),
        Answer::NotMine(route) => (wire::NOT_MINE, NotMine::new(route).encode_to_vec().into()),
    };
    match budget::cover(unread, body) {
        Ok(body) => (status, body),
        Err(status) => (wire::REFUSED, Refusal::encode_status(&status)),
    }
}

/// With its causes: hyper's own text names none.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::node::{Cluster, acquaint};
    use crate::words::Code;

    #[test]
    fn an_answer_counts_until_it_was_sent_and_one_without_room_says_that_its_command_was_run() {
        let unread = Arc::new(Budget::new(limits::SMALL_ANSWER_BYTES));
        let write = || {
            let reply = Bytes::from(vec![7; limits::SMALL_ANSWER_BYTES]);
            written(Answer::Reply(reply), &unread)
        };
        let (status, waits) = write();
        assert_eq!(status, wire::REPLY);
        let (status, body) = write();
        let Answer::Refused(refused) = read(status, body) else { panic!("there was room") };
        assert_eq!((refused.code, refused.http_status()), (Code::Unknown, 503));
        assert!(refused.message.contains("the command was run"), "{refused}");
        drop(waits);
        assert_eq!(write().0, wire::REPLY);
    }

    #[tokio::test]
    async fn an_answer_that_arrives_counts_and_without_room_its_command_is_not_sent_again() {
        let cluster = Cluster::new();
        let (a, b) = (cluster.node(1).await, cluster.node(2).await);
        acquaint(&[&a, &b]);
        b.own(1);
        a.learn(&b, 1);
        let mut request = a.request("Read");
        request.idempotency_key = Some("once".into());
        // Field 2, which nobody knows, with 16 KiB: a stream of its own.
        let mut payload = b"\n\x03ada\x12\x80\x80\x01".to_vec();
        payload.resize(payload.len() + 16 * limits::KIB, 7);
        request.payload = payload.into();
        let mut others = a.peers.0.arriving.hold();
        others.add(limits::PEER_ARRIVING_BYTES_MAX).unwrap();
        let refused = a.router.call(request.clone()).await.unwrap_err();
        assert_eq!((refused.code, refused.http_status()), (Code::Unknown, 503));
        assert_eq!((a.forwards("refused"), a.forwards("broken")), (1, 0));
        drop(others);
        a.router.call(request).await.unwrap();
    }
}
