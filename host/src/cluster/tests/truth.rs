//! The statements, one by one.

use std::time::Duration;

use crate::cluster::identity::Identity;
use crate::cluster::ownership::observer::Expired;
use crate::cluster::ownership::{NodeState, Process};
use crate::cluster::tests::{SHARDS, database, dir};
use crate::cluster::truth::{About, Truth};
use crate::journal::postgres::Place;
use crate::journal::postgres::server::Server;
use crate::words::config::Secret;
use crate::words::{Epoch, Incarnation, Revision, Shard};

fn truth(url: &str) -> Truth {
    // What the statements do does not depend on how busy the machine is.
    Truth::new(Place::parse(&Secret::new(url)).unwrap(), "test", Duration::from_secs(30))
}

fn about() -> About {
    About {
        peer_addr: "127.0.0.1:7834".into(),
        zone: "a".into(),
        capacity: 100,
        version: "1".into(),
        started_at_ms: 1,
        lease: Duration::from_millis(4_321),
    }
}

#[tokio::test]
async fn owners_change_only_with_their_epochs() {
    let (url, _) = database(Server::shared()).await;
    let (dirs, serving) = ([dir(), dir()], (Revision(3), None));
    let [a, b] = [0, 1].map(|at: usize| Identity::open(dirs[at].path()).unwrap());
    let mut truth = truth(&url);
    let one = Incarnation(1);
    for node in [&a, &b] {
        let registered = truth.register(node, &about(), NodeState::Active, &serving).await.unwrap();
        assert_eq!(registered.incarnation, one);
        assert!(registered.shards.is_empty());
    }
    let before = truth.poll().await.unwrap();
    assert_eq!(before.nodes.len(), 2);
    assert_eq!(before.nodes[0].revision, Revision(3));
    assert_eq!(before.nodes[0].lease, Some(about().lease));

    let shards: Vec<_> = (0..4).map(Shard).collect();
    let claimed = truth.claim(a.node, one, &shards).await.unwrap();
    assert_eq!(claimed.len(), 4);
    assert!(claimed.iter().all(|(_, epoch)| *epoch == Epoch(1)));
    assert!(truth.claim(b.node, one, &shards).await.unwrap().is_empty());
    assert_ne!(truth.poll().await.unwrap().tally, before.tally);
    assert_eq!(truth.owned(a.node, one, &shards[..2]).await.unwrap(), claimed[..2]);

    let shard = Shard(0);
    let to = (b.node, one);
    assert_eq!(truth.hand_over(b.node, shard, Epoch(1), to).await.unwrap(), None);
    assert_eq!(truth.hand_over(a.node, shard, Epoch(0), to).await.unwrap(), None);
    let nobody = (b.node, Incarnation(9));
    assert_eq!(truth.hand_over(a.node, shard, Epoch(1), nobody).await.unwrap(), None);
    assert_eq!(truth.hand_over(a.node, shard, Epoch(1), to).await.unwrap(), Some(Epoch(2)));
    assert_eq!(truth.release(a.node, shard, Epoch(1)).await.unwrap(), None);
    assert_eq!(truth.release(b.node, shard, Epoch(2)).await.unwrap(), Some(Epoch(3)));

    assert!(truth.set_draining(b.node, true).await.unwrap());
    assert!(truth.claim(b.node, one, &[shard]).await.unwrap().is_empty());
    let given = truth.hand_over(a.node, Shard(1), Epoch(1), to).await.unwrap();
    assert_eq!(given, None, "to a node that drains");
    assert_eq!(truth.renew(&b, one, &serving).await.unwrap(), Some(NodeState::Draining));

    truth.leave(&a, one, false).await.unwrap();
    let rows = truth.shards().await.unwrap();
    assert_eq!(rows.len(), SHARDS as usize);
    assert!(rows.iter().all(|row| row.owner.is_none()));
    assert_eq!(rows[1].epoch, Epoch(2));
    assert_eq!(truth.poll().await.unwrap().nodes.len(), 1);
    assert_eq!(truth.renew(&a, one, &serving).await.unwrap(), None);
}

