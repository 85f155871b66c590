//! Floor 7: where a command goes. To the entity in this process if its shard is held here, else over one
//! hop to the node that holds it; and if nobody does at the moment, it waits.
//!
//! What nodes know about owners may be old. Nothing depends on it: a node that does not hold a shard
//! changes nothing and says whom it takes for the owner, the higher epoch wins, and after two forwards the
//! store is asked. A node never forwards what was forwarded to it, so there are no loops.
//!
//! Commands of one connection are independent of each other here: there is no order among them.

mod body;
mod callers;
mod link;
mod messenger;
mod peers;
mod pipe;
mod refusals;
mod serve;
mod server;
pub mod tls;
mod waiting;
pub mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::cluster::routes::{Route, RouteTable};
use crate::entity::{CallError, Consistency, Entities, Origin, Request};
use crate::journal::Holdings;
use crate::registry::Registry;
use crate::router::waiting::{Rooms, Waiting};
use crate::router::wire::CallHeadRef;
use crate::words::clock::{self, Instant};
use crate::words::telemetry::ForwardLabels;
use crate::words::{Address, Code, Digest, Epoch, NodeId, Revision, Shard, Status, limits};

pub use callers::Callers;
pub use messenger::PeerMessenger;
pub use peers::{Answer, CallFailed, Peers};
pub use server::{AdminHandler, Follow, PeerService, TakeHandler, serve};

/// Cheap to clone.
#[derive(Clone)]
pub struct Router {
    entities: Entities,
    /// None on a node of its own.
    cluster: Option<Arc<Clustered>>,
}

struct Clustered {
    registry: Registry,
    holdings: Holdings,
    routes: RouteTable,
    peers: Peers,
    rooms: Rooms,
    /// When calls had the store asked last, in nanoseconds of [`clock::boot_time`].
    asked: AtomicU64,
}

/// What a look at a shard showed. While it stays so, there is no use in trying again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct View {
    route: Route,
    /// The epoch under which commands enter here.
    open: Option<Epoch>,
}

enum Next {
    Done(Result<Bytes, Status>),
    /// Somebody else is the owner.
    Follow,
    Wait,
    /// As [`Next::Wait`], but the command may have taken effect.
    Broken,
}

impl Router {
    /// Of a node that holds everything itself.
    pub fn local(entities: Entities) -> Self {
        Self { entities, cluster: None }
    }

    pub fn clustered(
        entities: Entities,
        registry: Registry,
        holdings: Holdings,
        routes: RouteTable,
        peers: Peers,
    ) -> Self {
        let rooms = Rooms::new(holdings.shards(), peers.metrics().clone());
        let asked = AtomicU64::new(0);
        let cluster = Clustered { registry, holdings, routes, peers, rooms, asked };
        Self { entities, cluster: Some(Arc::new(cluster)) }
    }

    /// Runs a command wherever its entity is, as [`Entities::call`] does. While the entity's shard has no
    /// owner, or moves, the command waits, until its deadline; RESOURCE_EXHAUSTED if too many wait.
    ///
    /// A command whose node broke off the connection may have taken effect. With an idempotency key it is
    /// sent again; without one the answer is UNKNOWN.
    pub async fn call(&self, mut request: Request) -> Result<Bytes, Status> {
        let Some(cluster) = &self.cluster else {
            return self.entities.call(request).await.map_err(CallError::into_status);
        };
        // A key that cannot be read fails here as it does there.
        let Ok(address) = self.entities.address(&request) else {
            return self.entities.call(request).await.map_err(CallError::into_status);
        };
        let mut has_broken = false;
        let result = self.route(cluster, &mut request, &address, &mut has_broken).await;
        match result {
            Err(status) if has_broken => Err(after_a_break(status)),
            result => result,
        }
    }

    /// `has_broken` becomes true once a try broke off whose fate nobody knows.
    async fn route(
        &self,
        cluster: &Clustered,
        request: &mut Request,
        address: &Address,
        has_broken: &mut bool,
    ) -> Result<Bytes, Status> {
        let shard = cluster.holdings.shard_of(address);
        let mut forwards = 0;
        loop {
            let seen = cluster.look(shard);
            match self.try_here(request, address, seen).await {
                Err(CallError::NotHere) => {}
                Err(CallError::Status(status)) => return Err(status),
                Ok(reply) => return Ok(reply),
            }
            if request.consistency == Consistency::Stale {
                return Box::pin(self.entities.stale(request)).await;
            }
            if let Some(owner) = seen.route.owner
                && owner != cluster.routes.me()
                && forwards < limits::FORWARDS_MAX
            {
                // Whatever becomes of it there, a receipt may exist from now on.
                request.fresh = None;
                match Box::pin(cluster.forward(owner, shard, seen.route, request, forwards)).await {
                    Next::Done(result) => return result,
                    Next::Follow => {
                        forwards += 1;
                        continue;
                    }
                    Next::Wait => {}
                    Next::Broken => *has_broken = true,
                }
            }
            let _waiting = cluster.enter(shard, request)?;
            cluster.ask_store();
            Box::pin(cluster.changed(shard, seen, request.deadline)).await?;
            forwards = 0;
        }
    }

