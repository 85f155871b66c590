use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::router::tests::node::{
    Cluster, KEY, Node, acquaint, eventually, with_certificates, with_key, with_keys,
};
use crate::router::wire::{self, TakeShard};
use crate::words::{Code, NodeId, clock};

const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

fn soon() -> clock::Instant {
    clock::now() + Duration::from_secs(5)
}

async fn ping(from: &Node, to: &Node) -> Result<(), String> {
    let answer = from.peers.ping(to.id, to.address, soon()).await;
    answer.map_err(|status| status.message)
}

#[tokio::test]
async fn nodes_answer_pings_take_shards_and_run_admin_calls() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    ping(&a, &b).await.unwrap();
    let take = |count| {
        let shards = vec![TakeShard { shard: 3, epoch: 4, recent: Vec::new() }; count];
        a.peers.take(b.id, b.address, shards, soon())
    };
    assert!(take(1).await.unwrap());
    assert!(!take(2).await.unwrap());
    let admin = |method| a.peers.admin(b.id, b.address, method, Bytes::from("x"), soon());
    assert_eq!(admin("Echo").await.unwrap(), "x");
    assert_eq!(admin("Other").await.unwrap_err().code, Code::Unimplemented);
}

#[tokio::test]
async fn a_node_with_another_key_is_refused_in_both_directions() {
    let cluster = Cluster::new();
    let a = cluster.node(1).await;
    let b = cluster.node_with(2, with_key(OTHER_KEY)).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let reason = ping(from, to).await.unwrap_err();
        assert!(reason.contains("different cluster keys"), "{reason}");
    }
}

#[tokio::test]
async fn while_the_key_is_replaced_old_and_new_nodes_understand_each_other() {
    let cluster = Cluster::new();
    let old = cluster.node(1).await;
    let new = cluster.node_with(2, with_keys(OTHER_KEY, KEY)).await;
    let newest = cluster.node_with(3, with_key(OTHER_KEY)).await;
    for (from, to) in [(&old, &new), (&new, &old), (&new, &newest), (&newest, &new)] {
        ping(from, to).await.unwrap();
    }
    ping(&old, &newest).await.unwrap_err();
}

#[tokio::test]
async fn with_certificates_the_authority_decides_and_no_name() {
    let cluster = Cluster::new();
    let a = cluster.node_with(1, with_certificates()).await;
    let b = cluster.node_with(2, with_certificates()).await;
    let without = cluster.node(3).await;
    ping(&a, &b).await.unwrap();
    for (from, to) in [(&a, &without), (&without, &a)] {
        ping(from, to).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_node_that_answers_for_another_is_not_spoken_to() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let status = a.peers.ping(NodeId([7; 16]), b.address, soon()).await.unwrap_err();
    assert!(status.message.contains("node 02020202 answers"), "{status}");
}

#[tokio::test]
async fn strangers_get_nothing_and_cost_little() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 4_096],
        &[0x16, 3, 1, 0xff, 0xff],
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(b.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
    }
    eventually("they are counted", || b.metrics.peer_handshakes_refused.get() == 4).await;
    ping(&a, &b).await.unwrap();
}

/// A peer that takes what it is sent and closes the connection instead of answering. Calls share a stream,
/// or each has its own.
async fn rude(node: u8, shared: bool) -> (NodeId, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let id = NodeId([node; 16]);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(with_key(KEY).server);
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let (gone, mut told) = tokio::sync::mpsc::channel::<()>(1);
            let service = hyper::service::service_fn(move |request| {
                answer(id, request, shared, gone.clone())
            });
            let executor = hyper_util::rt::TokioExecutor::new();
            let io = hyper_util::rt::TokioIo::new(stream);
            let http = hyper::server::conn::http2::Builder::new(executor);
            tokio::select! {
                _ = http.serve_connection(io, service) => {}
                _ = told.recv() => {}
            }
        }
    });
    (NodeId([node; 16]), address)
}

type RudeBody = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

