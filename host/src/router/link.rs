//! The connection to one peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use crate::router::body::{self, Pieces};
use crate::router::peers::{CallFailed, told};
use crate::router::pipe::{Pipe, Queue};
use crate::router::tls::{Client, Identity};
use crate::router::wire::{self, Hello};
use crate::words::budget::Budget;
use crate::words::clock::{self, Instant};
use crate::words::telemetry::{Metrics, PeerLabels};
use crate::words::{NodeId, limits};

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unready {
    #[error("still connecting")]
    Connecting,
    /// One of the two does not take the other for a member, most likely.
    #[error(
        "the handshake failed; most likely the nodes have different cluster keys or certificates, or are \
         of different clusters: {0}"
    )]
    Unlike(String),
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Unready {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// A call that has a stream to itself, or all that share one.
type Body = Either<Pieces, Queue>;

/// An open connection.
pub(super) struct Sender {
    http: SendRequest<Body>,
    pipe: Pipe,
}

impl Sender {
    /// In a stream of its own.
    pub(super) async fn send(
        &self,
        path: &'static str,
        body: Pieces,
    ) -> Result<Response<Incoming>, CallFailed> {
        let taken = body.taken();
        let request = Request::post(path).body(Either::Left(body));
        let request = request.map_err(|error| CallFailed::NotSent(error.to_string()))?;
        match self.http.clone().try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(error) if taken.withdraw() => Err(CallFailed::NotSent(told(error.error()))),
            Err(error) => Err(CallFailed::Broken(told(error.error()))),
        }
    }

    pub(super) fn pipe(&self) -> &Pipe {
        &self.pipe
    }
}

pub(super) struct Link {
    me: NodeId,
    node: NodeId,
    pub(super) address: SocketAddr,
    identity: Identity,
    metrics: Metrics,
    /// For answers.
    pub(super) arriving: Arc<Budget>,
    in_flight: AtomicUsize,
    state: Mutex<State>,
    changed: Notify,
}

enum State {
    /// Not before `retry_at` again.
    Down {
        retry_at: Instant,
        failures: u32,
        reason: Unready,
    },
    Connecting {
        failures: u32,
    },
    Up(Arc<Sender>),
}

/// A call on a link.
pub(super) struct InFlight<'a>(&'a Link);

impl<'a> InFlight<'a> {
    pub(super) fn enter(link: &'a Link) -> Option<Self> {
        let guard = Self(link);
        let before = link.in_flight.fetch_add(1, Ordering::Relaxed);
        (before < limits::PEER_CALLS_MAX).then_some(guard)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    pub(super) fn new(
        me: NodeId,
        node: NodeId,
        address: SocketAddr,
        identity: Identity,
        metrics: Metrics,
        arriving: Arc<Budget>,
    ) -> Self {
        Self {
            me,
            node,
            address,
            identity,
            metrics,
            arriving,
            in_flight: AtomicUsize::new(0),
            state: Mutex::new(State::Down {
                retry_at: clock::now(),
                failures: 0,
                reason: Unready::Connecting,
            }),
            changed: Notify::new(),
        }
    }

    /// The open connection. Connects if there is none; while it is not yet time for that again, says why
    /// at once.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<Arc<Sender>, Unready> {
        if let State::Up(sender) = &*self.state.lock()
            && !sender.http.is_closed()
        {
            return Ok(sender.clone());
        }
        Box::pin(self.connected()).await
    }

    async fn connected(self: &Arc<Self>) -> Result<Arc<Sender>, Unready> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            {
                let mut state = self.state.lock();
                let failures = match &*state {
                    State::Up(sender) if !sender.http.is_closed() => return Ok(sender.clone()),
                    State::Up(_) => Some(0),
                    State::Down { retry_at, reason, .. } if clock::now() < *retry_at => {
                        return Err(reason.clone());
                    }
                    State::Down { failures, .. } => Some(*failures),
                    State::Connecting { .. } => None,
                };
                changed.as_mut().enable();
                if let Some(failures) = failures {
                    *state = State::Connecting { failures };
                    // On its own: the call that needs it first may have the least time.
                    tokio::spawn(connect(Attempt(self.clone())));
                }
            }
            if tokio::time::timeout(limits::PEER_READY_WAIT_MAX, changed).await.is_err() {
                return Err(Unready::Connecting);
            }
        }
    }

    fn settle(&self, outcome: Result<Sender, Unready>) {
        let mut state = self.state.lock();
        let State::Connecting { failures } = *state else { return };
        *state = match outcome {
            Ok(sender) => State::Up(Arc::new(sender)),
            Err(reason) => {
                let factor = 1 << failures.min(16);
                let wait = limits::PEER_RETRY_MIN * factor;
                State::Down {
                    retry_at: clock::now() + wait.min(limits::PEER_RETRY_MAX),
                    failures: failures.saturating_add(1),
                    reason,
                }
            }
        };
        drop(state);
        self.changed.notify_waiters();
    }
}

