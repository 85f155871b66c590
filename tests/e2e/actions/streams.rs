//! Backpressure, cancellation and failures of streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::actions::model::{Model, collect, crash, fail, group, one, reply, spin};
use stead_tests::tck::action_model_client::ActionModelClient;
use stead_tests::tck::{ActionRequest, ActionResponse};

const SOON: Duration = Duration::from_secs(20);
/// How long something must not change to count as standing still.
const STILL: Duration = Duration::from_millis(500);
const KIB: usize = 1024;

#[tokio::test]
async fn each_message_is_answered_while_the_request_goes_on() {
    let mut model = Model::start().await;
    let (requests, receiver) = mpsc::channel(1);
    let response = model.client.process_streamed(ReceiverStream::new(receiver)).await;
    let mut replies = response.expect("opens").into_inner();
    for text in ["one", "two", "three"] {
        requests.send(one(vec![reply(text)])).await.expect("is read");
        assert_eq!(replies.next().await.expect("a reply").expect("no error").message, text);
    }
    drop(requests);
    assert!(replies.next().await.is_none(), "the end of the request ends the answer");
}

#[tokio::test]
async fn a_failure_mid_stream_cancels_the_clients_input() {
    let mut model = Model::start().await;
    let (requests, receiver) = mpsc::channel(1);
    let response = model.client.process_streamed(ReceiverStream::new(receiver)).await;
    let replies = response.expect("opens").into_inner();
    requests.send(one(vec![reply("one")])).await.expect("is read");
    requests.send(one(vec![fail("enough")])).await.expect("is read");
    let (replies, status) = collect(replies).await;
    assert_eq!(replies, ["one"]);
    let status = status.expect("a failure");
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "enough"));
    tokio::time::timeout(SOON, requests.closed()).await.expect("the input is cancelled");
}

