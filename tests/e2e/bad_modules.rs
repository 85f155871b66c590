//! Modules that can never work: refused with the reason, and nothing that runs is touched.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use stead_proto::admin::v1::admin_client::AdminClient;
use stead_proto::admin::v1::upload_module_request::Part;
use stead_proto::admin::v1::{UploadModuleHeader, UploadModuleRequest};
use stead_tests::cart::GUEST;
use stead_tests::{Host, files};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("valid text")
}

fn cart() -> Vec<u8> {
    std::fs::read(files::guest(GUEST)).expect("the cart")
}

/// The message of the refusal; a cart beside it is unharmed.
async fn refused(bytes: Vec<u8>) -> String {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 1).await.ok();
    let message = host.upload_bytes(bytes).await.refused(400, "invalid_argument");
    assert_eq!(host.cart("ada").await["kettle"], 1);
    message
}

#[track_caller]
fn names(message: &str, words: &[&str]) {
    let found = words.iter().any(|word| message.to_lowercase().contains(word));
    assert!(found, "none of {words:?} is in: {message}");
}

#[tokio::test]
async fn what_is_no_wasm_file_is_refused() {
    names(&refused(b"this is not WebAssembly".to_vec()).await, &["wasm", "webassembly"]);
    names(&refused(Vec::new()).await, &["empty", "wasm", "webassembly"]);
}

#[tokio::test]
async fn a_core_module_is_refused() {
    names(&refused(wat("(module)")).await, &["core module", "component"]);
}

#[tokio::test]
async fn a_component_of_another_world_is_refused() {
    names(&refused(wat("(component)")).await, &["stead:function"]);
}

#[tokio::test]
async fn an_import_that_is_not_granted_is_named() {
    // The cart, and behind it an import section: one import, `evil-sockets`, a resource type.
    let name = b"evil-sockets";
    let import = [&[1, 0, name.len() as u8][..], name, &[3, 1]].concat();
    let bytes = [&cart()[..], &[10, import.len() as u8], &import].concat();
    names(&refused(bytes).await, &["evil-sockets"]);
}

#[tokio::test]
async fn a_truncated_upload_is_refused() {
    let mut half = cart();
    half.truncate(half.len() / 2);
    refused(half).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_not_stored() {
    let host = Host::start().await;
    let head = format!(
        "PUT /v1/modules?name=cart.wasm HTTP/1.1\r\nhost: {}\r\ncontent-type: application/wasm\r\n\
         content-length: {}\r\n\r\n",
        host.admin.address(),
        cart().len()
    );
    let mut stream = std::net::TcpStream::connect(host.admin.address()).unwrap();
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    std::io::Write::write_all(&mut stream, &cart()[..1000]).unwrap();
    drop(stream);
    let again = host.upload_bytes(cart()).await.ok();
    assert_eq!(again["alreadyPresent"], false, "{again}");
}

#[tokio::test]
async fn a_module_of_more_than_32_mib_is_refused() {
    let host = Host::start().await;
    let big = vec![0; 32 * 1024 * 1024 + 1];
    let file = host.dir().join("big.wasm");
    std::fs::write(&file, &big).expect("the file is written");
    let ended = host.stead(&["deploy", &file.display().to_string(), "--yes"]).await;
    assert_ne!(ended.code, 0);
    names(&ended.stderr, &["32 mib", "33554432"]);
}

#[tokio::test]
async fn a_module_of_more_than_32_mib_is_refused_before_any_of_it_came() {
    const BYTES: usize = 32 * 1024 * 1024 + 1;
    let host = Host::start().await;
    let head = format!(
        "PUT /v1/modules?name=big.wasm HTTP/1.1\r\nhost: {}\r\ncontent-type: application/wasm\r\n\
         content-length: {BYTES}\r\nexpect: 100-continue\r\n\r\n",
        host.admin.address(),
    );
    let mut stream = tokio::net::TcpStream::connect(host.admin.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.ends_with(b"}") {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut piece)).await;
        let read = read.expect("an answer in time").expect("an answer");
        assert!(read > 0, "cut after {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    names(&answer, &["the module has 33554433 bytes; the limit is 33554432"]);

    let channel = tonic::transport::Endpoint::from_shared(host.admin.base().to_owned()).unwrap();
    let mut admin = AdminClient::new(channel.connect().await.expect("the admin API"));
    let header =
        UploadModuleHeader { name: "big.wasm".into(), bytes: BYTES as u64, ..Default::default() };
    let header = UploadModuleRequest { part: Some(Part::Header(header)) };
    // The stream stays open: nothing but the announced size can be what is refused.
    let stream = futures_util::StreamExt::chain(
        futures_util::stream::iter([header]),
        futures_util::stream::pending(),
    );
    let refused = tokio::time::timeout(Duration::from_secs(20), admin.upload_module(stream)).await;
    let refused = refused.expect("an answer in time").expect_err("it is too large");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    names(refused.message(), &["the module has 33554433 bytes; the limit is 33554432"]);
    host.deploy(GUEST).await;
}

#[tokio::test]
async fn a_body_that_grows_beyond_32_mib_is_refused() {
    let host = Host::start().await;
    let big = vec![0; 32 * 1024 * 1024 + 1];
    // The connection may be cut before all of it is sent.
    let request = Request::put(format!("{}/v1/modules?name=x", host.admin.base()));
    if let Ok(answer) = host.admin.try_send(request.body(Full::new(big.into())).unwrap()).await {
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
    host.deploy(GUEST).await;
}

/// A guest whose description of itself is wrong in the way of its name.
async fn refused_guest(name: &str, words: &[&str]) {
    let file = files::guest(&format!("misbehaving-{name}"));
    names(&refused(std::fs::read(file).expect("the guest")).await, words);
}

#[tokio::test]
async fn a_descriptor_without_the_named_service_is_refused() {
    refused_guest("no-service", &["misbehaving.v1.absent"]).await;
}

#[tokio::test]
async fn a_method_without_an_entity_key_is_refused() {
    refused_guest("no-key", &["entity_key"]).await;
}

#[tokio::test]
async fn handler_missing() {
    refused_guest("no-handler", &["stead:function/action, which the component does not export"])
        .await;
}

#[tokio::test]
async fn an_unknown_kind_is_refused() {
    refused_guest("unknown-kind", &["oracle"]).await;
}

#[tokio::test]
async fn a_description_that_is_garbage_is_refused() {
    refused_guest("garbage-descriptor", &["descriptor"]).await;
    refused_guest("no-types", &["entity type", "no entity"]).await;
    refused_guest("bad-journal-name", &["../mis behaving"]).await;
    refused_guest("duplicate-journal", &["twice", "more than once", "unique", "two"]).await;
    refused_guest("unknown-setting", &["colour"]).await;
}

#[tokio::test]
async fn a_description_that_never_comes_is_refused() {
    refused_guest("describe-traps", &["describe"]).await;
    refused_guest("describe-loops", &["describe"]).await;
}
