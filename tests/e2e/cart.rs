//! The shopping cart over every protocol, by clients that are part of this repository.

use bytes::{BufMut, Bytes, BytesMut};
use http::Method;
use prost::Message;
use serde_json::json;
use stead_proto::grpc::health::v1::HealthCheckRequest;
use stead_proto::grpc::health::v1::health_check_response::ServingStatus;
use stead_proto::grpc::health::v1::health_client::HealthClient;
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE, items};
use stead_tests::proto::shopping_cart_client::ShoppingCartClient;
use stead_tests::proto::{AddLineItem, Cart, GetShoppingCart, RemoveLineItem};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

fn item(user: &str, product: &str, quantity: i32) -> AddLineItem {
    let name = product.to_uppercase();
    AddLineItem { user_id: user.into(), product_id: product.into(), name, quantity }
}

#[tokio::test]
async fn http_json_follows_the_annotations() {
    let host = Host::with_guest(GUEST).await;
    assert_eq!(host.add("ada", "kettle", 1).await.ok(), json!({}));
    host.add("ada", "kettle", 2).await.ok();
    host.add("ada", "tea", 1).await.ok();
    let cart = host.services.get("/carts/ada").await.ok();
    let wanted = json!({"items": [
        {"productId": "kettle", "name": "kettle", "quantity": 3},
        {"productId": "tea", "name": "tea", "quantity": 1},
    ]});
    assert_eq!(cart, wanted);
    let items = host.services.get("/carts/ada/items").await.ok();
    assert_eq!(items, wanted["items"], "response_body names the field that is the body");
    host.services.post("/cart/ada/items/tea/remove", &json!({})).await.ok();
    assert_eq!(host.cart("ada").await.into_keys().collect::<Vec<_>>(), ["kettle"]);
    assert!(host.cart("grace").await.is_empty(), "another entity is another cart");
}

#[tokio::test]
async fn a_rejection_reaches_the_client_with_its_code_and_message() {
    let host = Host::with_guest(GUEST).await;
    let refused = host.add("ada", "kettle", 0).await.refused(400, "invalid_argument");
    assert!(refused.contains("quantity"), "{refused}");
    let remove = host.services.post("/cart/ada/items/tea/remove", &json!({})).await;
    let refused = remove.refused(404, "not_found");
    assert!(refused.contains("tea"), "{refused}");
    assert!(host.events(SERVICE, "ada").await.is_empty(), "a rejected command persists nothing");
}

#[tokio::test]
async fn connect_speaks_json_and_protobuf() {
    let host = Host::with_guest(GUEST).await;
    let path = format!("/{SERVICE}/AddItem");
    let add = json!({"userId": "ada", "productId": "kettle", "name": "Kettle", "quantity": 1});
    host.services.with_header("connect-protocol-version", "1").post(&path, &add).await.ok();
    let body = item("ada", "tea", 2).encode_to_vec();
    let added = host.services.send(Method::POST, &path, "application/proto", body).await;
    assert_eq!(added.status, 200, "{}", added.text());
    assert_eq!(added.header("content-type"), Some("application/proto"));
    let get = GetShoppingCart { user_id: "ada".into() }.encode_to_vec();
    let path = format!("/{SERVICE}/GetCart");
    let got = host.services.send(Method::POST, &path, "application/proto", get).await;
    let cart = Cart::decode(got.body).expect("a cart");
    assert_eq!(cart.items.len(), 2);
    let got = host.services.post(&path, &json!({"userId": "ada"})).await.ok();
    assert_eq!(items(&got).len(), 2);
}

#[tokio::test]
async fn grpc_serves_replies_rejections_and_compression() {
    let host = Host::with_guest(GUEST).await;
    let mut plain = ShoppingCartClient::new(channel(&host).await);
    plain.add_item(item("ada", "kettle", 1)).await.expect("added");
    let mut gzip = plain
        .clone()
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let long = "tea".repeat(1_000);
    gzip.add_item(item("ada", &long, 2)).await.expect("added");
    let get = GetShoppingCart { user_id: "ada".into() };
    let cart = gzip.get_cart(get).await.expect("a cart").into_inner();
    assert_eq!(cart.items.iter().map(|item| item.quantity).sum::<i32>(), 3);
    let remove = RemoveLineItem { user_id: "ada".into(), product_id: "milk".into() };
    let refused = plain.remove_item(remove).await.expect_err("there is no milk");
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("milk"), "{refused}");
}

#[tokio::test]
async fn grpc_web_frames_its_trailers() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "kettle", 1).await.ok();
    let get = GetShoppingCart { user_id: "ada".into() }.encode_to_vec();
    let path = format!("/{SERVICE}/GetCart");
    let got =
        host.services.send(Method::POST, &path, "application/grpc-web+proto", frame(&get)).await;
    assert_eq!(got.status, 200);
    let (flag, message, rest) = unframe(got.body);
    assert_eq!(flag, 0);
    assert_eq!(Cart::decode(message).expect("a cart").items.len(), 1);
    let (flag, trailers, rest) = unframe(rest);
    assert_eq!(flag, 0x80, "the last frame holds the trailers");
    let trailers = String::from_utf8_lossy(&trailers).into_owned();
    assert!(
        trailers.contains("grpc-status:0") || trailers.contains("grpc-status: 0"),
        "{trailers}"
    );
    assert!(rest.is_empty());
}

#[tokio::test]
async fn health_follows_what_is_deployed() {
    let host = Host::start().await;
    let mut health = HealthClient::new(channel(&host).await);
    let of = |service: &str| HealthCheckRequest { service: service.into() };
    let unknown = health.check(of(SERVICE)).await.expect_err("nothing is deployed");
    assert_eq!(unknown.code(), Code::NotFound);
    host.deploy(GUEST).await;
    let serving = health.check(of(SERVICE)).await.expect("deployed").into_inner();
    assert_eq!(serving.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_service_appears_without_a_restart() {
    let host = Host::start().await;
    host.services.get("/carts/ada").await.refused(404, "not_found");
    host.deploy(GUEST).await;
    assert!(host.cart("ada").await.is_empty());
}

async fn channel(host: &Host) -> Channel {
    let address = host.services.base().to_owned();
    let endpoint = Channel::from_shared(address).expect("an address");
    endpoint.connect().await.expect("a connection")
}

fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

fn unframe(mut bytes: Bytes) -> (u8, Bytes, Bytes) {
    assert!(bytes.len() >= 5, "no frame: {bytes:?}");
    let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
    let flag = bytes[0];
    let message = bytes.split_off(5);
    let rest = message.slice(length..);
    (flag, message.slice(..length), rest)
}
