use std::convert::Infallible;
use std::sync::Mutex;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use stead_proto::grpc::health::v1::health_client::HealthClient;
use tonic::codegen::Service;

use super::*;

impl Service<Request<tonic::body::Body>> for Probe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        self.clone().serve(request).map(Ok).boxed()
    }
}

struct Node {
    live: Arc<Mutex<Vec<&'static str>>>,
    revision: watch::Sender<Revision>,
    draining: watch::Sender<bool>,
}

impl Node {
    fn new() -> (Self, HealthClient<Probe>) {
        let live = Arc::new(Mutex::new(vec!["shop.Carts"]));
        let (revision, revisions) = watch::channel(Revision(1));
        let (draining, drains) = watch::channel(false);
        let known = Arc::clone(&live);
        let is_live = Arc::new(move |name: &str| known.lock().unwrap().contains(&name));
        let probe = Probe { is_live, revision: revisions, draining: drains };
        (Self { live, revision, draining }, HealthClient::new(probe))
    }

    fn deploy(&self, services: &[&'static str]) {
        *self.live.lock().unwrap() = services.to_vec();
        self.revision.send_modify(|revision| revision.0 += 1);
    }
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn check(
    client: &mut HealthClient<Probe>,
    service: &str,
) -> Result<ServingStatus, tonic::Code> {
    let answer = client.check(about(service)).await;
    answer.map(|response| response.into_inner().status()).map_err(|status| status.code())
}

#[tokio::test]
async fn checks_the_node_and_its_services() {
    let (node, mut client) = Node::new();
    assert_eq!(check(&mut client, "").await, Ok(ServingStatus::Serving));
    assert_eq!(check(&mut client, "shop.Carts").await, Ok(ServingStatus::Serving));
    assert_eq!(check(&mut client, "shop.Gone").await, Err(tonic::Code::NotFound));
    node.draining.send_replace(true);
    assert_eq!(check(&mut client, "").await, Ok(ServingStatus::NotServing));
    assert_eq!(check(&mut client, "shop.Carts").await, Ok(ServingStatus::NotServing));
}

#[tokio::test]
async fn a_watch_tells_each_change_once_and_ends_with_the_node() {
    let (node, mut client) = Node::new();
    let mut watch = client.watch(about("bank.Accounts")).await.unwrap().into_inner();
    let mut next = async || watch.message().await.unwrap().map(|response| response.status());
    assert_eq!(next().await, Some(ServingStatus::ServiceUnknown));
    node.deploy(&["shop.Carts", "bank.Accounts"]);
    assert_eq!(next().await, Some(ServingStatus::Serving));
    // A deployment that changes nothing for this service is not told.
    node.deploy(&["bank.Accounts"]);
    assert_eq!(next().now_or_never(), None);
    node.deploy(&[]);
    assert_eq!(next().await, Some(ServingStatus::ServiceUnknown));
    node.deploy(&["bank.Accounts"]);
    assert_eq!(next().await, Some(ServingStatus::Serving));
    node.draining.send_replace(true);
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let (_node, mut client) = Node::new();
    let name = "x".repeat(HEALTH_REQUEST_BYTES_MAX + 1);
    assert_eq!(check(&mut client, &name).await, Err(tonic::Code::OutOfRange));
}
