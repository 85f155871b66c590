//! Whoever should not be there: a second node of the same name, a node with another key, noise.

use std::time::{Duration, Instant};

use stead_tests::cluster::Cluster;
use stead_tests::load::Load;
use stead_tests::rng::Rng;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::support::{PROGRESS_WITHIN, TAKE_OVER_MAX, alone, seconds, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn of_two_nodes_with_one_identity_the_older_ends() {
    let _alone = alone().await;
    let mut rng = Rng::from_env();
    let mut cluster = three(|setup| setup).await;
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(200, PROGRESS_WITHIN).await;
    let copied = cluster.host(1).data().join("node-id");
    let copy = tempfile::tempdir().expect("a directory");
    std::fs::copy(&copied, copy.path().join("node-id")).expect("the identity can be copied");
    let data = copy.path().to_owned();
    let twin = cluster.try_add(|options| options.data(&data)).await.expect("the twin starts");
    let start = Instant::now();
    while cluster.host_mut(1).running() {
        assert!(start.elapsed() < Duration::from_secs(10), "the older twin lives on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the older twin ended after {:?}", start.elapsed());
    cluster.bury(1);
    cluster.all_owned(TAKE_OVER_MAX * 2).await;
    assert!(cluster.is_up(twin));
    load.progress(500, PROGRESS_WITHIN).await;
    load.stop().await.check(cluster.host(0)).await;
    cluster.check_rows();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_node_with_another_key_is_no_member() {
    let _alone = alone().await;
    let mut cluster = three(|setup| setup).await;
    let lives = cluster.lives();
    let stranger = cluster
        .try_add(|options| {
            options.env("STEAD_CLUSTER_KEY", "another key, just as long as the first")
        })
        .await;
    match stranger {
        // It must say why it does not start.
        Err(refused) => assert!(refused.log.contains("key"), "{refused}"),
        Ok(node) => {
            seconds(15).await;
            assert_eq!(cluster.owned(node), 0, "a node with another key was given shards");
        }
    }
    assert_eq!(cluster.lives()[..3], lives);
}

async fn noise(cluster: &Cluster, rng: &mut Rng) {
    let socket = UdpSocket::bind("0.0.0.0:0").await.expect("a socket");
    for node in 0..cluster.len() {
        let address = cluster.peer_address(node);
        for _ in 0..2_000 {
            let length = rng.below(1_400) as usize;
            let datagram: Vec<u8> = (0..length).map(|_| rng.number() as u8).collect();
            let _ = socket.send_to(&datagram, address).await;
        }
        for _ in 0..50 {
            let mut stream = TcpStream::connect(address).await.expect("the peer port is open");
            let length = rng.below(20_000) as usize;
            let bytes: Vec<u8> = (0..length).map(|_| rng.number() as u8).collect();
            let _ = stream.write_all(&bytes).await;
        }
        for text in ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01"] {
            let mut stream = TcpStream::connect(address).await.expect("the peer port is open");
            let _ = stream.write_all(text.as_bytes()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn noise_on_the_peer_ports_changes_nothing() {
    let _alone = alone().await;
    let mut rng = Rng::from_env();
    let cluster = three(|setup| setup).await;
    let load = Load::start(cluster.services(), &mut rng);
    load.progress(200, PROGRESS_WITHIN).await;
    let lives = cluster.lives();
    for _ in 0..5 {
        noise(&cluster, &mut rng).await;
        seconds(1).await;
    }
    seconds(5).await;
    assert_eq!(cluster.lives(), lives, "noise killed a node");
    load.progress(300, PROGRESS_WITHIN).await;
    load.stop().await.check(cluster.host(0)).await;
    for node in cluster.up() {
        assert!(!cluster.host(node).log().contains("panic"), "{}", cluster.host(node).log());
    }
}