/// Settles even if it is dropped.
struct Attempt(Arc<Link>);

impl Drop for Attempt {
    fn drop(&mut self) {
        // Nothing, if it is settled.
        self.0.settle(Err(Unready::Failed("connecting was given up".into())));
    }
}

async fn connect(attempt: Attempt) {
    let link = &attempt.0;
    let mut outcome = Err(Unready::Failed("there is no key".into()));
    for client in link.identity.clients.iter() {
        let until = clock::now() + limits::PEER_CONNECT_MAX;
        outcome = match tokio::time::timeout_at(until, open(link, client)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no answer within {:?}", limits::PEER_CONNECT_MAX).into()),
        };
        if outcome.is_ok() {
            break;
        }
    }
    if let Err(reason) = &outcome {
        tracing::debug!(node = ?link.node, address = %link.address, %reason, "cannot connect to a peer");
    }
    link.settle(outcome);
}

async fn open(link: &Arc<Link>, client: &Client) -> Result<Sender, Unready> {
    let stream = TcpStream::connect(link.address).await.map_err(|error| error.to_string())?;
    // Only a loss of speed.
    let _ = stream.set_nodelay(true);
    let stream = TlsConnector::from(client.config.clone())
        .connect(client.name.clone(), stream)
        .await
        .map_err(|error| Unready::Unlike(error.to_string()))?;
    let (mut http, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::PEER_HEADER_BYTES_MAX)
        .max_frame_size(limits::PEER_PIECE_BYTES as u32)
        .initial_max_send_streams(limits::PEER_CALLS_MAX)
        // Calls are given up when their clients go away, all at once if it must be.
        .max_concurrent_reset_streams(limits::PEER_CALLS_MAX)
        .max_local_error_reset_streams(None)
        .keep_alive_interval(limits::PEER_PING_INTERVAL)
        .keep_alive_timeout(limits::PEER_PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| told(&error))?;
    let metrics = link.metrics.clone();
    tokio::spawn(async move {
        let open = metrics.peer_connections.get_or_create_owned(&PeerLabels { direction: "out" });
        open.inc();
        // Who waits for an answer learns of it.
        let _ = connection.await;
        open.dec();
    });
    // In TLS 1.3 a client is done before the server has looked at its key, and an address may be another
    // node's by now: nothing is sent before the other side has said who it is.
    introduce(link, &mut http).await?;
    let pipe = share(link, &mut http).await?;
    Ok(Sender { http, pipe })
}

async fn introduce(link: &Link, http: &mut SendRequest<Body>) -> Result<(), Unready> {
    let body = Either::Left(Pieces::whole(wire::hello(link.me).encode_to_vec().into()));
    let request = Request::post(wire::HELLO).body(body).map_err(|error| error.to_string())?;
    let response =
        http.send_request(request).await.map_err(|error| Unready::Unlike(told(&error)))?;
    let status = response.status();
    let body =
        body::collect(response.into_body(), limits::PEER_HEADER_BYTES_MAX as usize, |_| Ok(()))
            .await
            .map_err(|_| "the connection broke".to_owned())?;
    if status != wire::REPLY {
        return Err(wire::Refusal::decode_status(body).message.into());
    }
    let hello = Hello::decode(body).map_err(|error| error.to_string())?;
    wire::understood(hello.protocol).map_err(|status| status.message)?;
    match wire::node_id(&hello.node) {
        Some(node) if node == link.node => Ok(()),
        Some(node) => Err(format!("node {} answers at {}", node.short(), link.address).into()),
        None => Err("the other side does not say who it is".to_owned().into()),
    }
}

/// Opens the stream that calls share.
async fn share(link: &Link, http: &mut SendRequest<Body>) -> Result<Pipe, String> {
    let (pipe, queue) = Pipe::new();
    let request = Request::post(wire::CALLS).body(Either::Right(queue));
    let request = request.map_err(|error| error.to_string())?;
    let response = http.send_request(request).await.map_err(|error| told(&error))?;
    // Without it, each call has a stream to itself.
    match response.status() {
        wire::REPLY => {
            tokio::spawn(pipe.clone().read(response.into_body(), link.arriving.clone()));
        }
        _ => pipe.close(),
    }
    Ok(pipe)
}
