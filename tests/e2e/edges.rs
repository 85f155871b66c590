//! What an operator configures at the edges: TLS, browsers of other origins, logs for machines.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use stead_tests::cart::{GUEST, items};
use stead_tests::host::Options;
use stead_tests::{Host, files};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Signed by itself, for localhost.
const CERTIFICATE: &str = "host/src/gateway/testing/certificate.pem";
const KEY: &str = "host/src/gateway/testing/key.pem";
const SHOP: &str = "https://shop.example";

#[tokio::test]
async fn both_versions_of_http_are_served_over_tls() {
    let options = Options::default()
        .argument("--tls-certificate")
        .argument(&files::source(CERTIFICATE).display().to_string())
        .argument("--tls-key")
        .argument(&files::source(KEY).display().to_string());
    let host = options.start().await;
    host.deploy(GUEST).await;
    for (version, protocol) in [(Version::HTTP_11, "http/1.1"), (Version::HTTP_2, "h2")] {
        let product = format!("kettle-{protocol}");
        let item = json!({"productId": product, "name": "Kettle", "quantity": 1}).to_string();
        over_tls(&host, version, Method::POST, "/cart/ada/items/add", item).await;
        let cart = over_tls(&host, version, Method::GET, "/carts/ada", String::new()).await;
        assert_eq!(items(&cart).get(&product), Some(&1), "{cart}");
    }
    let address = host.services.base().trim_start_matches("https://");
    let mut plain = TcpStream::connect(address).await.expect("the port");
    let request = b"GET /carts/ada HTTP/1.1\r\nhost: localhost\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut plain, request).await.expect("sent");
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("kettle"), "plain HTTP is answered");
}

/// The JSON of a call on a connection of its own.
async fn over_tls(
    host: &Host,
    version: Version,
    method: Method,
    path: &str,
    body: String,
) -> Value {
    let request = Request::builder()
        .version(version)
        .method(method)
        .uri(format!("https://localhost{path}"))
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("a request");
    let response = if version == Version::HTTP_2 {
        let io = TokioIo::new(connect(host, b"h2").await);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (mut client, connection) = handshake.expect("HTTP/2");
        tokio::spawn(connection);
        client.send_request(request).await
    } else {
        let io = TokioIo::new(connect(host, b"http/1.1").await);
        let handshake = hyper::client::conn::http1::handshake(io).await;
        let (mut client, connection) = handshake.expect("HTTP/1.1");
        tokio::spawn(connection);
        client.send_request(request).await
    };
    let response = response.expect("an answer");
    assert_eq!((response.status().as_u16(), response.version()), (200, version));
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

async fn connect(host: &Host, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(files::source(CERTIFICATE)).expect("PEM");
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let address = host.services.base().strip_prefix("https://").expect("the port speaks TLS");
    let stream = TcpStream::connect(address).await.expect("the port");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.expect("a certificate that fits");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    stream
}

#[tokio::test]
async fn pages_of_the_allowed_origins_may_call_and_others_may_not() {
    let options = Options::default().argument("--cors-allowed-origins").argument(SHOP);
    let host = options.start().await;
    host.deploy(GUEST).await;
    let preflight = async |origin: &str| {
        let client = host
            .services
            .with_header("origin", origin)
            .with_header("access-control-request-method", "POST")
            .with_header("access-control-request-headers", "content-type,idempotency-key");
        client.send(Method::OPTIONS, "/cart/ada/items/add", "text/plain", "").await
    };
    let granted = preflight(SHOP).await;
    assert_eq!(granted.status, 204);
    assert_eq!(granted.header("access-control-allow-origin"), Some(SHOP));
    let methods = granted.header("access-control-allow-methods");
    assert!(methods.is_some_and(|methods| methods.contains("POST")), "{methods:?}");
    let headers = granted.header("access-control-allow-headers");
    assert!(headers.is_some_and(|headers| headers.contains("idempotency-key")), "{headers:?}");
    let refused = preflight("https://evil.example").await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("access-control-allow-origin")),
        (403, None)
    );

    for (origin, allowed) in [(SHOP, Some(SHOP)), ("https://evil.example", None)] {
        let answer = host.services.with_header("origin", origin).get("/carts/ada").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("access-control-allow-origin")),
            (200, allowed)
        );
    }
}

#[tokio::test]
async fn json_logs_are_an_object_a_line_and_name_what_crashed() {
    let host = Options::default().argument("--log-format").argument("json").start().await;
    host.deploy("misbehaving").await;
    let request = json!({"id": "victim", "what": "trap"});
    let path = "/misbehaving.v1.Misbehaving/Do";
    host.services.post(path, &request).await.refused(500, "internal");
    let stopped = host.terminate(std::time::Duration::from_secs(10)).await;
    let host = stopped.start().await;

    let log = host.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => Value::Object(fields),
            other => panic!("no JSON object but {other:?}: {line}"),
        })
        .collect();
    let said = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("nobody says {message:?}:\n{log}"))
    };
    assert!(said("ready")["services"].as_str().is_some_and(|url| url.starts_with("http://")));
    said("stopped");
    let crash = said("entity crashed");
    assert_eq!(crash["level"], "WARN", "{crash}");
    assert!(crash["timestamp"].is_string(), "{crash}");
    for (field, wanted) in
        [("address", "victim"), ("what", "trap"), ("reason", "trap"), ("during", "Do")]
    {
        let found = crash[field].as_str().is_some_and(|text| text.contains(wanted));
        assert!(found, "{field} does not name {wanted}: {crash}");
    }
}
