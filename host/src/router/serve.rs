//! A command that another node forwarded to this one.

use std::time::Duration;

use bytes::Bytes;

use crate::cluster::routes::Route;
use crate::entity::{CallError, Origin, Request};
use crate::registry::{Live, Registry};
use crate::router::server::Follow;
use crate::router::wire::{self, CallHead};
use crate::router::{Answer, Clustered, Router};
use crate::words::clock::{self, Instant};
use crate::words::{Address, Digest, Epoch, Revision, Shard, Status, Trail, limits};

impl Router {
    /// Runs a forwarded command here, or says who the owner is. Never forwards it again.
    ///
    /// Its future is kept small: what is not on the way of a plain call is boxed.
    pub(super) async fn receive(&self, call: Bytes, follow: &Follow) -> Answer {
        match self.run_forwarded(call, follow).await {
            Ok(answer) => answer,
            Err(status) => Answer::Refused(status),
        }
    }

    async fn run_forwarded(&self, call: Bytes, follow: &Follow) -> Result<Answer, Status> {
        let Some(cluster) = &self.cluster else {
            return Err(Status::unavailable("this node is no member of a cluster"));
        };
        let arrived = Arrived::read(call)?;
        let epoch = Epoch(arrived.head.epoch);
        if arrived.is_ahead_of(&cluster.registry.live()) {
            Box::pin(arrived.catch_up(&cluster.registry, follow)).await?;
        }
        let request = cluster.request(*arrived)?;
        let address = self.entities.address(&request)?;
        // The sender's own idea of the shard does not count.
        let shard = cluster.holdings.shard_of(&address);
        self.run_here(cluster, &request, &address, shard, epoch).await
    }

    async fn run_here(
        &self,
        cluster: &Clustered,
        request: &Request,
        address: &Address,
        shard: Shard,
        epoch: Epoch,
    ) -> Result<Answer, Status> {
        let mut asked = false;
        let patience = (clock::now() + limits::FORWARDED_WAIT_MAX).min(request.deadline);
        loop {
            let seen = cluster.look(shard);
            match self.try_here(request, address, seen).await {
                Ok(reply) => return Ok(Answer::Reply(reply)),
                Err(CallError::Status(status)) => return Err(status),
                Err(CallError::NotHere) => {}
            }
            let Route { owner, epoch: known } = seen.route;
            let elsewhere = owner.is_some_and(|owner| owner != cluster.routes.me());
            // The sender knows less; or nothing new has come.
            if (elsewhere && known > epoch) || clock::now() >= patience {
                return Ok(Answer::NotMine(cluster.routes.route(shard)));
            }
            // Shown a higher epoch, or without an owner to name, it reads before it refuses; once, for
            // the epoch may be made up.
            let _waiting = cluster.enter(shard, request)?;
            if !std::mem::replace(&mut asked, true) {
                cluster.ask_store();
            }
            if Box::pin(cluster.changed(shard, seen, patience)).await.is_err() {
                return Ok(Answer::NotMine(cluster.routes.route(shard)));
            }
        }
    }
}

/// A command as it came.
struct Arrived {
    head: CallHead,
    payload: Bytes,
    deadline: Instant,
}

impl Arrived {
    fn read(call: Bytes) -> Result<Box<Self>, Status> {
        let (head, payload) = wire::unframe::<CallHead>(call)?;
        wire::understood(head.protocol)?;
        let left = Duration::from_millis(head.deadline_ms).min(limits::CALL_DEADLINE_MAX);
        Ok(Box::new(Self { head, payload, deadline: clock::now() + left }))
    }

    /// Whether the sender may have a newer module of the service. A service that has not changed does not
    /// wait for others to be compiled.
    fn is_ahead_of(&self, live: &Live) -> bool {
        let is_same = |here: Digest| self.head.module.as_deref() == Some(&here.0[..]);
        live.revision < Revision(self.head.revision)
            && !live.module_of(&self.head.service).is_some_and(is_same)
    }

    /// Has the sender's module made live here.
    async fn catch_up(&self, registry: &Registry, follow: &Follow) -> Result<(), Status> {
        let caught_up = async {
            tokio::select! {
                // First, for it knows why nothing is going to change.
                biased;
                followed = follow(Revision(self.head.revision)) => followed,
                () = self.until_level(registry) => Ok(()),
            }
        };
        tokio::time::timeout_at(self.deadline, caught_up).await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "the deadline passed while the node followed a deployment; the command was not run",
            ))
        })
    }

    /// Returns once the sender is not ahead any more: what it has may come before the newest revision does.
    async fn until_level(&self, registry: &Registry) {
        let mut revisions = registry.watch();
        while self.is_ahead_of(&registry.live()) && revisions.changed().await.is_ok() {}
    }
}

impl Clustered {
    fn request(&self, Arrived { head, payload, deadline }: Arrived) -> Result<Request, Status> {
        let live = self.registry.live();
        let Some((service, method)) = live.method(&head.service, &head.method) else {
            return Err(Status::unimplemented(format!(
                "{}/{} is not deployed (any more)",
                head.service, head.method
            )));
        };
        let metadata = head.metadata.into_iter();
        Ok(Request {
            service: service.clone(),
            method: method.clone(),
            payload,
            metadata: metadata.map(|entry| (entry.name, entry.value)).collect(),
            idempotency_key: head.idempotency_key,
            deadline,
            request_id: head.request_id.into(),
            consistency: wire::consistency_of(head.consistency),
            trail: Trail::of(head.functions.unwrap_or_default(), head.through),
            origin: match head.from_function {
                Some(true) => Origin::Function,
                Some(false) | None => Origin::Client,
            },
            fresh: None,
        })
    }
}
