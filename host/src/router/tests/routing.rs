use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::routes::Route;
use crate::entity::Consistency;
use crate::router::Answer;
use crate::router::tests::node::{Cluster, Node, acquaint, eventually, route, shard};
use crate::router::wire::CallHeadRef;
use crate::words::{Code, Epoch, Message, Trail, clock, limits};

const ADA: &[u8] = b"\n\x03ada";

async fn two() -> (Node, Node) {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node(1).await, cluster.node(2).await);
    acquaint(&[&a, &b]);
    (a, b)
}

#[tokio::test]
async fn a_command_goes_to_the_owner_and_its_reply_comes_back() {
    let (a, b) = two().await;
    b.own(1);
    a.learn(&b, 1);
    assert_eq!(a.call("Add").await.unwrap(), ADA);
    assert_eq!(b.call("Add").await.unwrap(), ADA);
    assert_eq!(a.call("Read").await.unwrap(), ADA);
    assert_eq!(b.stored().await, 2);
    assert_eq!(a.forwards("reply"), 2);
    assert_eq!(b.forwards("reply"), 0);
}

#[tokio::test]
async fn everything_of_a_command_travels_with_it() {
    let (a, b) = two().await;
    b.own(1);
    a.learn(&b, 1);
    let mut request = a.request("Metadata");
    request.metadata = vec![("x-tenant".into(), "\n\x04acme".into())];
    assert_eq!(a.router.call(request).await.unwrap(), &b"\n\x04acme"[..]);

    let refused = a.call("Refuse").await.unwrap_err();
    assert_eq!((refused.code, &*refused.message), (Code::FailedPrecondition, "counter"));
    assert_eq!(refused.details, [Message::new("test.v1.Event", "by-hand/1")]);

    for _ in 0..2 {
        let mut request = a.request("Add");
        request.idempotency_key = Some("once".into());
        assert_eq!(a.router.call(request).await.unwrap(), ADA);
    }
    assert_eq!(b.stored().await, 1);
}

#[tokio::test]
async fn large_payloads_travel_whole() {
    let (a, b) = two().await;
    b.own(1);
    a.learn(&b, 1);
    // Field 2, which nobody knows, with 3 MiB.
    let mut payload = ADA.to_vec();
    payload.extend([0x12, 0x80, 0x80, 0xc0, 0x01]);
    payload.resize(payload.len() + 3 * limits::MIB, 7);
    let mut request = a.request("Read");
    request.payload = Bytes::from(payload.clone());
    assert!(a.router.call(request).await.unwrap() == payload);
}

#[tokio::test]
async fn a_wrong_owner_names_the_right_one_and_that_is_followed() {
    let cluster = Cluster::new();
    let (a, b, c) = (cluster.node(1).await, cluster.node(2).await, cluster.node(3).await);
    acquaint(&[&a, &b, &c]);
    c.own(5);
    b.learn(&c, 5);
    a.learn(&b, 4);
    assert_eq!(a.call("Add").await.unwrap(), ADA);
    assert_eq!(a.routes.route(shard()), route(&c, 5));
    assert_eq!((a.forwards("not_mine"), a.forwards("reply")), (1, 1));
}

#[tokio::test]
async fn after_two_forwards_the_store_is_asked() {
    let cluster = Cluster::new();
    let (a, b, c) = (cluster.node(1).await, cluster.node(2).await, cluster.node(3).await);
    acquaint(&[&a, &b, &c]);
    // Everybody believes in somebody else; node c even in one who is not there.
    a.learn(&b, 1);
    b.learn(&c, 2);
    let nobody = crate::words::NodeId([9; 16]);
    c.routes.learn(shard(), Route { owner: Some(nobody), epoch: Epoch(3) });
    let call = tokio::spawn({
        let (router, request) = (a.router.clone(), a.request("Add"));
        async move { router.call(request).await }
    });
    a.routes.asked().await;
    assert_eq!(a.forwards("not_mine"), 2);
    a.own(4);
    assert_eq!(call.await.unwrap().unwrap(), ADA);
}

