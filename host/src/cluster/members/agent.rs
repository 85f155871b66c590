//! The thread that carries the protocol: its socket, its clock, its seeds and its file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::members::identity::Identity;
use crate::cluster::members::note::{Message, Meta, Note};
use crate::cluster::members::packet::{MESSAGE_BYTES, Refusal, Sealer};
use crate::cluster::members::swim::Swim;
use crate::cluster::members::{
    Hint, Member, MemberState, MembersSetup, Shared, Timing, Wanted, kept,
};
use crate::words::NodeId;
use crate::words::clock::{self, Instant};
use crate::words::limits::{
    GOSSIP_COMPLAIN_EVERY, GOSSIP_ERROR_PAUSE, GOSSIP_PACKET_BYTES_MAX,
    MEMBERS_ANNOUNCE_AT_ONCE_MAX, MEMBERS_KEEP_EVERY, MEMBERS_KEPT_MAX, SWIM_IDLE,
};
use crate::words::telemetry::{Metrics, RefusedLabels};

/// How often the own note is repeated after it changed.
const NOTE_ROUNDS: u32 = 3;

struct Agent {
    socket: UdpSocket,
    /// The same socket: sending never waits, a packet that the kernel does not take is lost.
    sender: std::net::UdpSocket,
    swim: Swim,
    sealer: Sealer,
    shared: Arc<Shared>,
    timing: Timing,
    metrics: Metrics,
    meta: Meta,
    step: u64,
    note_rounds: u32,
    notes: HashMap<NodeId, Note>,
    known: Option<Arc<HashSet<NodeId>>>,
    seen: HashMap<NodeId, ((u64, u64), MemberState, Instant)>,
    seeds: Vec<String>,
    resolved: (mpsc::Sender<Vec<SocketAddr>>, mpsc::Receiver<Vec<SocketAddr>>),
    resolving: bool,
    /// Where members were once, or are said to be.
    remembered: BTreeSet<SocketAddr>,
    announced: usize,
    kept: PathBuf,
    saved: BTreeSet<SocketAddr>,
    saved_at: Option<Instant>,
    complained: HashMap<&'static str, Instant>,
}

pub(super) fn start(setup: MembersSetup, shared: Arc<Shared>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let agent = {
        let _entered = runtime.enter();
        Agent::new(setup, shared.clone())?
    };
    std::thread::Builder::new().name("stead-members".into()).spawn(move || {
        runtime.block_on(agent.run());
        // A name server may take its time; nobody waits for it.
        runtime.shutdown_background();
        shared.ended.send_replace(true);
    })?;
    Ok(())
}

impl Agent {
    fn new(setup: MembersSetup, shared: Arc<Shared>) -> io::Result<Self> {
        setup.socket.set_nonblocking(true)?;
        let sender = setup.socket.try_clone()?;
        let mut session = [0; 16];
        getrandom::fill(&mut session).map_err(io::Error::other)?;
        let seed = getrandom::u64().map_err(io::Error::other)?;
        let me = Identity {
            addr: setup.addr,
            node: setup.node,
            incarnation: setup.incarnation.0,
            bump: clock::unix_ms(),
        };
        let kept = setup.data_dir.join("members");
        let remembered = kept::load(&kept);
        Ok(Self {
            socket: UdpSocket::from_std(setup.socket)?,
            sender,
            // One byte says what kind of message it is.
            swim: Swim::new(me, &setup.timing, MESSAGE_BYTES - 1, seed),
            sealer: Sealer::new(
                &setup.cluster_id,
                &setup.key,
                setup.key_previous.as_ref(),
                session,
            ),
            shared,
            timing: setup.timing,
            metrics: setup.metrics,
            meta: setup.meta,
            step: 0,
            note_rounds: 0,
            notes: HashMap::new(),
            known: None,
            seen: HashMap::new(),
            seeds: setup.seeds,
            resolved: mpsc::channel(1),
            resolving: false,
            saved: remembered.clone(),
            remembered,
            announced: 0,
            kept,
            saved_at: None,
            complained: HashMap::new(),
        })
    }

