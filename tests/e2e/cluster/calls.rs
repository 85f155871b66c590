//! Every node takes every call.

use http::Method;
use prost::Message;
use serde_json::json;
use stead_tests::Host;
use stead_tests::cart::{GUEST, SERVICE, items};
use stead_tests::cluster::{Cluster, Setup};
use stead_tests::proto::shopping_cart_client::ShoppingCartClient;
use stead_tests::proto::{AddLineItem, Cart, GetShoppingCart, RemoveLineItem};
use tonic::Code;
use tonic::transport::Channel;

fn item(quantity: i32) -> AddLineItem {
    AddLineItem {
        user_id: "ada".into(),
        product_id: "kettle".into(),
        name: "Kettle".into(),
        quantity,
    }
}

async fn grpc(host: &Host) -> ShoppingCartClient<Channel> {
    let endpoint = Channel::from_shared(host.services.base().to_owned()).expect("an address");
    ShoppingCartClient::new(endpoint.connect().await.expect("a connection"))
}

#[tokio::test]
async fn a_cart_is_the_same_through_every_node_and_protocol() {
    let cluster = Setup::nodes(3).start(GUEST).await;
    for node in cluster.up() {
        let host = cluster.host(node);
        host.add("ada", "kettle", 1).await.ok();
        grpc(host).await.add_item(item(1)).await.expect("added");
        let path = format!("/{SERVICE}/AddItem");
        let body = item(1).encode_to_vec();
        let added = host.services.send(Method::POST, &path, "application/proto", body).await;
        assert_eq!(added.status, 200, "{}", added.text());
    }
    for node in cluster.up() {
        let host = cluster.host(node);
        assert_eq!(host.cart("ada").await["kettle"], 9);
        let get = GetShoppingCart { user_id: "ada".into() };
        let cart = grpc(host).await.get_cart(get.clone()).await.expect("a cart").into_inner();
        assert_eq!(cart.items[0].quantity, 9);
        let path = format!("/{SERVICE}/GetCart");
        let body = get.encode_to_vec();
        let got = host.services.send(Method::POST, &path, "application/proto", body).await;
        assert_eq!(Cart::decode(got.body).expect("a cart").items[0].quantity, 9);
        let got = host.services.post(&path, &json!({"userId": "ada"})).await.ok();
        assert_eq!(items(&got)["kettle"], 9);
    }
    cluster.check_rows();
}

#[tokio::test]
async fn a_rejection_is_the_same_through_every_node() {
    let cluster = Setup::nodes(2).start(GUEST).await;
    for node in cluster.up() {
        let host = cluster.host(node);
        let refused = host.add("ada", "kettle", 0).await.refused(400, "invalid_argument");
        assert!(refused.contains("quantity"), "{refused}");
        let remove = RemoveLineItem { user_id: "ada".into(), product_id: "milk".into() };
        let refused = grpc(host).await.remove_item(remove).await.expect_err("there is no milk");
        assert_eq!(refused.code(), Code::NotFound);
        assert!(refused.message().contains("milk"), "{refused}");
    }
}

async fn add_once(cluster: &Cluster, node: usize, quantity: i64) -> stead_tests::Answer {
    let item = json!({"productId": "kettle", "name": "Kettle", "quantity": quantity});
    let services = cluster.host(node).services.with_header("idempotency-key", "k1");
    services.post("/cart/ada/items/add", &item).await
}

#[tokio::test]
async fn a_key_takes_effect_once_through_whichever_nodes() {
    let cluster = Setup::nodes(2).start(GUEST).await;
    let repeats = (0..20).map(|number| add_once(&cluster, number % 2, 1));
    for answer in futures_util::future::join_all(repeats).await {
        answer.ok();
    }
    for node in cluster.up() {
        assert_eq!(cluster.host(node).cart("ada").await["kettle"], 1);
        assert_eq!(add_once(&cluster, node, 2).await.status, 422);
    }
    assert_eq!(cluster.host(0).events(SERVICE, "ada").await.len(), 1);
}

/// Which node owns the only entity that has events.
fn owner(cluster: &Cluster) -> usize {
    let owner = "SELECT DISTINCT encode(owner, 'hex') FROM shard JOIN journal USING (shard_id)";
    let owner = cluster.sql(owner);
    cluster.up().into_iter().find(|node| cluster.node_id(*node) == owner).expect("an owner")
}

#[tokio::test]
async fn a_caller_says_how_sure_an_answer_must_be() {
    let cluster = Setup::nodes(2).start(GUEST).await;
    cluster.host(0).add("ada", "kettle", 2).await.ok();
    // The owner last: it changes the cart.
    let owner = owner(&cluster);
    for node in [1 - owner, owner] {
        let host = cluster.host(node);
        for consistency in ["leased", "fenced", "stale"] {
            let services = host.services.with_header("stead-consistency", consistency);
            let cart = services.get("/carts/ada").await.ok();
            assert_eq!(items(&cart)["kettle"], 2, "{consistency} through node {node}");
        }
        let services = host.services.with_header("stead-consistency", "certain");
        let refused = services.get("/carts/ada").await.refused(400, "invalid_argument");
        assert!(refused.contains("leased, fenced or stale"), "{refused}");
        let item = json!({"productId": "kettle", "name": "Kettle", "quantity": 1});
        let services = host.services.with_header("stead-consistency", "stale");
        let added = services.post("/cart/ada/items/add", &item).await;
        if node == owner {
            added.ok();
        } else {
            let refused = added.refused(400, "failed_precondition");
            assert!(refused.contains("stale"), "{refused}");
        }
    }
}
