//! The peer port: what other nodes ask of this one.
//!
//! Nobody gets beyond the TLS handshake without the cluster's key, so what is bounded against strangers is
//! the handshake: its time and how many there are at once. What is bounded for members is what they
//! might do in excess: connections, calls, bytes.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Handed;
use crate::router::body::{self, Unread};
use crate::router::peers::written;
use crate::router::pipe::{self, Queue};
use crate::router::refusals::Refusals;
use crate::router::{Answer, Peers, Router, wire};
use crate::words::budget::{Budget, Held};
use crate::words::telemetry::PeerLabels;
use crate::words::{NodeId, Revision, Status, limits};

/// Makes a revision that another node has live here too, or a newer one. Less only if the store has lost it.
pub type Follow = Arc<dyn Fn(Revision) -> BoxFuture<'static, Result<(), Status>> + Send + Sync>;
/// Takes up shards that a node hands over. False if it cannot.
pub type TakeHandler = Arc<dyn Fn(Vec<Handed>) -> BoxFuture<'static, bool> + Send + Sync>;
/// Answers a method of the admin API.
pub type AdminHandler =
    Arc<dyn Fn(String, Bytes) -> BoxFuture<'static, Result<Bytes, Status>> + Send + Sync>;

/// What the peer port serves.
pub struct PeerService {
    pub router: Router,
    pub peers: Peers,
    pub follow: Follow,
    pub take: TakeHandler,
    pub admin: AdminHandler,
}

struct Port {
    service: PeerService,
    http: http2::Builder<TokioExecutor>,
    bodies: Budget,
    unread: Arc<Budget>,
    refusals: Refusals,
    shutdown: CancellationToken,
}