#[tokio::test]
async fn only_an_unchanged_node_is_fenced_and_loses_everything() {
    let (url, _) = database(Server::shared()).await;
    let (dirs, serving) = ([dir()], (Revision(0), None));
    let a = Identity::open(dirs[0].path()).unwrap();
    let mut truth = truth(&url);
    let one = truth.register(&a, &about(), NodeState::Active, &serving).await.unwrap().incarnation;
    truth.claim(a.node, one, &[Shard(0), Shard(5)]).await.unwrap();
    let seen = truth.node(a.node).await.unwrap().unwrap();
    let expired = Expired { node: a.node, incarnation: seen.incarnation, hb: seen.hb };
    truth.renew(&a, one, &serving).await.unwrap().unwrap();
    assert!(!truth.fence(&expired).await.unwrap().is_ours);
    let expired = Expired { hb: seen.hb + 1, ..expired };
    let fencing = truth.fence(&expired).await.unwrap();
    assert_eq!((fencing.is_ours, fencing.freed), (true, 2));
    assert!(!truth.fence(&expired).await.unwrap().is_ours);
    assert_eq!(truth.renew(&a, one, &serving).await.unwrap(), None);
    assert!(truth.claim(a.node, one, &[Shard(0)]).await.unwrap().is_empty());
    let row = truth.node(a.node).await.unwrap().unwrap();
    assert_eq!((row.state, row.incarnation), (NodeState::Fenced, Incarnation(2)));
    let again = truth.register(&a, &about(), NodeState::Active, &serving).await.unwrap();
    assert_eq!((again.incarnation, again.shards), (Incarnation(3), Vec::new()));
}

#[tokio::test]
async fn a_fenced_node_without_shards_is_forgotten_but_not_its_incarnation() {
    let server = Server::shared();
    let (url, name) = database(server).await;
    let (dirs, serving) = ([dir()], (Revision(0), None));
    let a = Identity::open(dirs[0].path()).unwrap();
    let mut truth = truth(&url);
    truth.register(&a, &about(), NodeState::Active, &serving).await.unwrap();
    let seen = truth.node(a.node).await.unwrap().unwrap();
    let before = Expired { node: a.node, incarnation: seen.incarnation, hb: seen.hb };
    assert!(!truth.forget(&before).await.unwrap(), "it is a member");
    assert!(truth.fence(&before).await.unwrap().is_ours);
    assert!(!truth.forget(&before).await.unwrap(), "it was fenced since");
    let fenced = Expired { incarnation: Incarnation(2), ..before };
    let claimed = "UPDATE shard SET owner = node_id, owner_inc = 1 FROM node WHERE shard_id = 3";
    server.sql(&name, claimed);
    assert!(!truth.forget(&fenced).await.unwrap(), "it owns a shard");
    truth.free_orphans().await.unwrap();
    assert!(truth.forget(&fenced).await.unwrap());
    assert!(truth.poll().await.unwrap().nodes.is_empty());
    let again = truth.register(&a, &about(), NodeState::Active, &serving).await.unwrap();
    assert_eq!(again.incarnation, Incarnation(3));
    assert_eq!(truth.poll().await.unwrap().nodes.len(), 1);
}

#[tokio::test]
async fn a_predecessor_is_dead_only_in_the_same_place() {
    let (url, _) = database(Server::shared()).await;
    let (dirs, serving) = ([dir()], (Revision(0), None));
    let mut me = Identity::open(dirs[0].path()).unwrap();
    let mut truth = truth(&url);
    let first = truth.register(&me, &about(), NodeState::Active, &serving).await.unwrap();
    truth.claim(me.node, first.incarnation, &[Shard(0), Shard(5)]).await.unwrap();
    me.process = Process([7; 16]);
    let second = truth.register(&me, &about(), NodeState::Active, &serving).await.unwrap();
    assert_eq!(second.shards, [(Shard(0), Epoch(2)), (Shard(5), Epoch(2))]);
    (me.process, me.place) = (Process([8; 16]), [9; 32]);
    let third = truth.register(&me, &about(), NodeState::Active, &serving).await.unwrap();
    assert_eq!((third.incarnation, third.shards), (Incarnation(3), Vec::new()));
    // Again, because the answer was lost; and by the next process in the new place.
    let fourth = truth.register(&me, &about(), NodeState::Active, &serving).await.unwrap();
    assert_eq!((fourth.incarnation, fourth.shards), (Incarnation(4), Vec::new()));
    me.process = Process([10; 16]);
    let fifth = truth.register(&me, &about(), NodeState::Active, &serving).await.unwrap();
    assert_eq!((fifth.incarnation, fifth.shards), (Incarnation(5), Vec::new()));
    let adopted = truth.adopt(me.node, fifth.incarnation).await.unwrap();
    assert_eq!(adopted, [(Shard(0), Epoch(3)), (Shard(5), Epoch(3))]);
    me.process = Process([11; 16]);
    let sixth = truth.register(&me, &about(), NodeState::Active, &serving).await.unwrap();
    assert_eq!(sixth.shards, [(Shard(0), Epoch(4)), (Shard(5), Epoch(4))]);
}

