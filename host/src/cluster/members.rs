//! Who seems to be a member of the cluster, and who seems to be gone: SWIM over UDP.
//!
//! It is a hint, and only that. Nothing here says who owns what: the store does. A wrong "down" costs a look
//! at the store; a lost one, some seconds.
//!
//! All of it runs in a thread of its own, so that work for guests cannot delay the answer to a probe.
//! Packets are sealed with the cluster key ([`packet`]); the protocol itself does no I/O ([`swim`]).

pub mod identity;

pub mod swim;

pub mod note;

pub mod packet;

mod kept;

mod agent;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

pub use crate::cluster::members::note::Meta;
use crate::words::clock::Instant;
use crate::words::config::Secret;
use crate::words::limits::{
    MEMBER_HINTS_MAX, MEMBERS_ANNOUNCED_MAX, MEMBERS_LEAVE_TIMEOUT, SWIM_ANNOUNCE_EVERY,
    SWIM_GOSSIP_EVERY, SWIM_PROBE_EVERY, SWIM_PROBE_RTT, SWIM_RECONCILE_EVERY, SWIM_SUSPICION,
};
use crate::words::telemetry::Metrics;
use crate::words::{Incarnation, NodeId};

pub struct MembersSetup {
    /// Bound already. Its port must be the one of `addr`, unless something forwards it.
    pub socket: UdpSocket,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Where the gossip of other nodes reaches this one.
    pub addr: SocketAddr,
    pub meta: Meta,
    pub key: Secret,
    /// Understood too. To replace a key: first give every node the new one here, then swap the two on every
    /// node, then take the old one away.
    pub key_previous: Option<Secret>,
    /// Packets of another cluster are not understood.
    pub cluster_id: [u8; 16],
    /// `host:port`. Names are resolved again at every announcement, to all their addresses.
    pub seeds: Vec<String>,
    /// Has the file `members`, which this keeps.
    pub data_dir: PathBuf,
    pub metrics: Metrics,
    pub timing: Timing,
}

/// Of the protocol. All nodes should have the same.
#[derive(Clone, Debug)]
pub struct Timing {
    /// How often one member is probed, and how long it has for its answer before others are asked to probe
    /// it too.
    pub probe: Duration,
    pub rtt: Duration,
    /// From suspect to down, in a cluster of up to ten; x log10 of the size above.
    pub suspicion: Duration,
    /// How often news are sent to three members, while there are any.
    pub gossip: Duration,
    /// How often seeds are told of this node.
    pub announce: Duration,
    /// How often notes that are missing are asked for.
    pub reconcile: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            probe: SWIM_PROBE_EVERY,
            rtt: SWIM_PROBE_RTT,
            suspicion: SWIM_SUSPICION,
            gossip: SWIM_GOSSIP_EVERY,
            announce: SWIM_ANNOUNCE_EVERY,
            reconcile: SWIM_RECONCILE_EVERY,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    Alive,
    /// Did not answer. It has a while to object.
    Suspect,
    /// Left, or did not object.
    Down,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    /// Of its gossip.
    pub addr: SocketAddr,
    pub incarnation: Incarnation,
    pub state: MemberState,
    /// None until its note has arrived.
    pub meta: Option<Meta>,
    /// When it came to be in this state, as seen here.
    pub since: Instant,
}

/// Something that other nodes may want to look up in the store sooner than they would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// There is a deployment with this revision.
    Revision(u64),
}

/// Cheap to clone. The thread ends, without leaving the cluster, when the last clone is dropped.
#[derive(Clone)]
pub struct Members(Arc<Handle>);

struct Handle(Arc<Shared>);

/// Between the handles and the thread.
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Notify,
    members: watch::Sender<Arc<Vec<Member>>>,
    hint: watch::Sender<Option<Hint>>,
    downs: Mutex<Vec<mpsc::Sender<NodeId>>>,
    ended: watch::Sender<bool>,
}

/// What the handles want of the thread; the newest counts.
#[derive(Default)]
struct Wanted {
    draining: bool,
    incarnation: Option<Incarnation>,
    known: Option<Arc<HashSet<NodeId>>>,
    revision: u64,
    announce: BTreeSet<SocketAddr>,
    leave: bool,
    stop: bool,
}

impl Members {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the operating system has no thread, no random bytes, or does not take the socket.
    pub fn start(setup: MembersSetup) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            wanted: Mutex::new(Wanted { draining: setup.meta.draining, ..Wanted::default() }),
            changed: Notify::new(),
            members: watch::Sender::default(),
            hint: watch::Sender::default(),
            downs: Mutex::default(),
            ended: watch::Sender::new(false),
        });
        agent::start(setup, shared.clone())?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// All other nodes that have been seen and that the store knows, by id.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.shared().members.subscribe()
    }

    /// Who was just found suspect or down: look at the store now. Ids get lost when 64 wait.
    pub fn downs(&self) -> mpsc::Receiver<NodeId> {
        let (sender, receiver) = mpsc::channel(MEMBER_HINTS_MAX);
        let mut downs = self.shared().downs.lock();
        downs.retain(|sender| !sender.is_closed());
        downs.push(sender);
        receiver
    }

    /// The newest hint that came from anybody, or was broadcast here.
    pub fn hints(&self) -> watch::Receiver<Option<Hint>> {
        self.shared().hint.subscribe()
    }

    /// Tells all members. May get lost.
    pub fn broadcast(&self, hint: Hint) {
        let Hint::Revision(revision) = hint;
        self.want(|wanted| wanted.revision = wanted.revision.max(revision));
    }

    /// Tells all members whether this node is about to go.
    pub fn set_state(&self, draining: bool) {
        self.want(|wanted| wanted.draining = draining);
    }

    /// The store has registered this node anew: the old incarnation is replaced.
    pub fn renew(&self, incarnation: Incarnation) {
        self.want(|wanted| wanted.incarnation = Some(incarnation));
    }

    /// Members with other ids are not shown any more. Before the first call all are.
    pub fn know(&self, ids: HashSet<NodeId>) {
        self.want(|wanted| wanted.known = Some(Arc::new(ids)));
    }

    /// There may be a member here: it is told of this node. Of many at once, 256 are remembered.
    pub fn announce(&self, addr: SocketAddr) {
        self.want(|wanted| {
            if wanted.announce.len() < MEMBERS_ANNOUNCED_MAX {
                wanted.announce.insert(addr);
            }
        });
    }

    /// Tells others that this node goes, and ends the thread. Returns when it has, or after a second.
    pub async fn leave(&self) {
        let mut ended = self.shared().ended.subscribe();
        self.want(|wanted| wanted.leave = true);
        let ended = ended.wait_for(|ended| *ended);
        let _late_or_gone = tokio::time::timeout(MEMBERS_LEAVE_TIMEOUT, ended).await;
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.shared().wanted.lock());
        self.shared().changed.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.wanted.lock().stop = true;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