/// Serves until `shutdown` is cancelled, then lets calls end, for [`limits::PEER_DRAIN_MAX`] at most.
pub async fn serve(listener: TcpListener, service: PeerService, shutdown: CancellationToken) {
    let metrics = service.peers.metrics().clone();
    let port = Arc::new(Port {
        service,
        http: protocol(),
        bodies: Budget::new(limits::PEER_BODIES_BYTES_MAX),
        unread: Arc::new(Budget::new(limits::PEER_ANSWERS_BYTES_MAX)),
        refusals: Refusals::default(),
        shutdown: shutdown.clone(),
    });
    let handshakes = Arc::new(Semaphore::new(limits::PEER_HANDSHAKES_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => match handshakes.clone().try_acquire_owned() {
                Ok(permit) if connections.len() < limits::PEER_CONNECTIONS_MAX => {
                    connections.spawn(connection(port.clone(), stream, address, permit));
                }
                Ok(_) | Err(_) => {
                    metrics.peer_handshakes_refused.inc();
                }
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer's connection; trying again");
                tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn protocol() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::PEER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::PEER_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits::PEER_CALLS_MAX as u32)
        .max_header_list_size(limits::PEER_HEADER_BYTES_MAX)
        .max_frame_size(limits::PEER_PIECE_BYTES as u32)
        .max_send_buf_size(limits::PEER_SEND_BUFFER_BYTES)
        // Calls are given up when their clients go away, all at once if it must be.
        .max_pending_accept_reset_streams(limits::PEER_CALLS_MAX)
        .max_local_error_reset_streams(None)
        .auto_date_header(false)
        .keep_alive_interval(limits::PEER_PING_INTERVAL)
        .keep_alive_timeout(limits::PEER_PING_TIMEOUT);
    builder
}

async fn connection(
    port: Arc<Port>,
    stream: TcpStream,
    address: SocketAddr,
    handshake: OwnedSemaphorePermit,
) {
    let Some(stream) = secured(&port, stream, address.ip()).await else { return };
    drop(handshake);
    let metrics = port.service.peers.metrics();
    let open = metrics.peer_connections.get_or_create_owned(&PeerLabels { direction: "in" });
    open.inc();
    speak(&port, stream).await;
    open.dec();
}

async fn secured(port: &Port, stream: TcpStream, address: IpAddr) -> Option<TlsStream<TcpStream>> {
    // Only a loss of speed.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(port.service.peers.identity().server.clone());
    let accept = tokio::time::timeout(limits::PEER_HANDSHAKE_MAX, acceptor.accept(stream));
    let accepted = tokio::select! {
        accepted = accept => accepted,
        () = port.shutdown.cancelled() => return None,
    };
    let reason = match accepted {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    port.service.peers.metrics().peer_handshakes_refused.inc();
    if port.refusals.tell(address) {
        tracing::warn!(
            %address, reason,
            "refused a connection to the peer port; if a node is there, most likely its cluster key \
             (STEAD_CLUSTER_KEY) or its certificate is not this cluster's"
        );
    }
    None
}

async fn speak(port: &Arc<Port>, stream: TlsStream<TcpStream>) {
    let service = service_fn(|request| {
        let port = port.clone();
        async move { Ok::<_, Infallible>(answer(&port, request).await) }
    });
    let mut http = std::pin::pin!(port.http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = port.shutdown.cancelled() => {
            http.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits::PEER_DRAIN_MAX, http).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a peer's connection failed");
    }
}

type Reply = Response<Either<Full<Bytes>, Queue>>;

async fn answer(port: &Arc<Port>, request: Request<Incoming>) -> Reply {
    if request.uri().path() == wire::CALLS {
        return share(port, request.into_body());
    }
    // Held until the answer is ready.
    let mut held = port.bodies.hold();
    let answer = handle(port, request, &mut held).await.unwrap_or_else(Answer::Refused);
    let (status, body) = written(answer, &port.unread);
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    response
}

/// Answers the calls that come in one stream.
fn share(port: &Arc<Port>, calls: Incoming) -> Reply {
    let served = port.clone();
    let unread = port.unread.clone();
    let answers = pipe::serve(calls, port.shutdown.clone(), unread, move |body| {
        let port = served.clone();
        async move {
            let mut held = port.bodies.hold();
            match held.add(body.len()) {
                Ok(()) => port.service.router.receive(body, &port.service.follow).await,
                Err(status) => Answer::Refused(status),
            }
        }
    });
    Response::new(Either::Right(answers))
}

async fn handle(
    port: &Port,
    request: Request<Incoming>,
    held: &mut Held<'_>,
) -> Result<Answer, Status> {
    let service = &port.service;
    let (parts, body) = request.into_parts();
    let read = body::collect(body, limits::PEER_REQUEST_BYTES_MAX, |bytes| held.add(bytes));
    let body = match tokio::time::timeout(limits::BODY_READ_TIMEOUT, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(Unread::Refused(status))) => return Err(status),
        Ok(Err(Unread::TooLarge)) => {
            return Err(Status::resource_exhausted("a peer's request is too large"));
        }
        Ok(Err(Unread::Broken(_))) => {
            return Err(Status::invalid_argument("a peer's request broke off"));
        }
        Err(_) => return Err(Status::deadline_exceeded("a peer's request did not arrive in time")),
    };
    match parts.uri.path() {
        wire::CALL => Ok(service.router.receive(body, &service.follow).await),
        wire::ADMIN => {
            let (head, payload) = wire::unframe::<wire::AdminHead>(body)?;
            wire::understood(head.protocol)?;
            (service.admin)(head.method, payload).await.map(Answer::Reply)
        }
        wire::TAKE => {
            let take = wire::Take::decode(body).map_err(|error| wire::malformed(&error))?;
            wire::understood(take.protocol)?;
            let taken =
                (service.take)(take.shards.into_iter().map(wire::TakeShard::handed).collect())
                    .await;
            Ok(Answer::Reply(wire::Taken { taken }.encode_to_vec().into()))
        }
        wire::HELLO => {
            let hello = wire::Hello::decode(body).map_err(|error| wire::malformed(&error))?;
            wire::understood(hello.protocol)?;
            let me: NodeId = service.peers.me();
            Ok(Answer::Reply(wire::hello(me).encode_to_vec().into()))
        }
        other => {
            Err(Status::unimplemented(format!("nodes of this version do not serve {other:?}")))
        }
    }
}
