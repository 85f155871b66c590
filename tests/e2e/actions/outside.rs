//! Requests of actions to the world outside, as far as they are granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use stead_tests::certificates::Certificates;
use stead_tests::{Answer, Host, files};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const GUEST: &str = "http-bridge";
const FETCH: &str = "/com.example.bridge.HttpBridge/Fetch";

/// Answers `hello` everywhere but at `/away`, which sends its clients somewhere else.
struct Outside {
    origin: String,
    asked: Arc<AtomicUsize>,
}

impl Outside {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    let answer: &[u8] = match head.starts_with(b"GET /away ") {
                        true => b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
                        false => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                    };
                    stream.write_all(answer).await
                });
            }
        });
        Self { origin, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn deploy(host: &Host, allow: &[&str]) -> Answer {
    let digest = host.upload(&files::guest(GUEST)).await;
    let allow: Vec<_> = allow.iter().map(|origin| format!("http={origin}")).collect();
    host.admin.post("/v1/deployments", &json!({"modules": [digest], "allow": allow})).await
}

async fn fetch(host: &Host, url: &str) -> Answer {
    host.services.post(FETCH, &json!({"url": url})).await
}

async fn fetched(host: &Host, url: &str) -> Value {
    fetch(host, url).await.ok()
}

/// `hello` in base64.
const HELLO: &str = "aGVsbG8=";

#[tokio::test]
async fn without_a_grant_a_module_that_could_use_one_is_refused_with_the_flag_to_give() {
    let host = Host::start().await;
    let sentence = deploy(&host, &[]).await.refused(400, "invalid_argument");
    assert!(sentence.contains("--allow http=https://api.example.com"), "{sentence}");
    let sentence = deploy(&host, &["api.example.com"]).await.refused(400, "invalid_argument");
    assert!(sentence.contains("not an origin"), "{sentence}");
}

#[tokio::test]
async fn a_grant_that_no_module_can_use_is_refused() {
    let host = Host::start().await;
    let digest = host.upload(&files::guest("tck-every-kind")).await;
    let request = json!({"modules": [digest], "allow": ["http=https://api.example.com"]});
    let refused = host.admin.post("/v1/deployments", &request).await;
    assert!(refused.refused(400, "invalid_argument").contains("none of the modules"));
}

#[tokio::test]
async fn requests_go_to_granted_origins_and_nowhere_else() {
    let host = Host::start().await;
    let (granted, other) = (Outside::start().await, Outside::start().await);
    deploy(&host, &[&granted.origin]).await.ok();
    let answer = fetched(&host, &format!("{}/x", granted.origin)).await;
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!(HELLO)));
    fetch(&host, &format!("{}/x", other.origin)).await.refused(503, "unavailable");
    assert_eq!((granted.asked(), other.asked()), (1, 0));
    assert!(host.log().contains("not granted"), "{}", host.log());
}

#[tokio::test]
async fn redirects_are_left_to_the_function() {
    let host = Host::start().await;
    let outside = Outside::start().await;
    deploy(&host, &[&outside.origin]).await.ok();
    let answer = fetched(&host, &format!("{}/away", outside.origin)).await;
    assert_eq!(answer["status"], 302);
    assert_eq!(outside.asked(), 1);
}

#[tokio::test]
async fn grants_belong_to_revisions_and_survive_a_restart() {
    let host = Host::start().await;
    let (first, second) = (Outside::start().await, Outside::start().await);
    deploy(&host, &[&first.origin]).await.ok();
    let changed = deploy(&host, &[&second.origin]).await.ok();
    assert_eq!(changed["grants"][0]["allow"], format!("http={}", second.origin));
    fetch(&host, &first.origin).await.refused(503, "unavailable");
    assert_eq!(fetched(&host, &second.origin).await["body"], HELLO);

    let host = host.kill_and_restart().await;
    fetch(&host, &first.origin).await.refused(503, "unavailable");
    assert_eq!(fetched(&host, &second.origin).await["body"], HELLO);

    let listed = host.stead(&["versions"]).await.ok().stdout;
    assert!(listed.contains(&format!("http={}", second.origin)), "{listed}");
    host.stead(&["rollback", "1"]).await.ok();
    assert_eq!(fetched(&host, &first.origin).await["body"], HELLO);
    fetch(&host, &second.origin).await.refused(503, "unavailable");
}

/// An origin with a certificate of an authority that this host does not know. Counts who came, and who got in.
struct Sealed {
    port: u16,
    came: Arc<AtomicUsize>,
    got_in: Arc<AtomicUsize>,
}

impl Sealed {
    async fn start(certificates: &Certificates) -> Self {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain =
            vec![CertificateDer::from_pem_file(certificates.file("node.pem")).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(certificates.file("node.key")).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (came, got_in) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counted = (came.clone(), got_in.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.0.fetch_add(1, Ordering::SeqCst);
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    counted.1.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        });
        Self { port, came, got_in }
    }
}

#[tokio::test]
async fn an_origin_whose_authority_is_not_public_is_not_spoken_to() {
    let host = Host::start().await;
    let sealed = Sealed::start(&Certificates::new()).await;
    for (number, name) in ["localhost", "127.0.0.1"].into_iter().enumerate() {
        let origin = format!("https://{name}:{}", sealed.port);
        deploy(&host, &[&origin]).await.ok();
        let sentence = fetch(&host, &format!("{origin}/x")).await.refused(503, "unavailable");
        assert!(sentence.contains("Tls"), "{sentence}");
        assert_eq!(sealed.came.load(Ordering::SeqCst), number + 1);
    }
    assert_eq!(sealed.got_in.load(Ordering::SeqCst), 0);
    // The function goes on, and so does the host.
    let outside = Outside::start().await;
    deploy(&host, &[&outside.origin]).await.ok();
    assert_eq!(fetched(&host, &outside.origin).await["body"], HELLO);
}