    async fn run(mut self) {
        // One byte more than a packet has, so that longer ones are seen to be longer.
        let mut buffer = vec![0; GOSSIP_PACKET_BYTES_MAX + 1];
        let mut announce = interval(self.timing.announce);
        let mut reconcile = interval(self.timing.reconcile);
        announce.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = self.shared.clone();
        loop {
            let now = clock::boot_time();
            let timer = self.swim.next_timer().map_or(SWIM_IDLE, |at| at.since(now));
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((bytes, from)) => self.receive(&buffer[..bytes], from),
                    Err(error) => {
                        // For instance "connection refused", of an earlier packet. The rest goes on.
                        self.complain("socket", &format!("receiving gossip failed: {error}"));
                        sleep(GOSSIP_ERROR_PAUSE.min(timer)).await;
                    }
                },
                () = sleep(timer) => {}
                () = shared.changed.notified() => {
                    if self.obey() {
                        return;
                    }
                }
                _ = announce.tick() => self.announce(),
                _ = reconcile.tick() => self.reconcile(),
                Some(addresses) = self.resolved.1.recv() => {
                    self.resolving = false;
                    for address in addresses {
                        self.swim.announce(clock::boot_time(), address);
                    }
                }
            }
            self.swim.tick(clock::boot_time());
            self.flush();
            self.refresh();
            self.keep();
        }
    }

    fn receive(&mut self, packet: &[u8], from: SocketAddr) {
        let result = self.sealer.open(packet).and_then(|message| self.hear(&message, from));
        if let Err(refusal) = result {
            let labels = RefusedLabels { reason: refusal.name() };
            self.metrics.gossip_packets_refused.get_or_create(&labels).inc();
            let what = format!("a packet of gossip from {from} was refused: {}", refusal.name());
            self.complain(refusal.name(), &what);
        }
    }

    fn hear(&mut self, message: &[u8], from: SocketAddr) -> Result<(), Refusal> {
        match Message::decode(message).ok_or(Refusal::Content)? {
            Message::Swim(message) => {
                let now = clock::boot_time();
                self.swim.receive(now, message).map_err(|_| Refusal::Content)?;
            }
            Message::Note(note) => {
                let member = self.swim.members().any(|member| member.id().node == note.node);
                let known = self.notes.get(&note.node);
                if member && known.is_none_or(|known| note.age() > known.age()) {
                    self.notes.insert(note.node, note);
                }
            }
            Message::Ask => self.send_note(from),
        }
        Ok(())
    }

    /// Does what the handles want. True: it is over.
    fn obey(&mut self) -> bool {
        let now = clock::boot_time();
        let wanted = {
            let mut wanted = self.shared.wanted.lock();
            let announce = std::mem::take(&mut wanted.announce);
            Wanted {
                draining: wanted.draining,
                incarnation: wanted.incarnation.take(),
                known: wanted.known.take(),
                revision: wanted.revision,
                announce,
                leave: wanted.leave,
                stop: wanted.stop,
            }
        };
        if let Some(incarnation) = wanted.incarnation {
            self.swim.renew(now, incarnation.0);
            self.announce();
        }
        if wanted.draining != self.meta.draining {
            self.meta.draining = wanted.draining;
            self.step += 1;
            self.note_rounds = NOTE_ROUNDS;
            self.send_note_to_all();
        }
        if wanted.known.is_some() {
            self.known = wanted.known;
        }
        if wanted.revision > self.swim.revision() {
            self.swim.broadcast(now, wanted.revision);
        }
        for address in wanted.announce {
            self.swim.announce(now, address);
            if self.remembered.len() < MEMBERS_KEPT_MAX {
                self.remembered.insert(address);
            }
        }
        if wanted.leave {
            self.swim.leave(now);
            self.flush();
        }
        wanted.leave || wanted.stop
    }

    /// Tells seeds of this node, and those who are not active but were once, some at a time.
    fn announce(&mut self) {
        let now = clock::boot_time();
        let active: HashSet<_> = self.swim.active().map(|id| id.addr).collect();
        let away: Vec<_> =
            self.remembered.iter().filter(|address| !active.contains(address)).copied().collect();
        let some = away.len().min(MEMBERS_ANNOUNCE_AT_ONCE_MAX);
        for address in away.iter().cycle().skip(self.announced).take(some) {
            self.swim.announce(now, *address);
        }
        self.announced = if away.is_empty() { 0 } else { (self.announced + some) % away.len() };
        if !self.resolving && !self.seeds.is_empty() {
            self.resolving = true;
            let (seeds, resolved) = (self.seeds.clone(), self.resolved.0.clone());
            tokio::spawn(async move {
                let mut addresses = Vec::new();
                for seed in seeds {
                    // A name that does not resolve now may do so in five seconds.
                    if let Ok(found) = tokio::net::lookup_host(seed.as_str()).await {
                        addresses.extend(found.take(MEMBERS_KEPT_MAX));
                    }
                }
                let _ended = resolved.send(addresses).await;
            });
        }
    }

    fn reconcile(&mut self) {
        let members: HashSet<_> = self.swim.members().map(|member| member.id().node).collect();
        self.notes.retain(|node, _| members.contains(node));
        let lacking: Vec<_> =
            self.swim.active().filter(|id| self.note_of(id).is_none()).map(|id| id.addr).collect();
        for address in lacking {
            self.send(address, &Message::Ask);
        }
        if self.note_rounds > 0 {
            self.note_rounds -= 1;
            self.send_note_to_all();
        }
    }

    /// The note of just this life of the node.
    fn note_of(&self, id: &Identity) -> Option<&Note> {
        self.notes.get(&id.node).filter(|note| (note.incarnation, note.bump) == id.age())
    }

    fn send_note_to_all(&mut self) {
        let addresses: Vec<_> = self.swim.active().map(|id| id.addr).collect();
        for address in addresses {
            self.send_note(address);
        }
    }

    fn send_note(&mut self, to: SocketAddr) {
        let me = self.swim.me();
        let note = Note {
            node: me.node,
            incarnation: me.incarnation,
            bump: me.bump,
            step: self.step,
            meta: self.meta.clone(),
        };
        self.send(to, &Message::Note(note));
    }

    fn flush(&mut self) {
        for (to, message) in self.swim.outgoing() {
            self.send(to, &Message::Swim(&message));
        }
        let joined: BTreeSet<_> = self.swim.joined().iter().map(|id| id.addr).collect();
        for address in joined {
            self.send_note(address);
        }
    }

    fn send(&mut self, to: SocketAddr, message: &Message<'_>) {
        let Some(packet) = self.sealer.seal(&message.encode()) else { return };
        if let Err(error) = self.sender.send_to(&packet, to)
            && error.kind() != io::ErrorKind::WouldBlock
        {
            self.complain("send", &format!("gossip to {to} could not be sent: {error}"));
        }
    }

    /// Publishes what has changed.
    fn refresh(&mut self) {
        self.swim.resize();
        let revision = self.swim.revision();
        if revision > 0 {
            let hint = Some(Hint::Revision(revision));
            self.shared.hint.send_if_modified(|known| std::mem::replace(known, hint) != hint);
        }
        let mut newest: BTreeMap<NodeId, &foca::Member<Identity>> = BTreeMap::new();
        for member in self.swim.members() {
            let id = member.id();
            let unknown = self.known.as_ref().is_some_and(|known| !known.contains(&id.node));
            if unknown || id.node == self.swim.me().node {
                continue;
            }
            let kept = newest.entry(id.node).or_insert(member);
            if id.age() > kept.id().age() {
                *kept = member;
            }
        }
        let now = clock::now();
        let mut members = Vec::with_capacity(newest.len());
        let mut seen = HashMap::with_capacity(newest.len());
        let mut downs = Vec::new();
        for (node, member) in newest {
            let id = member.id();
            let state = match member.state() {
                foca::State::Alive => MemberState::Alive,
                foca::State::Suspect => MemberState::Suspect,
                foca::State::Down => MemberState::Down,
            };
            let before = self.seen.get(&node).filter(|(age, ..)| *age == id.age());
            let since = match before {
                Some((_, same, since)) if *same == state => *since,
                _ => {
                    if state != MemberState::Alive {
                        downs.push(node);
                    }
                    now
                }
            };
            seen.insert(node, (id.age(), state, since));
            members.push(Member {
                node,
                addr: id.addr,
                incarnation: id.incarnation(),
                state,
                meta: self.note_of(id).map(|note| note.meta.clone()),
                since,
            });
        }
        self.seen = seen;
        self.publish(members, &downs);
    }

    fn publish(&mut self, members: Vec<Member>, downs: &[NodeId]) {
        let alive = members.iter().filter(|member| member.state == MemberState::Alive).count();
        self.metrics.members_alive.set(alive as i64 + 1);
        self.shared.members.send_if_modified(|known| {
            let news = **known != members;
            if news {
                *known = Arc::new(members);
            }
            news
        });
        if !downs.is_empty() {
            for receiver in self.shared.downs.lock().iter() {
                for node in downs {
                    // Whoever does not keep up looks at the store anyway.
                    let _full_or_gone = receiver.try_send(*node);
                }
            }
        }
    }

    /// Writes the addresses of active members down, not too often, and never that there are none.
    fn keep(&mut self) {
        let now = clock::now();
        if self.saved_at.is_some_and(|at| now.duration_since(at) < MEMBERS_KEEP_EVERY) {
            return;
        }
        let active: BTreeSet<_> = self.swim.active().map(|id| id.addr).collect();
        if active.is_empty() || active == self.saved {
            return;
        }
        self.saved_at = Some(now);
        self.remembered.extend(active.iter().copied());
        while self.remembered.len() > MEMBERS_KEPT_MAX {
            self.remembered.pop_first();
        }
        self.saved.clone_from(&active);
        let path = self.kept.clone();
        // Alone, because a disk may hang.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = kept::save(&path, &active) {
                tracing::warn!(path = %path.display(), %error, "members could not be written down");
            }
        });
    }

    /// Once in a minute for each kind of trouble.
    fn complain(&mut self, kind: &'static str, what: &str) {
        let now = clock::now();
        let last = self.complained.get(kind);
        if last.is_none_or(|last| now.duration_since(*last) >= GOSSIP_COMPLAIN_EVERY) {
            self.complained.insert(kind, now);
            tracing::warn!("{what}; more of the same is not logged for a minute");
        }
    }
}
