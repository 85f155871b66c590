use std::future::Future;
use std::time::Instant as StdInstant;

use super::*;

const KEY: &str = "sixteen bytes at least";
const SOON: Duration = Duration::from_secs(15);

fn timing() -> Timing {
    Timing {
        probe: Duration::from_millis(120),
        rtt: Duration::from_millis(50),
        suspicion: Duration::from_millis(400),
        gossip: Duration::from_millis(50),
        announce: Duration::from_millis(200),
        reconcile: Duration::from_millis(300),
    }
}

struct Node {
    members: Members,
    addr: SocketAddr,
    metrics: Metrics,
    dir: tempfile::TempDir,
}

fn id(number: u8) -> NodeId {
    NodeId([number; 16])
}

struct Start {
    number: u8,
    addr: Option<SocketAddr>,
    incarnation: u64,
    key: &'static str,
    previous: Option<&'static str>,
    seeds: Vec<String>,
    dir: tempfile::TempDir,
}

fn with(number: u8, seeds: &[&Node]) -> Start {
    Start {
        number,
        addr: None,
        incarnation: 1,
        key: KEY,
        previous: None,
        seeds: seeds.iter().map(|node| node.addr.to_string()).collect(),
        dir: tempfile::tempdir().unwrap(),
    }
}

impl Start {
    fn start(self) -> Node {
        let bound = self.addr.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        // The thread of a node that was dropped may hold its socket for another moment.
        let began = StdInstant::now();
        let socket = loop {
            match UdpSocket::bind(bound) {
                Ok(socket) => break socket,
                Err(error) => assert!(began.elapsed() < SOON, "{error}"),
            }
            std::thread::yield_now();
        };
        let addr = socket.local_addr().unwrap();
        let metrics = Metrics::default();
        let members = Members::start(MembersSetup {
            socket,
            node: id(self.number),
            incarnation: Incarnation(self.incarnation),
            addr,
            meta: Meta {
                peer: addr,
                zone: format!("zone {}", self.number),
                capacity: 100,
                version: "0.1.0".into(),
                draining: false,
            },
            key: Secret::new(self.key),
            key_previous: self.previous.map(Secret::new),
            cluster_id: [7; 16],
            seeds: self.seeds,
            data_dir: self.dir.path().to_owned(),
            metrics: metrics.clone(),
            timing: timing(),
        });
        Node { members: members.unwrap(), addr, metrics, dir: self.dir }
    }
}

impl Node {
    async fn sees(&self, what: &str, condition: impl FnMut(&Arc<Vec<Member>>) -> bool) {
        let mut watch = self.members.watch();
        let seen = tokio::time::timeout(SOON, watch.wait_for(condition)).await.is_ok();
        assert!(seen, "{what}: {:?}", self.members.watch().borrow());
    }

    async fn sees_alive(&self, numbers: &[u8]) {
        self.sees("alive", |members| {
            let alive = members.iter().filter(|m| m.state == MemberState::Alive);
            alive.map(|m| m.node).eq(numbers.iter().map(|n| id(*n)))
        })
        .await;
    }

    async fn sees_state(&self, number: u8, state: MemberState) {
        self.sees("state", |members| {
            members.iter().any(|m| m.node == id(number) && m.state == state)
        })
        .await;
    }

    fn refused(&self, reason: &'static str) -> u64 {
        let labels = crate::words::telemetry::RefusedLabels { reason };
        self.metrics.gossip_packets_refused.get_or_create(&labels).get()
    }
}

async fn soon(mut condition: impl FnMut() -> bool) {
    let began = StdInstant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "it did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn nodes_find_each_other_through_one_seed_and_notice_a_death() {
    run(async {
        let one = with(1, &[]).start();
        let two = with(2, &[&one]).start();
        let three = with(3, &[&one]).start();
        let four = with(4, &[&three]).start();
        one.sees_alive(&[2, 3, 4]).await;
        two.sees_alive(&[1, 3, 4]).await;
        three.sees_alive(&[1, 2, 4]).await;
        four.sees_alive(&[1, 2, 3]).await;
        four.sees("notes", |members| members.iter().all(|m| m.meta.is_some())).await;
        let zone = four.members.watch().borrow()[1].meta.clone().unwrap().zone;
        assert_eq!(zone, "zone 2");

        let mut downs = one.members.downs();
        drop(two.members);
        for node in [&one, &three, &four] {
            node.sees_state(2, MemberState::Down).await;
        }
        assert_eq!(downs.recv().await, Some(id(2)));
    });
}

