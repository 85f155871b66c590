//! A way from a node to something else that can be made bad: slow, lossy, blocked, cut. The kernel's
//! netem is not to be had everywhere; this does the same for one address, without privileges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::rng::Rng;

const PIECES_MAX: usize = 1_024;
const PIECE_BYTES: usize = 16 * 1024;
const DATAGRAM_BYTES: usize = 64 * 1024;

/// How the way is now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// Nothing gets through towards the target; whoever sends does not learn of it.
    pub blocks_there: bool,
    /// Nothing gets back.
    pub blocks_back: bool,
    pub delay: Duration,
    /// Up to so much more, at random for each datagram: they overtake each other.
    pub jitter: Duration,
    /// Of datagrams.
    pub loss_percent: u64,
    /// Of datagrams.
    pub duplicates_percent: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    conditions: Conditions,
    /// Connections that are open when it changes are cut.
    cuts: u64,
}

/// TCP and UDP on one port, carried to a target. Ends when it is dropped.
pub struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    target: Arc<Mutex<SocketAddr>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Listens on `address`, whose port may be 0.
    pub async fn start(address: SocketAddr, target: SocketAddr) -> Self {
        let (listener, socket) = runtime().spawn(listen(address)).await.expect("no panic");
        let address = listener.local_addr().expect("an address");
        let state = watch::Sender::new(State::default());
        let target = Arc::new(Mutex::new(target));
        let mut tasks = JoinSet::new();
        tasks.spawn_on(accept(listener, target.clone(), state.subscribe()), runtime().handle());
        tasks.spawn_on(datagrams(socket, target.clone(), state.subscribe()), runtime().handle());
        Self { address, state, target, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, conditions: Conditions) {
        self.state.send_modify(|now| now.conditions = conditions);
    }

    /// Nothing gets through in either direction, and nobody is told.
    pub fn block(&self) {
        self.set(Conditions { blocks_there: true, blocks_back: true, ..Conditions::default() });
    }

    pub fn heal(&self) {
        self.set(Conditions::default());
    }

    /// Ends every open connection.
    pub fn cut(&self) {
        self.state.send_modify(|now| now.cuts += 1);
    }

    /// From now on it leads elsewhere.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().expect("no panic") = target;
        self.cut();
    }
}

/// A thread of its own: a test that waits for a process would hold up what goes between others.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("relays").enable_all().build().expect("a runtime")
    })
}

async fn listen(address: SocketAddr) -> (TcpListener, UdpSocket) {
    let listener = TcpListener::bind(address).await.expect("the relay can listen");
    let address = listener.local_addr().expect("an address");
    let socket = UdpSocket::bind(address).await.expect("the relay's port is free for UDP too");
    (listener, socket)
}

async fn accept(
    listener: TcpListener,
    target: Arc<Mutex<SocketAddr>>,
    state: watch::Receiver<State>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        let target = *target.lock().expect("no panic");
        connections.spawn(carry(client, target, state.clone()));
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let cuts = state.borrow_and_update().cuts;
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pump(from_client, to_server, state.clone(), |now| now.blocks_there);
    let back = pump(from_server, to_client, state.clone(), |now| now.blocks_back);
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = state.wait_for(|now| now.cuts != cuts) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    is_blocked: fn(&Conditions) -> bool,
) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let delays = state.clone();
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let Ok(bytes @ 1..) = from.read(&mut piece).await else { return };
            piece.truncate(bytes);
            let due = Instant::now() + delays.borrow().conditions.delay;
            if sender.send((due, piece)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if state.wait_for(|now| !is_blocked(&now.conditions)).await.is_err() {
                return;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// Only towards the target: gossip answers to the address that a node says it has.
async fn datagrams(
    socket: UdpSocket,
    target: Arc<Mutex<SocketAddr>>,
    state: watch::Receiver<State>,
) {
    let mut rng = Rng::new(u64::from(socket.local_addr().map_or(0, |address| address.port())));
    // By when they are due; the number keeps those apart that are due at once.
    let mut waiting: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    for number in 0.. {
        let next = waiting.keys().next().map(|(due, _)| *due);
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let now = state.borrow().conditions;
                let Ok((bytes, _)) = received else { continue };
                if now.blocks_there || rng.below(100) < now.loss_percent {
                    continue;
                }
                let copies = 1 + u64::from(rng.below(100) < now.duplicates_percent);
                for copy in 0..copies {
                    let jitter = now.jitter.mul_f64(rng.below(1_000) as f64 / 1_000.0);
                    let due = Instant::now() + now.delay + jitter;
                    waiting.insert((due, 2 * number + copy), buffer[..bytes].to_vec());
                }
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some((_, datagram)) = waiting.pop_first() {
                    let target = *target.lock().expect("no panic");
                    let _ = socket.send_to(&datagram, target).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYWHERE: &str = "127.0.0.1:0";

    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind(ANYWHERE).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (address, tasks)
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"?").await?;
        stream.read_exact(&mut [0]).await.map(drop)
    }

    #[tokio::test]
    async fn carries_delays_blocks_and_cuts_connections() {
        let (target, _echo) = echo().await;
        let relay = Relay::start(ANYWHERE.parse().unwrap(), target).await;
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        ask(&mut stream).await.unwrap();
        let delay = Duration::from_millis(50);
        relay.set(Conditions { delay, ..Conditions::default() });
        let start = Instant::now();
        ask(&mut stream).await.unwrap();
        assert!(start.elapsed() >= delay * 2);
        relay.block();
        assert!(tokio::time::timeout(delay, ask(&mut stream)).await.is_err());
        relay.heal();
        // The answer to the question that was held up.
        stream.read_exact(&mut [0]).await.unwrap();
        relay.cut();
        assert!(ask(&mut stream).await.is_err());
    }

    #[tokio::test]
    async fn loses_and_doubles_datagrams() {
        let target = UdpSocket::bind(ANYWHERE).await.unwrap();
        let address = target.local_addr().unwrap();
        let relay = Relay::start(ANYWHERE.parse().unwrap(), address).await;
        let client = UdpSocket::bind(ANYWHERE).await.unwrap();
        for (loss_percent, duplicates_percent, expected) in
            [(0, 0, 50..=50), (0, 100, 100..=100), (30, 0, 20..=48), (100, 0, 0..=0)]
        {
            relay.set(Conditions { loss_percent, duplicates_percent, ..Conditions::default() });
            for _ in 0..50 {
                client.send_to(b"!", relay.address()).await.unwrap();
            }
            let mut received = 0;
            let wait = Duration::from_millis(200);
            while tokio::time::timeout(wait, target.recv_from(&mut [0])).await.is_ok() {
                received += 1;
            }
            assert!(expected.contains(&received), "{received} of 50, not {expected:?}");
        }
    }
}
