//! The whole of it: claims, take-overs, hand-overs, outages, and doubles.

use std::time::Duration;

use crate::cluster::ownership::{NodeState, Timing};
use crate::cluster::tests::{
    Member, Net, SHARDS, assert_one_server, database, dir, held, until, until_all_held,
};
use crate::cluster::{Identity, StartError};
use crate::journal::postgres::Claim;
use crate::journal::postgres::server::Server;
use crate::words::config::Secret;
use crate::words::limits::LEASE;
use crate::words::{Revision, clock};

const TIMING: Timing = Timing::fast();
const ALL: usize = SHARDS as usize;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_nodes_shards_are_taken_over_after_its_lease() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    let b = Member::start(&url, dirs[1].path(), &net).await;
    tokio::time::sleep(seconds(1)).await;
    a.crash(&net);
    let lease_until = a.holdings.lease_until();
    until("a take-over", &[&a, &b], || !b.holdings.held().is_empty()).await;
    assert!(clock::boot_time() >= lease_until, "taken over before the lease ran out");
    until("the rest", &[&a, &b], || b.serves().len() == ALL).await;
    assert_eq!(b.metrics.nodes_fenced.get(), 1);
    b.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_usual_pace_nothing_is_taken_over_before_its_lease_has_run_out() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir(), dir()]);
    let mut members = Vec::new();
    for dir in &dirs {
        members.push(Member::start_slow(&url, dir.path(), &net).await);
    }
    let all: Vec<_> = members.iter().collect();
    until_all_held(&all).await;
    // They were started together, so each has its share.
    assert!(all.iter().all(|member| member.cluster.held() >= ALL / 4));
    all[0].crash(&net);
    let lease_until = all[0].holdings.lease_until();
    let rest = [all[1], all[2]];
    until("a take-over", &all, || held(&rest) == ALL).await;
    assert!(clock::boot_time() >= lease_until, "taken over before the lease ran out");
    all.iter().for_each(|member| member.cluster.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_move_to_a_node_that_joins_and_back_when_it_drains() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    let b = Member::start(&url, dirs[1].path(), &net).await;
    let both = [&a, &b];
    until("a move", &both, || !b.serves().is_empty()).await;
    // At most a tenth within ten seconds.
    tokio::time::sleep(seconds(1)).await;
    assert!(b.serves().len() <= ALL / 10 + 1, "{}", b.serves().len());
    assert!(a.metrics.shards_handed_over.get() > 0);
    assert!(a.metrics.render().contains("stead_shard_pause_seconds_count"));
    a.cluster.drain().await.unwrap();
    assert_eq!(a.cluster.held(), 0);
    until("the drained node's shards", &both, || b.serves().len() == ALL).await;
    // What drains takes nothing.
    tokio::time::sleep(seconds(1)).await;
    assert_eq!((a.cluster.held(), held(&both)), (0, ALL));
    a.cluster.leave().await.unwrap();
    b.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_can_make_another_drain() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    let b = Member::start(&url, dirs[1].path(), &net).await;
    let both = [&a, &b];
    assert!(b.cluster.set_draining(a.node(), true).await.unwrap());
    until("the drain", &both, || b.serves().len() == ALL).await;
    let status = b.cluster.status();
    let row = status.members.iter().find(|member| member.node == a.node()).unwrap();
    assert_eq!((row.state, row.shards), (NodeState::Draining, 0));
    assert!(b.cluster.set_draining(a.node(), false).await.unwrap());
    b.cluster.leave().await.unwrap();
    until("the way back", &both, || a.serves().len() == ALL).await;
    a.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_serve_the_live_revision_gives_its_shards_away_unless_nobody_can() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    let b = Member::start(&url, dirs[1].path(), &net).await;
    let both = [&a, &b];
    a.serving.send_replace((Revision(1), Some("does not compile".into())));
    until("the broken node's shards", &both, || b.serves().len() == ALL).await;
    b.serving.send_replace((Revision(1), Some("does not compile".into())));
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(held(&both), ALL);
    a.cluster.stop();
    b.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_store_ends_with_everybody_holding_what_they_held() {
    let server = Server::start(&["fsync=on"]);
    let (url, name) = database(&server).await;
    let (net, dirs) = (Net::default(), [dir(), dir(), dir()]);
    let mut members = Vec::new();
    for dir in &dirs {
        members.push(Member::start(&url, dir.path(), &net).await);
    }
    let all: Vec<_> = members.iter().collect();
    until_all_held(&all).await;
    let lives = "SELECT string_agg(incarnation || state, ',') FROM node";
    let before = server.sql(&name, lives);
    server.stop_immediate();
    tokio::time::sleep(TIMING.lease * 2).await;
    assert_eq!(held(&all), 0, "no lease outlives its time");
    server.restart();
    until("everybody to go on", &all, || held(&all) == ALL).await;
    // Nor later: everybody had time to renew.
    tokio::time::sleep(TIMING.lease + seconds(1)).await;
    assert_one_server(&all);
    assert_eq!(server.sql(&name, lives), before);
    for member in &all {
        let metrics = &member.metrics;
        assert_eq!((metrics.nodes_fenced.get(), metrics.shards_lost.get()), (0, 0));
        assert_eq!((metrics.registrations.get(), metrics.ownership_faults.get()), (1, 0));
    }
    all.iter().for_each(|member| member.cluster.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_identity_the_older_ends() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir()]);
    let old = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&old]).await;
    std::fs::copy(dirs[0].path().join("node-id"), dirs[1].path().join("node-id")).unwrap();
    let lease_until = old.holdings.lease_until();
    let new = Member::start(&url, dirs[1].path(), &net).await;
    let reason = tokio::time::timeout(seconds(2), old.cluster.failed()).await.unwrap();
    assert!(reason.contains("another process has started as node"), "{reason}");
    assert_eq!(old.cluster.held(), 0);
    until("the younger to take over", &[&new], || new.serves().len() == ALL).await;
    assert!(clock::boot_time() >= lease_until);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!((old.cluster.held(), new.serves().len()), (0, ALL));
    new.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_double_that_stops_at_once_does_not_end_the_lease_of_the_older() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir(), dir()]);
    let old = Member::start_slow(&url, dirs[0].path(), &net).await;
    until_all_held(&[&old]).await;
    let other = Member::start_slow(&url, dirs[1].path(), &net).await;
    std::fs::copy(dirs[0].path().join("node-id"), dirs[2].path().join("node-id")).unwrap();
    old.crash(&net);
    let lease_until = old.holdings.lease_until();
    let double = Member::start_slow(&url, dirs[2].path(), &net).await;
    assert!(double.serves().is_empty());
    double.cluster.drain().await.unwrap();
    double.cluster.leave().await.unwrap();
    until("a take-over", &[&old, &other], || !other.holdings.held().is_empty()).await;
    assert!(clock::boot_time() >= lease_until, "taken over before the lease ran out");
    until("the rest", &[&old, &other], || other.serves().len() == ALL).await;
    other.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_node_registers_again_and_goes_on() {
    let server = Server::shared();
    let (url, name) = database(server).await;
    let (net, dirs) = (Net::default(), [dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    let before = *a.cluster.incarnation().borrow();
    server.sql(
        &name,
        "UPDATE node SET state = 'fenced', incarnation = incarnation + 1;
         UPDATE shard SET owner = NULL, owner_inc = NULL, epoch = epoch + 1",
    );
    until("another life", &[&a], || *a.cluster.incarnation().borrow() > before).await;
    until_all_held(&[&a]).await;
    assert_eq!(a.metrics.registrations.get(), 2);
    a.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_started_in_the_same_directory_takes_up_its_shards_at_once() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    a.crash(&net);
    drop(a);
    let identity = loop {
        match Identity::open(dirs[0].path()) {
            Ok(identity) => break identity,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let again = Member::try_start(&url, identity, &net, true).await.unwrap();
    assert_eq!(again.serves().len(), ALL);
    again.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_the_journal_lost_is_held_again_under_a_later_epoch() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    let (shard, epoch) = a.holdings.held()[0];
    a.holdings.lose(shard, epoch);
    until("the shard", &[&a], || a.holdings.epoch(shard) > Some(epoch)).await;
    a.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspicion_makes_no_lease_shorter() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    let b = Member::start(&url, dirs[1].path(), &net).await;
    let deadline = clock::now() + TIMING.lease * 2;
    while clock::now() < deadline {
        b.suspicions.send(a.node()).await.unwrap();
        assert_one_server(&[&a, &b]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(b.metrics.nodes_fenced.get(), 0);
    assert_eq!(a.serves().len(), ALL);
    a.cluster.stop();
    b.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_starts_while_a_store_is_copied_waits_until_the_copy_has_ended() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir()]);
    let claim = Claim::take(&Secret::new(&*url)).await.unwrap();
    let a = Member::start_slow(&url, dirs[0].path(), &net).await;
    tokio::time::sleep(LEASE + seconds(3)).await;
    assert_eq!((a.cluster.held(), a.metrics.nodes_fenced.get()), (0, 0));
    assert!(claim.release().await.unwrap());
    until_all_held(&[&a]).await;
    a.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_member_that_renews_its_lease_can_turn_a_node_away() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir(), dir()]);
    let a = Member::start(&url, dirs[0].path(), &net).await;
    net.closed.lock().insert(a.node());
    let stranger = Identity::open(dirs[1].path()).unwrap();
    let refused = Member::try_start(&url, stranger, &net, true).await.err();
    assert!(matches!(refused, Some(StartError::Stranger { .. })), "{refused:?}");
    // Its row stays, and somebody else is where it was.
    a.crash(&net);
    let b = Member::start(&url, dirs[2].path(), &net).await;
    until("a take-over", &[&a, &b], || b.serves().len() == ALL).await;
    b.cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_lease_is_refused_while_others_run() {
    let (url, _) = database(Server::shared()).await;
    let (net, dirs) = (Net::default(), [dir(), dir(), dir()]);
    let a = Member::start_slow(&url, dirs[0].path(), &net).await;
    until_all_held(&[&a]).await;
    let hasty = Identity::open(dirs[1].path()).unwrap();
    let refused = Member::try_start(&url, hasty, &net, true).await.err();
    assert!(matches!(refused, Some(StartError::Lease { .. })), "{refused:?}");
    a.crash(&net);
    let lease_until = a.holdings.lease_until();
    let b = Member::start(&url, dirs[2].path(), &net).await;
    until("a take-over", &[&a, &b], || !b.holdings.held().is_empty()).await;
    assert!(clock::boot_time() >= lease_until, "taken over before the lease ran out");
    until("the rest", &[&a, &b], || b.serves().len() == ALL).await;
    b.cluster.stop();
}