#[tokio::test]
async fn a_command_waits_for_an_owner_and_goes_on() {
    let (a, b) = two().await;
    let call = tokio::spawn({
        let (router, request) = (a.router.clone(), a.request("Add"));
        async move { router.call(request).await }
    });
    eventually("it waits", || a.metrics.waiting_calls.get() == 1).await;
    b.own(1);
    a.learn(&b, 1);
    assert_eq!(call.await.unwrap().unwrap(), ADA);
    assert_eq!(a.metrics.waiting_calls.get(), 0);
}

#[tokio::test]
async fn a_planned_move_fails_no_call() {
    let (a, b) = two().await;
    a.own(1);
    b.learn(&a, 1);
    let stop = tokio_util::sync::CancellationToken::new();
    let mut callers = Vec::new();
    for router in [a.router.clone(), b.router.clone()] {
        let (request, stop) = (a.request("Add"), stop.clone());
        callers.push(tokio::spawn(async move {
            let mut done = 0;
            while !stop.is_cancelled() {
                router.call(request.clone()).await.unwrap();
                done += 1;
            }
            done
        }));
    }
    for epoch in 2..12 {
        let (from, to) = if epoch % 2 == 0 { (&a, &b) } else { (&b, &a) };
        tokio::time::sleep(Duration::from_millis(10)).await;
        from.holdings.close(shard(), Epoch(epoch - 1));
        from.holdings.emptied(shard()).await;
        from.holdings.revoke(shard(), Epoch(epoch - 1));
        from.entities().drop_shard(shard());
        to.own(epoch);
        from.learn(to, epoch);
    }
    stop.cancel();
    let mut done = 0;
    for caller in callers {
        done += caller.await.unwrap();
    }
    assert_eq!(a.stored().await, done);
}

#[tokio::test]
async fn who_waits_too_long_is_told_that_nothing_happened() {
    let (a, _b) = two().await;
    let mut request = a.request("Add");
    request.deadline = clock::now() + Duration::from_millis(150);
    let status = a.router.call(request).await.unwrap_err();
    assert_eq!(status.code, Code::DeadlineExceeded);
    assert!(status.message.contains("was not run"), "{status}");
    assert_eq!(a.stored().await, 0);
}

#[tokio::test]
async fn a_deadline_travels_with_the_command() {
    let (a, b) = two().await;
    a.learn(&b, 7);
    // It has heard nothing: it waits, but not beyond the caller's deadline.
    let mut request = a.request("Add");
    request.deadline = clock::now() + Duration::from_millis(200);
    let started = clock::now();
    assert_eq!(a.router.call(request).await.unwrap_err().code, Code::DeadlineExceeded);
    assert!(clock::now() - started < Duration::from_millis(900));
    eventually("the receiver gives up too", || b.metrics.waiting_calls.get() == 0).await;
}

#[tokio::test]
async fn who_is_shown_a_higher_epoch_reads_the_store_first() {
    let (a, b) = two().await;
    b.learn(&a, 1);
    a.learn(&b, 2);
    let call = tokio::spawn({
        let (router, request) = (a.router.clone(), a.request("Add"));
        async move { router.call(request).await }
    });
    b.routes.asked().await;
    b.own(2);
    assert_eq!(call.await.unwrap().unwrap(), ADA);
    assert_eq!(a.forwards("not_mine"), 0);
}

#[tokio::test]
async fn more_than_may_wait_are_refused_at_once() {
    let (a, _b) = two().await;
    let calls: Vec<_> = (0..limits::WAITING_CALLS_PER_SHARD_MAX)
        .map(|_| {
            let (router, request) = (a.router.clone(), a.request("Add"));
            tokio::spawn(async move { router.call(request).await })
        })
        .collect();
    eventually("they wait", || {
        a.metrics.waiting_calls.get() == limits::WAITING_CALLS_PER_SHARD_MAX as i64
    })
    .await;
    // Those who wait look again now and then, so there may be room for a moment.
    let mut refused = None;
    for _ in 0..100 {
        let mut request = a.request("Add");
        request.deadline = clock::now() + Duration::from_millis(20);
        let status = a.router.call(request).await.unwrap_err();
        if status.code == Code::ResourceExhausted {
            refused = Some(status);
            break;
        }
    }
    assert!(refused.unwrap().message.contains("nothing was changed"));
    for call in calls {
        call.abort();
    }
}

