//! Requests that are wrong, hostile or too large: a clear error, and the host goes on.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1024 * 1024;
const IDLE_CONNECTIONS: usize = 10_000;

fn add_item() -> String {
    format!("/{SERVICE}/AddItem")
}

#[tokio::test]
async fn wrong_json_is_refused_by_field() {
    let host = Host::with_guest(GUEST).await;
    for (body, word) in [
        (r#"{"userId": "ada", "productId": "kettle", "quantity": "many"}"#, "quantity"),
        (r#"{"userId": "ada", "productId": 7, "quantity": 1}"#, "product"),
        (r#"{"userId": "ada", "quantity": 99999999999}"#, "quantity"),
        (r#"{"userId": "ada", "colour": "red"}"#, "colour"),
        (r#"{"userId": "ada""#, ""),
        ("[]", ""),
        ("\u{0}", ""),
    ] {
        let sent = host.services.send(Method::POST, &add_item(), "application/json", body).await;
        let message = sent.refused(400, "invalid_argument");
        assert!(message.contains(word), "{body}: {message}");
    }
    assert!(host.cart("ada").await.is_empty());
}

#[tokio::test]
async fn unknown_fields_of_protobuf_are_passed_over() {
    let host = Host::with_guest(GUEST).await;
    // user_id = "ada", and field 1000 = "x".
    let body = [0x0a, 3, b'a', b'd', b'a', 0xc2, 0x3e, 1, b'x'];
    let path = format!("/{SERVICE}/GetCart");
    let got = host.services.send(Method::POST, &path, "application/proto", body.to_vec()).await;
    assert_eq!(got.status, 200, "{}", got.text());
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let host = Host::with_guest(GUEST).await;
    let body = vec![0xff; 64];
    let sent = host.services.send(Method::POST, &add_item(), "application/proto", body).await;
    sent.refused(400, "invalid_argument");
}

#[tokio::test]
async fn truncated_grpc_frames_are_refused() {
    let host = Host::with_guest(GUEST).await;
    for body in [
        &b""[..],
        &b"\0\0"[..],
        &b"\0\0\0\0\x64abc"[..],
        // It announces 4 GiB.
        &b"\0\xff\xff\xff\xffabc"[..],
        // Compressed, without saying how.
        &b"\x01\0\0\0\x01a"[..],
    ] {
        let status = host.grpc(&add_item(), body, &[]).await.status;
        assert!(!["0", "", "2"].contains(&&*status), "{body:?} gave grpc-status {status:?}");
    }
    assert!(host.cart("ada").await.is_empty(), "the host goes on");
}

#[tokio::test]
async fn a_compressed_bomb_is_refused() {
    let host = Host::with_guest(GUEST).await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; MIB];
    for _ in 0..256 {
        gzip.write_all(&zeros).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < MIB, "a small request");
    let before = resident_bytes(&host);

    let connect = host.services.with_header("content-encoding", "gzip");
    let sent = connect.send(Method::POST, &add_item(), "application/proto", bomb.clone()).await;
    sent.refused(413, "resource_exhausted");
    let framed = [&[1][..], &(bomb.len() as u32).to_be_bytes(), &bomb].concat();
    let sent = host.grpc(&add_item(), &framed, &[("grpc-encoding", "gzip")]).await;
    assert_eq!(sent.status, "8");

    let grown = resident_bytes(&host).saturating_sub(before);
    assert!(grown < 64 * MIB, "the bomb took {} MiB", grown / MIB);
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let host = Host::with_guest(GUEST).await;
    let mut request = String::from("GET /carts/ada HTTP/1.1\r\nhost: stead\r\n");
    for number in 0..2_000 {
        request.push_str(&format!("x-{number}: y\r\n"));
    }
    let answer = raw(&host, format!("{request}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_body_with_two_lengths_is_refused() {
    let host = Host::with_guest(GUEST).await;
    let smuggled = "POST /cart/ada/items/add HTTP/1.1\r\nhost: stead\r\ncontent-length: 3\r\n\
                    content-length: 30\r\n\r\n{}\n";
    let answer = raw(&host, smuggled.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_ends_its_headers_is_cut_off() {
    let host = Host::with_guest(GUEST).await;
    let mut slow = TcpStream::connect(host.services.address()).await.unwrap();
    slow.write_all(b"GET /carts/ada HTTP/1.1\r\nhost: st").await.unwrap();
    let start = Instant::now();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "still open after {:?}", start.elapsed());
}

#[tokio::test]
async fn ten_thousand_idle_connections_leave_room_for_a_call() {
    raise_open_files();
    let host = Host::with_guest(GUEST).await;
    let mut idle = Vec::with_capacity(IDLE_CONNECTIONS);
    for _ in 0..IDLE_CONNECTIONS {
        idle.push(TcpStream::connect(host.services.address()).await.expect("accepted"));
    }
    host.add("ada", "kettle", 1).await.ok();
    assert_eq!(host.cart("ada").await["kettle"], 1);
    drop(idle);
}

/// What the host says to these bytes before it closes, or in two seconds.
async fn raw(host: &Host, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(host.services.address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await;
    let read = read.expect("an answer in time").unwrap_or_default();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn resident_bytes(host: &Host) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", host.pid())).expect("statm");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

/// As far as the system lets us; the host inherits it.
fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read and write the struct.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    let needed = 2 * IDLE_CONNECTIONS as u64 / 2 + 1_000;
    assert!(limit.rlim_cur >= needed, "this test needs {needed} open files: raise `ulimit -Hn`");
}
