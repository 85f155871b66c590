use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::server::ServerOptions;
use crate::gateway::testing::{Port, open, open_with};

const SHORT: Duration = Duration::from_millis(60);
const GET: &[u8] = b"GET /v1/echo/ada HTTP/1.1\r\nhost: edge\r\n\r\n";

async fn short(change: impl FnOnce(&mut ServerOptions)) -> Port {
    let mut options = ServerOptions::default();
    change(&mut options);
    open_with(options).await
}

/// Reads one answer of which the body's length is known.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut_off() {
    let port = short(|options| options.header_read_timeout = SHORT).await;
    assert_eq!(port.raw(b"").await, "");
}

#[tokio::test]
async fn a_slow_header_is_cut_off_however_often_a_byte_comes() {
    let port = short(|options| options.header_read_timeout = SHORT).await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream.write_all(&GET[..10]).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let drip = tokio::spawn(async move {
        let mut every = tokio::time::interval(SHORT / 6);
        while writer.write_all(b"a").await.is_ok() {
            every.tick().await;
        }
    });
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    drop(reader);
    drip.abort();
}

#[tokio::test]
async fn a_second_header_that_never_ends_is_cut_off_too() {
    let port = short(|options| options.header_read_timeout = SHORT).await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream.write_all(GET).await.unwrap();
    answer(&mut stream).await;
    stream.write_all(&GET[..10]).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_time_out_but_not_its_own() {
    let port = short(|options| {
        options.header_read_timeout = SHORT;
        options.idle_timeout = SHORT * 5;
    })
    .await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(GET).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        let quiet = tokio::time::timeout(SHORT * 2, stream.readable()).await;
        assert!(quiet.is_err(), "closed too early");
    }
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_idle_http2_connection_is_kept_and_then_closed() {
    let port = short(|options| {
        options.header_read_timeout = SHORT;
        options.idle_timeout = SHORT * 4;
    })
    .await;
    let stream = TcpStream::connect(port.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(
            hyper_util::rt::TokioExecutor::new(),
            TokioIo::new(stream),
        )
        .await
        .unwrap();
    let mut connection = tokio::spawn(connection);
    let early = tokio::time::timeout(SHORT * 2, &mut connection).await;
    assert!(early.is_err(), "closed too early");
    let uri = format!("http://{}/v1/echo/ada", port.address);
    let request = Request::get(uri).body(Empty::new()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_lasts_is_not_idle() {
    let port = short(|options| options.idle_timeout = SHORT).await;
    let stream = TcpStream::connect(port.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/probe/endless").header("host", "edge");
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let mut response = client.send_request(request).await.unwrap();
    let frame = tokio::time::timeout(SHORT * 4, response.body_mut().frame()).await;
    assert!(frame.is_err(), "ended: {frame:?}");
}

#[tokio::test]
async fn a_slow_body_is_a_408() {
    let port = short(|options| options.body_read_timeout = SHORT).await;
    let answer = port
        .raw(
            b"POST /v1/echo HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\n\
              content-length: 10\r\n\r\n{",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("deadline_exceeded"), "{answer}");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_counted() {
    let metrics = crate::words::telemetry::Metrics::default();
    let counted = metrics.clone();
    let port = short(|options| {
        options.connections_max = 1;
        options.metrics = metrics;
    })
    .await;
    let mut first = TcpStream::connect(port.address).await.unwrap();
    first.write_all(GET).await.unwrap();
    answer(&mut first).await;
    assert_eq!(port.raw(b"").await, "");
    assert_eq!(counted.connections_refused.get(), 1);
    assert_eq!(counted.connections.get(), 1);
    // The one that was there is unharmed.
    first.write_all(GET).await.unwrap();
    answer(&mut first).await;
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_closes_idle_connections() {
    let mut port = open().await;
    let mut idle = TcpStream::connect(port.address).await.unwrap();
    idle.write_all(GET).await.unwrap();
    answer(&mut idle).await;
    let mut busy = TcpStream::connect(port.address).await.unwrap();
    let (head, tail) = (
        b"POST /v1/echo HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\n\
          expect: 100-continue\r\ncontent-length: 2\r\n\r\n",
        b"{}",
    );
    busy.write_all(head).await.unwrap();
    // The server asks for the body only once the request is being handled.
    let mut asked = [0; 25];
    busy.read_exact(&mut asked).await.unwrap();
    assert!(asked.starts_with(b"HTTP/1.1 100"));

    port.stop.cancel();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    busy.write_all(tail).await.unwrap();
    assert!(answer(&mut busy).await.starts_with("HTTP/1.1 200"));
    assert_eq!(busy.read(&mut [0; 1]).await.unwrap(), 0);
    (&mut port.served).await.unwrap();
    assert!(TcpStream::connect(port.address).await.is_err());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let mut port = short(|options| options.shutdown_max = SHORT).await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream
        .write_all(
            b"POST /edge.Edge/Never HTTP/1.1\r\nhost: edge\r\ncontent-type: application/proto\r\n\
              expect: 100-continue\r\ncontent-length: 2\r\n\r\n",
        )
        .await
        .unwrap();
    stream.read_exact(&mut [0; 25]).await.unwrap();
    stream.write_all(b"\x08\x01").await.unwrap();
    port.stop.cancel();
    (&mut port.served).await.unwrap();
}

#[tokio::test]
async fn header_floods_are_refused() {
    let port = open().await;
    let many = "x: 1\r\n".repeat(101);
    let answer = port.raw(format!("GET / HTTP/1.1\r\nhost: e\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let long = "a".repeat(20_000);
    let answer =
        port.raw(format!("GET / HTTP/1.1\r\nhost: e\r\nx: {long}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    let request = Request::get(format!("http://{}/v1/echo/a", port.address)).header("x", &long);
    assert_eq!(port.send_h2(request, "").await.status, 431);
    let request = Request::get(format!("http://{}/v1/echo/a", port.address));
    let request = (0..101).fold(request, |request, n| request.header(format!("x-{n}"), "1"));
    assert_eq!(port.send_h2(request, "").await.status, 431);
}

#[tokio::test]
async fn smuggling_and_nonsense_are_refused() {
    let port = open().await;
    for bytes in [
        &b"POST /v1/echo HTTP/1.1\r\nhost: e\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"[..],
        b"POST /v1/echo HTTP/1.1\r\nhost: e\r\ncontent-length: -1\r\n\r\n{}",
        b"POST /v1/echo HTTP/1.1\r\nhost: e\r\ntransfer-encoding: gzip\r\n\r\n",
        b"GET /v1/echo/\xff HTTP/1.1\r\nhost: e\r\nx\x01: 1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        let answer = port.raw(bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bytes:?}: {answer}");
    }
}

#[tokio::test]
async fn of_content_length_and_chunks_the_chunks_count_and_the_connection_ends() {
    let port = open().await;
    let (length, chunked) = ("content-length: 3\r\n", "transfer-encoding: chunked\r\n");
    for headers in [[length, chunked], [chunked, length]] {
        let headers = headers.concat();
        // What follows is not read, whoever may take it for a request.
        let bytes = format!(
            "POST /v1/echo HTTP/1.1\r\nhost: e\r\ncontent-type: application/json\r\n{headers}\r\n\
             2\r\n{{}}\r\n0\r\n\r\nGET /v1/echo/smuggled HTTP/1.1\r\nhost: e\r\n\r\n"
        );
        let answer = port.raw(bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(!answer.contains("smuggled"), "{answer}");
    }
}

#[tokio::test]
async fn bodies_share_a_budget_from_their_first_byte_to_the_answer() {
    let port = short(|options| options.request_bodies_bytes_max = 100).await;
    let padded = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
    assert_eq!(port.post_json("/v1/echo", padded(100)).await.status, 200);
    let refused = port.post_json("/v1/echo", padded(101)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.json()["code"].as_str()),
        (429, Some("resource_exhausted"))
    );

    // One that has not come to its end counts what has come.
    let mut slow = TcpStream::connect(port.address).await.unwrap();
    let head = b"POST /v1/echo HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\n\
                 expect: 100-continue\r\ncontent-length: 90\r\n\r\n";
    slow.write_all(head).await.unwrap();
    slow.read_exact(&mut [0; 25]).await.unwrap();
    let body = padded(90);
    let (some, rest) = body.split_at(60);
    slow.write_all(some.as_bytes()).await.unwrap();
    while port.post_json("/v1/echo", padded(41)).await.status != 429 {
        tokio::task::yield_now().await;
    }
    assert_eq!(port.post_json("/v1/echo", padded(40)).await.status, 200);
    slow.write_all(rest.as_bytes()).await.unwrap();
    assert!(answer(&mut slow).await.starts_with("HTTP/1.1 200"));
    assert_eq!(port.post_json("/v1/echo", padded(100)).await.status, 200);

    // One whose client goes away counts no longer.
    let mut gone = TcpStream::connect(port.address).await.unwrap();
    gone.write_all(&head[..]).await.unwrap();
    gone.read_exact(&mut [0; 25]).await.unwrap();
    gone.write_all(some.as_bytes()).await.unwrap();
    drop(gone);
    while port.post_json("/v1/echo", padded(100)).await.status != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_drops_its_call_and_harms_no_other() {
    let port = open().await;
    for _ in 0..100 {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        let request = b"POST /edge.Edge/Never HTTP/1.1\r\nhost: e\r\n\
                        content-type: application/proto\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(request).await.unwrap();
    }
    assert_eq!(port.get("/v1/echo/ada").await.status, 200);
}