#[tokio::test]
async fn a_call_of_a_service_that_changed_waits_until_the_node_has_its_module() {
    let (a, b) = two().await;
    b.own(1);
    a.learn(&b, 1);
    assert_eq!(a.call("Read").await.unwrap(), ADA);
    assert_eq!(b.followed.load(Ordering::SeqCst), 0);
    a.redeploy().await;
    assert_ne!(a.module(), b.module());
    let held = b.following.lock().await;
    let call = tokio::spawn({
        let (router, request) = (a.router.clone(), a.request("Read"));
        async move { router.call(request).await }
    });
    eventually("it follows", || b.followed.load(Ordering::SeqCst) == 1).await;
    assert!(!call.is_finished());
    drop(held);
    assert_eq!(call.await.unwrap().unwrap(), ADA);
    assert_eq!(a.module(), b.module());
}

#[tokio::test]
async fn a_call_of_a_service_that_did_not_change_waits_for_no_deployment() {
    let (a, b) = two().await;
    b.own(1);
    a.learn(&b, 1);
    a.deploy_another().await;
    let _held = b.following.lock().await;
    assert_eq!(a.call("Read").await.unwrap(), ADA);
    assert_eq!(b.followed.load(Ordering::SeqCst), 0);
    assert!(a.registry.live().revision > b.registry.live().revision);
}

#[tokio::test]
async fn a_call_waits_for_its_own_module_and_not_for_what_came_after_it() {
    let (a, b) = two().await;
    b.own(1);
    a.learn(&b, 1);
    a.redeploy().await;
    let _held = b.following.lock().await;
    let call = tokio::spawn({
        let (router, request) = (a.router.clone(), a.request("Read"));
        async move { router.call(request).await }
    });
    eventually("it follows", || b.followed.load(Ordering::SeqCst) == 1).await;
    b.registry.follow().await.unwrap();
    assert_eq!(call.await.unwrap().unwrap(), ADA);
}

#[tokio::test]
async fn a_sender_that_names_no_module_goes_by_its_revision() {
    let (a, b) = two().await;
    b.own(1);
    a.deploy_another().await;
    let (trail, request) = (Trail::default(), a.request("Read"));
    let head = CallHeadRef {
        service: request.service.name.as_str(),
        method: &request.method.name,
        shard: shard().0,
        epoch: 1,
        deadline_ms: 20_000,
        request_id: "test",
        idempotency_key: None,
        metadata: &[],
        consistency: Consistency::default(),
        hops: 0,
        revision: a.registry.live().revision.0,
        sender: a.id,
        trail: &trail,
        from_function: false,
        module: None,
    };
    let answer = a.peers.call(b.id, b.address, &head, request.payload, request.deadline).await;
    assert!(matches!(&answer, Ok(Answer::Reply(reply)) if *reply == ADA), "{answer:?}");
    assert_eq!(b.followed.load(Ordering::SeqCst), 1);
    assert_eq!(a.registry.live().revision, b.registry.live().revision);
}

#[tokio::test]
async fn a_stale_read_is_answered_from_the_store_by_any_node() {
    let (a, b) = two().await;
    b.own(1);
    a.learn(&b, 1);
    b.call("Add").await.unwrap();
    let stale = |method| {
        let mut request = a.request(method);
        request.consistency = Consistency::Stale;
        a.router.call(request)
    };
    assert_eq!(stale("Read").await.unwrap(), ADA);
    assert_eq!(stale("Refuse").await.unwrap_err().code, Code::FailedPrecondition);
    let status = stale("Add").await.unwrap_err();
    assert_eq!(status.code, Code::FailedPrecondition);
    assert!(status.message.contains("stead-consistency"), "{status}");
    assert_eq!(b.stored().await, 1);
    assert_eq!(a.forwards("reply"), 0);
}

#[tokio::test]
async fn a_fenced_read_is_confirmed_by_the_owner() {
    let (a, b) = two().await;
    b.own(1);
    a.learn(&b, 1);
    let mut request = a.request("Read");
    request.consistency = Consistency::Fenced;
    assert_eq!(a.router.call(request).await.unwrap(), ADA);
}
