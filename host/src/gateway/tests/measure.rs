//! Measurements, run by hand:
//! `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test -p stead-host --lib measure -- --ignored --nocapture`

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost_reflect::prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::testing::{all, message, open};
use crate::gateway::transcode;
use crate::words::clock;

const CONNECTIONS: usize = 64;
const REQUESTS: usize = 2_000;

#[test]
#[ignore = "a measurement"]
fn transcoding_a_cart() {
    let descriptor = message("edge.All");
    let json = json!({
        "id": "ada",
        "many": (0..3).map(|n| json!({ "name": format!("item {n}") })).collect::<Vec<_>>(),
    })
    .to_string();
    let small = json!({ "id": "ada", "small": 5, "twoWords": "kettle" }).to_string();
    for (what, json) in [("small", small), ("cart", json)] {
        let bytes: Bytes =
            transcode::from_json(&descriptor, json.as_bytes()).unwrap().encode_to_vec().into();
        let rounds = 100_000;
        let start = crate::words::clock::now();
        for _ in 0..rounds {
            std::hint::black_box(transcode::to_json(&descriptor, bytes.clone()).unwrap());
        }
        let to_json = start.elapsed() / rounds;
        let start = crate::words::clock::now();
        for _ in 0..rounds {
            let read = transcode::from_json(&descriptor, json.as_bytes()).unwrap();
            std::hint::black_box(read.encode_to_vec());
        }
        println!("{what}: to JSON {to_json:?}, from JSON {:?}", start.elapsed() / rounds);
    }
}

async fn hello() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let service = service_fn(|_| async {
                let body = Full::new(Bytes::from_static(&[b'x'; 64]));
                Ok::<_, Infallible>(http::Response::new(body))
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// Requests a second, over connections that are kept.
async fn rate(address: SocketAddr, request: Bytes) -> f64 {
    let start = clock::now();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let request = request.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut answer = [0; 4096];
                for _ in 0..REQUESTS {
                    stream.write_all(&request).await.unwrap();
                    // An answer is small enough to come in one piece.
                    let read = stream.read(&mut answer).await.unwrap();
                    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    (CONNECTIONS * REQUESTS) as f64 / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn edge_beside_bare_hyper() {
    let port = open().await;
    let hello = hello().await;
    let post = |kind: &str, body: &[u8]| {
        let path = "/edge.Edge/Plain";
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: e\r\ncontent-type: application/{kind}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        Bytes::from([head.as_bytes(), body].concat())
    };
    let proto = post("proto", &all(json!({ "id": "ada", "small": 5, "twoWords": "kettle" })));
    let json = post("json", br#"{"id":"ada","small":5,"twoWords":"kettle"}"#);
    let get = Bytes::from_static(b"GET /v1/echo/ada HTTP/1.1\r\nhost: e\r\n\r\n");
    for _ in 0..3 {
        let bare = rate(hello, get.clone()).await;
        println!("bare hyper: {bare:.0}/s");
        for (what, request) in [("proto", &proto), ("json", &json), ("template", &get)] {
            let rate = rate(port.address, request.clone()).await;
            println!("{what}: {rate:.0}/s, {:.0} % of bare", rate * 100.0 / bare);
        }
    }
}