#[tokio::test]
async fn who_leaves_frees_nothing_of_an_earlier_life_that_may_not_be_over() {
    let (url, _) = database(Server::shared()).await;
    let (dirs, serving) = ([dir()], (Revision(0), None));
    let mut me = Identity::open(dirs[0].path()).unwrap();
    let mut truth = truth(&url);
    let first = truth.register(&me, &about(), NodeState::Active, &serving).await.unwrap();
    let earlier = first.incarnation;
    truth.claim(me.node, earlier, &[Shard(0)]).await.unwrap();
    (me.process, me.place) = (Process([8; 16]), [9; 32]);
    let second = truth.register(&me, &about(), NodeState::Active, &serving).await.unwrap();
    truth.leave(&me, second.incarnation, false).await.unwrap();
    truth.free_orphans().await.unwrap();
    let owned = truth.owned(me.node, earlier, &[Shard(0)]).await.unwrap();
    assert_eq!(owned, [(Shard(0), Epoch(1))]);
    // Others declare it dead in time.
    let row = truth.node(me.node).await.unwrap().unwrap();
    assert_eq!((row.state, row.incarnation), (NodeState::Active, second.incarnation));
    truth.leave(&me, second.incarnation, true).await.unwrap();
    assert_eq!(truth.node(me.node).await.unwrap().unwrap().state, NodeState::Gone);
    let row = truth.shards().await.unwrap()[0];
    assert_eq!((row.owner, row.epoch), (None, Epoch(2)));
}

#[tokio::test]
async fn what_a_dead_node_owns_nevertheless_is_freed() {
    let server = Server::shared();
    let (url, name) = database(server).await;
    let (dirs, serving) = ([dir()], (Revision(0), None));
    let a = Identity::open(dirs[0].path()).unwrap();
    let mut truth = truth(&url);
    let one = truth.register(&a, &about(), NodeState::Active, &serving).await.unwrap().incarnation;
    truth.claim(a.node, one, &[Shard(0)]).await.unwrap();
    truth.free_orphans().await.unwrap();
    assert_eq!(truth.owned(a.node, one, &[Shard(0)]).await.unwrap().len(), 1);
    server.sql(&name, "UPDATE node SET state = 'fenced', incarnation = incarnation + 1");
    truth.free_orphans().await.unwrap();
    let row = truth.shards().await.unwrap()[0];
    assert_eq!((row.owner, row.epoch), (None, Epoch(2)));
}

#[tokio::test]
async fn a_statement_does_not_wait_for_ever_and_the_next_has_a_new_connection() {
    let server = Server::shared();
    let (url, _) = database(server).await;
    let (dirs, serving) = ([dir()], (Revision(0), None));
    let a = Identity::open(dirs[0].path()).unwrap();
    let mut truth =
        Truth::new(Place::parse(&Secret::new(&*url)).unwrap(), "test", Duration::from_millis(300));
    let one = truth.register(&a, &about(), NodeState::Active, &serving).await.unwrap().incarnation;
    let mut blocker = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM node FOR UPDATE").execute(&mut blocker).await.unwrap();
    truth.renew(&a, one, &serving).await.unwrap_err();
    drop(blocker);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(truth.renew(&a, one, &serving).await.unwrap().is_some());
}