#[tokio::test]
async fn a_trap_mid_stream_ends_it_with_internal_after_what_was_sent() {
    let model = Model::start().await;
    let request = ActionRequest { groups: vec![group(vec![reply("one")]), group(vec![crash()])] };
    let response = model.client.clone().process_streamed_out(request).await;
    let (replies, status) = collect(response.expect("opens").into_inner()).await;
    assert_eq!(replies, ["one"]);
    let status = status.expect("a failure");
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert_eq!(model.host.metric("stead_crashes_total").await, 1.0);
    let services = model.host.stead(&["--format", "json", "services"]).await.json();
    let crashes = services["services"].as_array().expect("services").iter();
    let crashes: Vec<_> =
        crashes.map(|service| &service["last_crash"]).filter(|crash| !crash.is_null()).collect();
    assert_eq!(crashes.len(), 1, "{services}");
    assert_eq!(crashes[0]["what"], "trap", "{services}");
    let told = model.host.stead(&["services"]).await.stderr;
    assert!(told.contains("ActionModel crashed last at "), "{told}");
    // The next call has another instance.
    let again = model.client.clone().process_unary(one(vec![reply("again")])).await;
    assert_eq!(again.expect("replies").into_inner().message, "again");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_guest() {
    let model = Model::start().await;
    let replies = flood(&model, 56).await;
    model.until("stead_streams", |open| open == 1.0).await;
    drop(replies);
    model.until("stead_streams", |open| open == 0.0).await;
    let text = model.host.metrics().await;
    let sent = model.host.metric("stead_stream_messages_out_total").await;
    assert!(sent < 56.0, "{text}");
}

#[tokio::test]
async fn a_deadline_ends_a_stream_on_which_nothing_happens() {
    let mut model = Model::start().await;
    let (_requests, receiver) = mpsc::channel::<ActionRequest>(1);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("grpc-timeout", "300m".parse().expect("a value"));
    let response = model.client.process_streamed(request).await;
    let (replies, status) = collect(response.expect("opens").into_inner()).await;
    assert!(replies.is_empty(), "{replies:?}");
    let status = status.expect("a failure");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn a_deadline_ends_a_stream_that_the_client_does_not_read() {
    let model = Model::start().await;
    let text = "x".repeat(64 * KIB);
    let groups = (0..56).map(|_| group(vec![reply(&text)])).collect();
    let mut request = tonic::Request::new(ActionRequest { groups });
    request.metadata_mut().insert("grpc-timeout", "700m".parse().expect("a value"));
    let replies = narrow(&model).await.process_streamed_out(request).await;
    let replies = replies.expect("opens").into_inner();
    model.until("stead_streams", |open| open == 1.0).await;
    model.until("stead_streams", |open| open == 0.0).await;
    let (replies, status) = collect(replies).await;
    assert!(!replies.is_empty() && replies.len() < 56, "{} replies", replies.len());
    let status = status.expect("a failure");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    // The next call has what it needs.
    let again = model.client.clone().process_unary(one(vec![reply("again")])).await;
    assert_eq!(again.expect("replies").into_inner().message, "again");
}

#[tokio::test]
async fn a_stopping_host_ends_streams_with_unavailable() {
    let mut model = Model::start().await;
    let (requests, receiver) = mpsc::channel(1);
    let response = model.client.process_streamed(ReceiverStream::new(receiver)).await;
    let mut replies = response.expect("opens").into_inner();
    requests.send(one(vec![reply("one")])).await.expect("is read");
    replies.next().await.expect("a reply").expect("no error");
    model.host.signal(libc::SIGTERM);
    let status = replies.next().await.expect("an end").expect_err("a failure");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let Model { mut host, .. } = model;
    assert!(host.ended(SOON).await.success());
}

/// Waits until a number has stood still for a while.
async fn still(read: impl AsyncFn() -> usize) -> usize {
    let start = Instant::now();
    let (mut last, mut since) = (read().await, Instant::now());
    while since.elapsed() < STILL {
        assert!(start.elapsed() < SOON, "it does not stand still");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = read().await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// Sends a request so often as it is taken, and counts how often that was.
fn send_again_and_again(
    request: ActionRequest,
    times: usize,
) -> (ReceiverStream<ActionRequest>, Arc<AtomicUsize>, JoinHandle<Option<()>>) {
    let (requests, receiver) = mpsc::channel(1);
    let sent = Arc::new(AtomicUsize::new(0));
    let sender = tokio::spawn({
        let sent = sent.clone();
        async move {
            for _ in 0..times {
                requests.send(request.clone()).await.ok()?;
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Some(())
        }
    });
    (ReceiverStream::new(receiver), sent, sender)
}

#[tokio::test]
async fn a_client_that_floods_is_held_back_by_what_it_does_not_read() {
    const MESSAGES: usize = 1_000;
    let mut model = Model::start().await;
    let request = one(vec![reply(&"x".repeat(64 * KIB))]);
    let (requests, sent, sender) = send_again_and_again(request, MESSAGES);
    let response = model.client.process_streamed(requests).await;
    let replies = response.expect("opens").into_inner();
    let held_at = still(async || sent.load(Ordering::Relaxed)).await;
    assert!(held_at < MESSAGES / 4, "{held_at} messages of 64 KiB were taken from a flood");
    // What was held back comes when it is read.
    let (replies, status) = collect(replies).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(replies.len(), MESSAGES);
    assert!(replies.iter().all(|text| text.len() == 64 * KIB));
    sender.await.expect("no panic").expect("all were sent");
}

#[tokio::test]
async fn a_client_that_floods_is_held_back_by_a_slow_guest() {
    const MESSAGES: usize = 400;
    /// Some milliseconds.
    const ROUNDS: u64 = 10_000_000;
    let mut model = Model::start().await;
    // Only the last reply counts.
    let request = one(vec![reply(&"x".repeat(64 * KIB)), spin(ROUNDS), reply("done")]);
    let (requests, sent, sender) = send_again_and_again(request, MESSAGES);
    let response = model.client.process_streamed(requests).await;
    let mut replies = response.expect("opens").into_inner();
    let (mut answered, mut ahead_max) = (0, 0);
    while let Some(reply) = replies.next().await {
        assert_eq!(reply.expect("no error").message, "done");
        answered += 1;
        let sent = sent.load(Ordering::Relaxed);
        let handled = model.host.metric("stead_stream_messages_out_total").await as usize;
        ahead_max = ahead_max.max(sent.saturating_sub(handled));
    }
    assert_eq!(answered, MESSAGES);
    assert!(ahead_max > 0, "the guest was not slow");
    assert!(ahead_max < MESSAGES / 4, "{ahead_max} messages of 64 KiB waited for the guest");
    println!("at most {ahead_max} messages were ahead of the guest");
    sender.await.expect("no panic").expect("all were sent");
}

/// Has the guest send so many messages of 64 KiB to a client that has room for one.
async fn flood(model: &Model, messages: usize) -> Streaming<ActionResponse> {
    let text = "x".repeat(64 * KIB);
    let groups = (0..messages).map(|_| group(vec![reply(&text)])).collect();
    let response = narrow(model).await.process_streamed_out(ActionRequest { groups }).await;
    response.expect("opens").into_inner()
}

/// A client that has room for 64 KiB.
async fn narrow(model: &Model) -> ActionModelClient<Channel> {
    let channel = Channel::from_shared(model.host.services.base().to_owned())
        .expect("an address")
        .initial_stream_window_size(64 * KIB as u32)
        .connect()
        .await
        .expect("connects");
    ActionModelClient::new(channel)
}

#[tokio::test]
async fn a_guest_that_floods_is_held_back_by_a_client_that_does_not_read() {
    const MESSAGES: usize = 56;
    let model = Model::start().await;
    let replies = flood(&model, MESSAGES).await;
    let sent = async || model.host.metric("stead_stream_messages_out_total").await as usize;
    let held_at = still(sent).await;
    assert!(held_at < MESSAGES / 2, "{held_at} messages of 64 KiB were taken from the guest");
    let (replies, status) = collect(replies).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(replies.len(), MESSAGES);
}
