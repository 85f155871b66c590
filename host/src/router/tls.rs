//! Who a peer is: TLS 1.3 in both directions, always.
//!
//! Without certificates, nodes show raw public keys (RFC 7250): an Ed25519 key that HKDF-SHA256 derives
//! from the cluster key and the cluster's id. Whoever has the cluster key has the key pair, so each side
//! accepts exactly the key that it has itself. While the cluster key is replaced there are two of them:
//! a client tries one after the other, and says by the server name which it tries.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hkdf::Hkdf;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme, version,
};
use sha2::Sha256;

use crate::words::Digest;
use crate::words::config::{PeerTls, Secret};

const PROTOCOL: &[u8] = b"h2";
/// PKCS#8, version 1, of an Ed25519 private key (RFC 8410), up to its seed.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// What a node needs to speak with its peers. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    pub server: Arc<ServerConfig>,
    /// One for each key, to be tried in turn.
    pub clients: Arc<[Client]>,
}

#[derive(Clone)]
pub struct Client {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("peer TLS file {}: {reason}", file.display())]
    File { file: PathBuf, reason: String },
    #[error("peer TLS: {reason}")]
    Unfit { reason: String },
}

impl From<rustls::Error> for IdentityError {
    fn from(error: rustls::Error) -> Self {
        Self::Unfit { reason: error.to_string() }
    }
}

impl Identity {
    /// From certificates if there are any, else from the cluster key and the one before it.
    pub fn new(
        cluster_id: &str,
        key: &Secret,
        key_previous: Option<&Secret>,
        certificates: Option<&PeerTls>,
    ) -> Result<Self, IdentityError> {
        match certificates {
            Some(files) => Self::from_files(files),
            None => Self::from_keys(cluster_id, key, key_previous),
        }
    }

    fn from_keys(
        cluster_id: &str,
        key: &Secret,
        key_previous: Option<&Secret>,
    ) -> Result<Self, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let keys = std::iter::once(key).chain(key_previous);
        let keys: Vec<Pair> =
            keys.map(|key| Pair::derive(key, cluster_id)).collect::<Result<_, _>>()?;
        let verifier = Arc::new(KnownKeys {
            keys: keys.iter().map(|pair| pair.public.clone()).collect(),
            algorithms: provider.signature_verification_algorithms,
        });
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(Arc::new(ByName(keys.clone())));
        harden_server(&mut server);
        let client = |pair: &Pair| {
            let mut config = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(verifier.clone())
                .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                    pair.certified.clone(),
                )));
            harden_client(&mut config);
            Ok(Client { config: Arc::new(config), name: server_name(&pair.name)? })
        };
        let clients = keys.iter().map(client).collect::<Result<_, IdentityError>>()?;
        Ok(Self { server: Arc::new(server), clients })
    }

    fn from_files(files: &PeerTls) -> Result<Self, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates(&files.files.certificate)?;
        let file = &files.files.key;
        let key = PrivateKeyDer::from_pem_file(file).map_err(|error| unreadable(file, &error))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate).map_err(|error| unreadable(&files.ca, &error))?;
        }
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| IdentityError::Unfit { reason: error.to_string() })?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        harden_server(&mut server);
        let algorithms = provider.signature_verification_algorithms;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(SignedByCa { roots, algorithms }))
            .with_client_auth_cert(chain, key)?;
        harden_client(&mut client);
        let client = Client { config: Arc::new(client), name: server_name("peer.stead")? };
        Ok(Self { server: Arc::new(server), clients: Arc::new([client]) })
    }
}

/// Connections between nodes live long: resuming them would only keep old keys alive.
fn harden_server(config: &mut ServerConfig) {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
}

fn harden_client(config: &mut ClientConfig) {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
}

fn server_name(name: &str) -> Result<ServerName<'static>, IdentityError> {
    ServerName::try_from(name.to_owned())
        .map_err(|error| IdentityError::Unfit { reason: error.to_string() })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(file, &error))?;
    match found.is_empty() {
        true => Err(unreadable(file, &"contains no PEM certificate")),
        false => Ok(found),
    }
}

fn unreadable(file: &Path, reason: &dyn std::fmt::Display) -> IdentityError {
    IdentityError::File { file: file.to_owned(), reason: reason.to_string() }
}

/// A key pair that follows from a cluster key.
#[derive(Clone, Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    /// As a `SubjectPublicKeyInfo`.
    public: SubjectPublicKeyInfoDer<'static>,
    /// The server name by which a client asks for it.
    name: String,
}

impl Pair {
    fn derive(key: &Secret, cluster_id: &str) -> Result<Self, IdentityError> {
        let mut der = PKCS8_PREFIX.to_vec();
        let mut seed = [0; 32];
        Hkdf::<Sha256>::new(None, key.expose().as_bytes())
            .expand_multi_info(&[b"stead peer key 1 ", cluster_id.as_bytes()], &mut seed)
            .map_err(|error| IdentityError::Unfit { reason: error.to_string() })?;
        der.extend_from_slice(&seed);
        let der = PrivatePkcs8KeyDer::from(der);
        let signing = rustls::crypto::ring::sign::any_eddsa_type(&der)?;
        let Some(public) = signing.public_key().map(SubjectPublicKeyInfoDer::into_owned) else {
            return Err(IdentityError::Unfit { reason: "no public key".into() });
        };
        let mut name = String::from("k");
        for byte in &Digest::of(&public).0[..8] {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name.push_str(".peer.stead");
        let shown = CertificateDer::from(public.to_vec());
        Ok(Self { certified: Arc::new(CertifiedKey::new(vec![shown], signing)), public, name })
    }
}

/// Shows the key that the client asks for, or this node's own.
#[derive(Debug)]
struct ByName(Vec<Pair>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = self.0.iter().find(|pair| hello.server_name() == Some(&pair.name));
        asked.or(self.0.first()).map(|pair| pair.certified.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts the keys that this node could show itself.
#[derive(Debug)]
struct KnownKeys {
    keys: Vec<SubjectPublicKeyInfoDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KnownKeys {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        match self.keys.iter().any(|key| key.as_ref() == shown.as_ref()) {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

impl ServerCertVerifier for KnownKeys {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KnownKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts every certificate that the authorities signed, whatever names it has: which node answers is
/// asked afterwards.
#[derive(Debug)]
struct SignedByCa {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SignedByCa {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(shown)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, shown, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn no_tls12() -> rustls::Error {
    rustls::Error::General("nodes speak TLS 1.3".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, cluster: &str) -> Pair {
        Pair::derive(&Secret::new(key), cluster).unwrap()
    }

    #[test]
    fn the_key_follows_from_the_cluster_key_and_the_cluster() {
        let one = pair("0123456789abcdef", "one");
        assert_eq!(one.public, pair("0123456789abcdef", "one").public);
        assert_ne!(one.public, pair("0123456789abcdef", "two").public);
        assert_ne!(one.public, pair("0123456789abcdeF", "one").public);
    }

    #[test]
    fn a_bad_file_is_named() {
        let file = PathBuf::from("/nowhere/peer.pem");
        let error = certificates(&file).unwrap_err().to_string();
        assert!(error.contains("/nowhere/peer.pem"), "{error}");
    }
}
