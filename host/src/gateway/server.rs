//! A port: accepting connections, bounding them, and closing them when their time is over.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::activity::{Activity, WatchedIo};
use crate::gateway::backend::Backend;
use crate::gateway::cors::Cors;
use crate::gateway::dispatch;
use crate::words::budget::Budget;
use crate::words::clock::{self, Instant};
use crate::words::config::CorsConfig;
use crate::words::limits;
use crate::words::telemetry::Metrics;

/// The bounds of a port, `limits` by default.
#[derive(Clone)]
pub struct ServerOptions {
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub cors: CorsConfig,
    pub metrics: Metrics,
    pub connections_max: usize,
    /// From the first byte of a request (or from the connection's start) to the end of its headers.
    pub header_read_timeout: Duration,
    pub body_read_timeout: Duration,
    /// Bodies of requests in memory, all together.
    pub request_bodies_bytes_max: usize,
    pub idle_timeout: Duration,
    /// How long requests may go on after the shutdown began.
    pub shutdown_max: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            tls: None,
            cors: CorsConfig::default(),
            metrics: Metrics::default(),
            connections_max: limits::CONNECTIONS_MAX,
            header_read_timeout: limits::HEADER_READ_TIMEOUT,
            body_read_timeout: limits::BODY_READ_TIMEOUT,
            request_bodies_bytes_max: limits::REQUEST_BODIES_BYTES_MAX,
            idle_timeout: limits::IDLE_CONNECTION_TIMEOUT,
            shutdown_max: limits::SHUTDOWN_MAX,
        }
    }
}

/// What the requests of a port share.
pub struct Edge<B> {
    pub backend: Arc<B>,
    pub options: ServerOptions,
    pub cors: Option<Cors>,
    pub bodies: Arc<Budget>,
    pub answers: Arc<Budget>,
    http: auto::Builder<TokioExecutor>,
    shutdown: CancellationToken,
}

/// Serves until `shutdown` is cancelled, then lets requests end, and returns when all connections
/// are closed: `options.shutdown_max` later at the latest.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    backend: Arc<B>,
    options: ServerOptions,
    shutdown: CancellationToken,
) {
    let edge = Arc::new(Edge {
        backend,
        cors: Cors::new(&options.cors),
        bodies: Arc::new(Budget::new(options.request_bodies_bytes_max)),
        answers: Arc::new(Budget::new(limits::ANSWERS_BYTES_MAX)),
        http: protocols(),
        shutdown: shutdown.clone(),
        options,
    });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < edge.options.connections_max => {
                connections.spawn(connection(edge.clone(), stream));
            }
            Ok((stream, _)) => {
                edge.options.metrics.connections_refused.inc();
                drop(stream);
            }
            Err(error) => accept_failed(&error).await,
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// A connection that broke before it was accepted says nothing about the next; without file
/// descriptors it is no use to try again at once.
async fn accept_failed(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) {
        tracing::warn!(%error, "cannot accept connections; trying again");
        tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
    }
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Time-outs are ours (see `watch`): hyper's own would also close idle connections.
    // Its limit of 100 headers is the default; saying so would move them to the heap.
    builder.http1().header_read_timeout(None).max_buf_size(limits::HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(limits::HEADER_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS_MAX)
        .keep_alive_interval(limits::H2_PING_INTERVAL)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT);
    builder
}

/// Counts a connection for as long as it is open.
struct Counted(Metrics);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

async fn connection<B: Backend>(edge: Arc<Edge<B>>, stream: TcpStream) {
    edge.options.metrics.connections.inc();
    let _counted = Counted(edge.options.metrics.clone());
    // Only a loss of speed, and not on a connection that is alive.
    let _ = stream.set_nodelay(true);
    let since = clock::now();
    let Some(tls) = &edge.options.tls else { return watch(&edge, stream, since).await };
    let acceptor = TlsAcceptor::from(tls.clone());
    let handshake =
        tokio::time::timeout_at(since + edge.options.header_read_timeout, acceptor.accept(stream));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = edge.shutdown.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => watch(&edge, stream, since).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

/// What the alarm of a connection stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alarm {
    /// A request has begun to arrive and must have come to the end of its headers.
    Headers,
    /// Nothing is going on.
    Idle,
    /// The connection was told to end, and must have ended.
    Close,
}

/// Serves one connection. There is one timer, and it is set only when what it waits for changes:
/// a request that arrives in one piece does not touch it.
async fn watch<B, S>(edge: &Arc<Edge<B>>, stream: S, since: Instant)
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let options = &edge.options;
    let activity = Arc::new(Activity::new(since));
    let io = TokioIo::new(WatchedIo::new(stream, activity.clone()));
    let service = service_fn({
        let (edge, activity) = (edge.clone(), activity.clone());
        move |request| {
            let (edge, busy) = (edge.clone(), activity.begin());
            async move { Ok::<_, Infallible>(busy.cover(dispatch::handle(&edge, request).await)) }
        }
    });
    let mut http = pin!(edge.http.serve_connection(io, service));
    let mut stop = pin!(edge.shutdown.cancelled());
    let mut timer = pin!(tokio::time::sleep_until(since + options.header_read_timeout));
    let mut alarm = Alarm::Headers;

    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = http.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(error, "connection failed");
                }
                return Poll::Ready(());
            }
            let partial = activity.is_partial();
            if alarm == Alarm::Idle && partial {
                alarm = Alarm::Headers;
                timer.as_mut().reset(clock::now() + options.header_read_timeout);
            } else if alarm == Alarm::Headers && !partial {
                alarm = Alarm::Idle;
                timer.as_mut().reset(clock::now() + options.idle_timeout);
            }
            if alarm != Alarm::Close && stop.as_mut().poll(cx).is_ready() {
                alarm = Alarm::Close;
                timer.as_mut().reset(clock::now() + options.shutdown_max);
                http.as_mut().graceful_shutdown();
                continue;
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match alarm {
                Alarm::Headers | Alarm::Close => return Poll::Ready(()),
                Alarm::Idle => {
                    let now = clock::now();
                    let until = activity.idle_since(now) + options.idle_timeout;
                    if until > now {
                        timer.as_mut().reset(until);
                    } else {
                        // HTTP/2 clients get a GOAWAY, so that no request is lost on the way.
                        alarm = Alarm::Close;
                        timer.as_mut().reset(now + options.header_read_timeout);
                        http.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    })
    .await;
}
