//! What gossip tells the rest of a member, and the rest tells gossip. All of it hints.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cluster::members::{Hint, Member, MemberState, Members, MembersSetup};
use crate::cluster::{Cluster, Liveness};
use crate::node::member;
use crate::registry::Registry;
use crate::words::{NodeId, Revision, limits};

/// What gossip says of each node.
type LivenessOf = Arc<HashMap<NodeId, Liveness>>;

/// The ends that gossip feeds. The cluster has the others before there is any gossip.
pub struct Feeds {
    suspicions: mpsc::Sender<NodeId>,
    liveness: watch::Sender<LivenessOf>,
}

impl Feeds {
    pub fn new() -> (Self, mpsc::Receiver<NodeId>, watch::Receiver<LivenessOf>) {
        let (suspicions, suspected) = mpsc::channel(limits::MEMBER_HINTS_MAX);
        let (liveness, known) = watch::channel(LivenessOf::default());
        (Self { suspicions, liveness }, suspected, known)
    }
}

/// Gossip at work. Ends when dropped; [`leave`](Self::leave) says good-bye.
pub struct Gossip {
    members: Members,
    _tasks: JoinSet<()>,
}

impl Gossip {
    pub fn start(
        setup: MembersSetup,
        feeds: Feeds,
        cluster: &Cluster,
        registry: &Registry,
    ) -> std::io::Result<Self> {
        let members = Members::start(setup)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(suspect(members.downs(), feeds.suspicions));
        tasks.spawn(report(members.watch(), feeds.liveness));
        tasks.spawn(know(members.clone(), cluster.clone()));
        tasks.spawn(renew(members.clone(), cluster.clone()));
        tasks.spawn(tell_revisions(members.clone(), registry.clone()));
        tasks.spawn(hear_revisions(members.hints(), registry.clone()));
        Ok(Self { members, _tasks: tasks })
    }

    /// Tells the others that this node is about to go.
    pub fn drain(&self) {
        self.members.set_state(true);
    }

    pub async fn leave(self) {
        self.members.leave().await;
    }
}

async fn suspect(mut downs: mpsc::Receiver<NodeId>, suspicions: mpsc::Sender<NodeId>) {
    while let Some(node) = downs.recv().await {
        // A hint that finds no room is not missed: the store is looked at anyway.
        let _ = suspicions.try_send(node);
    }
}

async fn report(
    mut members: watch::Receiver<Arc<Vec<Member>>>,
    liveness: watch::Sender<LivenessOf>,
) {
    loop {
        let of = |member: &Member| match member.state {
            MemberState::Alive => (member.node, Liveness::Alive),
            MemberState::Suspect => (member.node, Liveness::Suspected),
            MemberState::Down => (member.node, Liveness::Down),
        };
        let known = members.borrow_and_update().iter().map(of).collect();
        liveness.send_replace(Arc::new(known));
        if members.changed().await.is_err() {
            return;
        }
    }
}

/// The nodes that the store knows are the members, and where they are told of this one.
async fn know(members: Members, cluster: Cluster) {
    let mut view = cluster.view();
    let mut nodes = None;
    loop {
        let seen = view.borrow_and_update().nodes.clone();
        let ids: Vec<_> = seen.iter().map(|row| (row.id, row.peer_addr)).collect();
        if !ids.is_empty() && nodes.as_ref() != Some(&ids) {
            members.know(ids.iter().map(|(id, _)| *id).collect());
            for (_, address) in ids.iter().filter(|(id, _)| *id != cluster.node()) {
                if let Some(address) = address {
                    members.announce(*address);
                }
            }
            nodes = Some(ids);
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

async fn renew(members: Members, cluster: Cluster) {
    let mut incarnation = cluster.incarnation();
    while incarnation.changed().await.is_ok() {
        let now = *incarnation.borrow_and_update();
        members.renew(now);
    }
}

async fn tell_revisions(members: Members, registry: Registry) {
    let mut revision = registry.watch();
    while revision.changed().await.is_ok() {
        let now = revision.borrow_and_update().0;
        members.broadcast(Hint::Revision(now));
    }
}

async fn hear_revisions(mut hints: watch::Receiver<Option<Hint>>, registry: Registry) {
    while hints.changed().await.is_ok() {
        let hint = *hints.borrow_and_update();
        if let Some(Hint::Revision(revision)) = hint {
            member::follow(&registry, Revision(revision)).await;
        }
    }
}