#[test]
fn a_leave_is_known_at_once_and_a_return_under_a_new_incarnation_too() {
    run(async {
        let one = with(1, &[]).start();
        let two = with(2, &[&one]).start();
        let three = with(3, &[&one]).start();
        two.sees_alive(&[1, 3]).await;
        three.sees_alive(&[1, 2]).await;
        two.members.leave().await;
        one.sees_state(2, MemberState::Down).await;
        three.sees_state(2, MemberState::Down).await;

        let again = Start { addr: Some(two.addr), incarnation: 2, ..with(2, &[&three]) };
        drop(two);
        let again = again.start();
        again.sees_alive(&[1, 3]).await;
        for node in [&one, &three] {
            node.sees("incarnation 2", |members| {
                members.iter().any(|m| {
                    m.node == id(2)
                        && m.incarnation == Incarnation(2)
                        && m.state == MemberState::Alive
                })
            })
            .await;
        }
        again.members.renew(Incarnation(3));
        one.sees("incarnation 3", |members| {
            members.iter().any(|m| m.incarnation == Incarnation(3) && m.state == MemberState::Alive)
        })
        .await;
    });
}

#[test]
fn hints_and_states_reach_everybody_and_strangers_are_not_shown() {
    run(async {
        let one = with(1, &[]).start();
        let two = with(2, &[&one]).start();
        let three = with(3, &[&one]).start();
        one.sees_alive(&[2, 3]).await;
        two.sees_alive(&[1, 3]).await;
        three.sees_alive(&[1, 2]).await;
        one.members.broadcast(Hint::Revision(7));
        for node in [&two, &three] {
            let mut hints = node.members.hints();
            let hint = hints.wait_for(|hint| *hint == Some(Hint::Revision(7)));
            assert!(tokio::time::timeout(SOON, hint).await.is_ok());
        }
        two.members.set_state(true);
        one.sees("draining", |members| members[0].meta.as_ref().is_some_and(|meta| meta.draining))
            .await;
        one.members.know(HashSet::from([id(1), id(3)]));
        one.sees_alive(&[3]).await;
        one.members.know(HashSet::from([id(1), id(2), id(3)]));
        one.sees_alive(&[2, 3]).await;
    });
}

#[test]
fn a_restarted_node_finds_its_cluster_from_disk() {
    run(async {
        let one = with(1, &[]).start();
        let two = with(2, &[&one]).start();
        two.sees_alive(&[1]).await;
        let file = two.dir.path().join("members");
        soon(|| std::fs::read_to_string(&file).is_ok_and(|t| t.trim() == one.addr.to_string()))
            .await;
        let Node { members, addr, dir, .. } = two;
        drop(members);
        let two = Start { addr: Some(addr), dir, ..with(2, &[]) }.start();
        two.sees_alive(&[1]).await;
    });
}

#[test]
fn addresses_from_the_store_are_as_good_as_seeds() {
    run(async {
        let one = with(1, &[]).start();
        let two = with(2, &[]).start();
        one.members.announce(two.addr);
        one.sees_alive(&[2]).await;
        two.sees_alive(&[1]).await;
    });
}

#[test]
fn who_has_another_key_never_joins() {
    run(async {
        let one = with(1, &[]).start();
        let stranger = Start { key: "another key of many bytes", ..with(9, &[&one]) }.start();
        let two = with(2, &[&one]).start();
        one.sees_alive(&[2]).await;
        soon(|| one.refused("key") + one.refused("seal") >= 5).await;
        one.sees_alive(&[2]).await;
        assert!(stranger.members.watch().borrow().is_empty());
        drop(two);
    });
}

#[test]
fn keys_are_replaced_without_losing_anybody() {
    run(async {
        let new = "the new key, of many bytes";
        let one = Start { previous: Some(new), ..with(1, &[]) }.start();
        let two = Start { key: new, previous: Some(KEY), ..with(2, &[&one]) }.start();
        one.sees_alive(&[2]).await;
        two.sees_alive(&[1]).await;
    });
}

#[test]
fn garbage_changes_nothing() {
    run(async {
        let one = with(1, &[]).start();
        let two = with(2, &[&one]).start();
        one.sees_alive(&[2]).await;
        let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut random = 1_u64;
        for n in 0..100_000_usize {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut packet = vec![0; (random >> 33) as usize % 1_500];
            for (at, byte) in packet.iter_mut().enumerate() {
                *byte = (random.rotate_left(at as u32 % 64) >> 7) as u8 ^ at as u8;
            }
            if n % 3 == 0 && !packet.is_empty() {
                packet[0] = 1;
            }
            // The kernel drops what does not fit into its buffer; enough arrives.
            let _sent = attacker.send_to(&packet, one.addr);
            if n % 1_000 == 0 {
                tokio::task::yield_now().await;
            }
        }
        attacker.send_to(b"hello", one.addr).unwrap();
        soon(|| one.refused("version") > 100 && one.refused("size") > 0).await;
        one.sees_alive(&[2]).await;
        two.sees_alive(&[1]).await;
    });
}