    async fn try_here(
        &self,
        request: &Request,
        address: &Address,
        seen: View,
    ) -> Result<Bytes, CallError> {
        match seen.open {
            Some(_) => self.entities.deliver(request, address).await,
            None => Err(CallError::NotHere),
        }
    }
}

impl Clustered {
    fn look(&self, shard: Shard) -> View {
        let open = self.holdings.epoch(shard).filter(|_| !self.holdings.is_closing(shard));
        View { route: self.routes.route(shard), open }
    }

    fn enter(&self, shard: Shard, request: &Request) -> Result<Waiting, Status> {
        self.rooms.enter(shard, request.payload.len())
    }

    /// Has the store read, unless that was asked for just now.
    fn ask_store(&self) {
        let now = clock::boot_time().nanos();
        let asked = self.asked.load(Ordering::Relaxed);
        let due = asked.saturating_add(limits::STORE_ASKED_EVERY.as_nanos() as u64);
        if now >= due
            && self.asked.compare_exchange(asked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.routes.ask_store();
        }
    }

    /// Returns when a shard does not look any more as it did, or when it is time to try again all the
    /// same.
    async fn changed(&self, shard: Shard, seen: View, deadline: Instant) -> Result<(), Status> {
        let mut watch = self.routes.watch();
        let until = (clock::now() + limits::WAITING_LOOKS_EVERY).min(deadline);
        let changed = async { while self.look(shard) == seen && watch.changed().await.is_ok() {} };
        match tokio::time::timeout_at(until, changed).await {
            Err(_) if clock::now() >= deadline => Err(Status::deadline_exceeded(
                "the deadline passed while the entity's shard had no owner that could be reached; the \
                 command was not run",
            )),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What is live here, and which module of it the command is for.
    fn serving(&self, request: &Request) -> (Revision, Option<Digest>) {
        let live = self.registry.live();
        (live.revision, live.module_of(request.service.name.as_str()))
    }

    async fn forward(
        &self,
        owner: NodeId,
        shard: Shard,
        route: Route,
        request: &Request,
        hops: u32,
    ) -> Next {
        let Some(address) = self.routes.address(owner) else { return Next::Wait };
        let started = clock::now();
        let left = request.deadline.saturating_duration_since(started);
        let (revision, module) = self.serving(request);
        let head = CallHeadRef {
            service: request.service.name.as_str(),
            method: &request.method.name,
            shard: shard.0,
            epoch: route.epoch.0,
            deadline_ms: left.as_millis() as u64,
            request_id: &request.request_id,
            idempotency_key: request.idempotency_key.as_deref(),
            metadata: &request.metadata,
            consistency: request.consistency,
            hops,
            revision: revision.0,
            sender: self.routes.me(),
            trail: &request.trail,
            from_function: request.origin != Origin::Client,
            module,
        };
        let payload = request.payload.clone();
        let answer = self.peers.call(owner, address, &head, payload, request.deadline).await;
        let metrics = self.peers.metrics();
        metrics.forward_seconds.observe((clock::now() - started).as_secs_f64());
        let result = match &answer {
            Ok(Answer::Reply(_)) => "reply",
            Ok(Answer::Refused(_)) => "refused",
            Ok(Answer::NotMine(_)) => "not_mine",
            Err(failed) => failed.name(),
        };
        metrics.forwards.get_or_create(&ForwardLabels { result }).inc();
        match answer {
            Ok(Answer::Reply(reply)) => Next::Done(Ok(reply)),
            Ok(Answer::Refused(status)) => Next::Done(Err(status)),
            Ok(Answer::NotMine(told)) => {
                self.routes.learn(shard, told);
                match self.routes.route(shard) == route {
                    true => Next::Wait,
                    false => Next::Follow,
                }
            }
            Err(CallFailed::NotSent(_)) => Next::Wait,
            Err(CallFailed::Broken(reason)) => {
                tracing::debug!(owner = ?owner, reason, request_id = &*request.request_id, "a forwarded call broke off");
                match request.idempotency_key {
                    Some(_) => Next::Broken,
                    None => Next::Done(Err(outcome_unknown())),
                }
            }
            Err(CallFailed::Late) => Next::Done(Err(Status::deadline_exceeded(
                "the deadline passed before the entity's node had answered; the command may take effect, \
                 so retry it with an idempotency key",
            ))),
            Err(failed @ CallFailed::Busy) => Next::Done(Err(failed.into_status(owner))),
        }
    }
}

/// What a later try says about itself does not hold for the one that broke off. Only a turn knows: it has
/// looked for the command's receipt.
fn after_a_break(status: Status) -> Status {
    match status.code {
        Code::DeadlineExceeded => Status::deadline_exceeded(
            "the deadline passed after the connection to the entity's node broke while it ran the \
             command, which may take effect; retry it with the same idempotency key",
        ),
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted => outcome_unknown(),
        _ => status,
    }
}

fn outcome_unknown() -> Status {
    Status::new(
        Code::Unknown,
        "the connection to the entity's node broke while it ran the command, which may have taken \
         effect; retry it only with an idempotency key",
    )
}
