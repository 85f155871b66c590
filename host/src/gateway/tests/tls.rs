use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::gateway::server::ServerOptions;
use crate::gateway::testing::open_with;
use crate::gateway::tls;
use crate::words::config::TlsFiles;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gateway/testing").join(name)
}

fn files() -> TlsFiles {
    TlsFiles { certificate: file("certificate.pem"), key: file("key.pem") }
}

fn connector(protocol: &[u8]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("certificate.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn both_versions_are_served_over_tls_as_alpn_says() {
    let tls = Some(tls::load(&files()).unwrap());
    let port = open_with(ServerOptions { tls, ..ServerOptions::default() }).await;
    for protocol in ["h2", "http/1.1"] {
        let stream = TcpStream::connect(port.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector(protocol.as_bytes()).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let io = TokioIo::new(stream);
        let request = Request::get("https://localhost/v1/echo/ada").header("host", "localhost");
        let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
        let response = if protocol == "h2" {
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            client.send_request(request).await.unwrap()
        } else {
            let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            client.send_request(request).await.unwrap()
        };
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"{\"id\":\"ada\""));
    }
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_closed() {
    let tls = Some(tls::load(&files()).unwrap());
    let port = open_with(ServerOptions { tls, ..ServerOptions::default() }).await;
    let answer = port.raw(b"GET / HTTP/1.1\r\nhost: e\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"));
}

#[test]
fn a_bad_file_is_named() {
    let missing = TlsFiles { certificate: file("nowhere.pem"), ..files() };
    let error = tls::load(&missing).unwrap_err().to_string();
    assert!(error.contains("nowhere.pem"), "{error}");
    let no_certificate = TlsFiles { certificate: file("key.pem"), ..files() };
    let error = tls::load(&no_certificate).unwrap_err().to_string();
    assert!(error.contains("no PEM certificate"), "{error}");
    let no_key = TlsFiles { key: file("certificate.pem"), ..files() };
    let error = tls::load(&no_key).unwrap_err().to_string();
    assert!(error.contains("TLS key") && error.contains("certificate.pem"), "{error}");
}