async fn answer(
    id: NodeId,
    request: http::Request<hyper::body::Incoming>,
    shared: bool,
    gone: tokio::sync::mpsc::Sender<()>,
) -> Result<http::Response<RudeBody>, std::convert::Infallible> {
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use prost::Message as _;
    let (parts, mut body) = request.into_parts();
    match parts.uri.path() {
        wire::HELLO => {
            let _ = body.collect().await;
            let hello = Full::new(Bytes::from(wire::hello(id).encode_to_vec()));
            Ok(http::Response::new(hello.boxed()))
        }
        wire::CALLS if shared => {
            tokio::spawn(async move {
                let _ = body.frame().await;
                let _ = gone.send(()).await;
            });
            let never = StreamBody::new(futures_util::stream::pending());
            Ok(http::Response::new(http_body_util::BodyExt::boxed(never)))
        }
        wire::CALLS => {
            let refused = http::Response::new(Full::default().boxed());
            let (mut parts, body) = refused.into_parts();
            parts.status = wire::REFUSED;
            Ok(http::Response::from_parts(parts, body))
        }
        _ => {
            let _ = body.collect().await;
            let _ = gone.send(()).await;
            std::future::pending().await
        }
    }
}

async fn with_rude(shared: bool) -> Node {
    let a = Cluster::new().node(1).await;
    let (id, address) = rude(9, shared).await;
    a.routes.set_addresses([(id, address)].into());
    let owner = crate::cluster::routes::Route { owner: Some(id), epoch: crate::words::Epoch(1) };
    a.routes.learn(crate::router::tests::node::shard(), owner);
    a
}

#[tokio::test]
async fn what_broke_off_is_sent_again_only_with_an_idempotency_key() {
    for shared in [true, false] {
        let a = with_rude(shared).await;
        let status = a.call("Read").await.unwrap_err();
        assert_eq!(status.code, Code::Unknown);
        assert!(status.message.contains("only with an idempotency key"), "{status}");

        let mut request = a.request("Add");
        request.idempotency_key = Some("once".into());
        let router = a.router.clone();
        let call = tokio::spawn(async move { router.call(request).await });
        eventually("it is sent again", || a.forwards("broken") >= 3).await;
        a.own(2);
        assert_eq!(call.await.unwrap().unwrap(), &b"\n\x03ada"[..]);
        assert_eq!(a.stored().await, 1);
    }
}

#[tokio::test]
async fn of_what_broke_off_nobody_says_that_it_was_not_run() {
    for shared in [true, false] {
        let a = with_rude(shared).await;
        let mut request = a.request("Add");
        request.idempotency_key = Some("once".into());
        request.deadline = clock::now() + Duration::from_millis(500);
        let status = a.router.call(request).await.unwrap_err();
        assert!(a.forwards("broken") >= 1);
        assert_eq!(status.code, Code::DeadlineExceeded);
        assert!(status.message.contains("may take effect"), "{status}");
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_ends_at_the_other_node() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    acquaint(&[&a, &b]);
    // Nobody owns the shard: the call waits at the other node.
    a.learn(&b, 1);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (router, request) = (a.router.clone(), a.request("Add"));
        calls.spawn(async move { router.call(request).await });
    }
    eventually("they wait there", || b.metrics.waiting_calls.get() == 3).await;
    calls.abort_all();
    eventually("they are given up there", || b.metrics.waiting_calls.get() == 0).await;
}

#[tokio::test]
async fn a_node_that_ends_answers_what_it_has_and_is_sent_nothing_more() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    acquaint(&[&a, &b]);
    a.learn(&b, 1);
    let (router, request) = (a.router.clone(), a.request("Add"));
    let waits = tokio::spawn(async move { router.call(request).await });
    eventually("it waits there", || b.metrics.waiting_calls.get() == 1).await;
    b.shutdown.cancel();
    b.own(2);
    assert_eq!(waits.await.unwrap().unwrap(), &b"\n\x03ada"[..]);
    // Its listener is closed.
    let mut request = a.request("Read");
    request.deadline = clock::now() + Duration::from_millis(500);
    let status = a.router.call(request).await.unwrap_err();
    assert!(status.message.contains("was not run"), "{status}");
    assert!(a.forwards("not_sent") > 0);
    assert_eq!((a.forwards("broken"), b.stored().await), (0, 1));
}

#[tokio::test]
async fn what_was_not_sent_is_tried_again() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    // Nobody listens there.
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    a.routes.set_addresses([(b.id, nowhere)].into());
    b.own(1);
    a.learn(&b, 1);
    let call = tokio::spawn({
        let (router, request) = (a.router.clone(), a.request("Add"));
        async move { router.call(request).await }
    });
    eventually("it is not sent", || a.forwards("not_sent") >= 2).await;
    acquaint(&[&a, &b]);
    assert_eq!(call.await.unwrap().unwrap(), &b"\n\x03ada"[..]);
    assert_eq!(b.stored().await, 1);
}
