//! Connections to `https://` addresses, trusted by a file of certificates.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cli::failed::Failed;

const HTTPS_PORT: u16 = 443;

#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
}

impl Tls {
    /// Trusts the certificates in a PEM file, and what they signed.
    pub fn trusting(file: &Path) -> Result<Self, Failed> {
        let wrong = |reason: String| Failed::usage(format!("--ca {}: {reason}", file.display()));
        let mut roots = RootCertStore::empty();
        let certificates =
            CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            // A bundle may hold certificates that rustls does not take; the others still count.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(wrong("it holds no certificate; name a PEM file".into()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason);
        let host = uri.host().ok_or_else(|| invalid("the address has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_string())
            .map_err(|_| invalid("the address has no valid host name"))?;
        let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(HTTPS_PORT))).await?;
        tcp.set_nodelay(true)?;
        Ok(TokioIo::new(self.connector.connect(name, tcp).await?))
    }
}

impl tower_service::Service<Uri> for Tls {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failed::Exit;

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failed = Tls::trusting(file.path()).err().unwrap();
        assert_eq!(failed.exit, Exit::Usage);
        assert!(failed.message.contains("holds no certificate"), "{failed}");
        let failed = Tls::trusting(Path::new("no/such.pem")).err().unwrap();
        assert!(failed.message.starts_with("--ca no/such.pem: "), "{failed}");
    }
}
