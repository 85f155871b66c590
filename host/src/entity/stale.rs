//! Reads that may be old: answered from the store by a node that does not hold the entity.

use bytes::Bytes;

use crate::entity::activation;
use crate::entity::house::Entities;
use crate::entity::inspect::fold_status;
use crate::entity::{CallError, Request};
use crate::kind::{self, Before};
use crate::wasm::{Answer, Command, Failure};
use crate::words::{Address, Status, clock};

impl Entities {
    /// Runs a command on a fresh instance with all that is in the store, and forgets the instance. It
    /// must not store anything, nor call other functions: a command that does fails with FAILED_PRECONDITION.
    ///
    /// Costs a replay each time. Nothing is kept in memory, and no shard needs to be held.
    pub async fn stale(&self, request: &Request) -> Result<Bytes, Status> {
        let started = clock::now();
        let result = self.run_stale(request).await.map_err(CallError::from);
        self.counted(request, started, result).map_err(CallError::into_status)
    }

    async fn run_stale(&self, request: &Request) -> Result<Bytes, Status> {
        let house = &self.house;
        let _guest = house.admit(request.payload.len(), &request.origin)?;
        let address = self.address(request)?;
        let fold = self.fold(request, &address);
        let mut folded =
            tokio::time::timeout_at(request.deadline, fold).await.map_err(|_| {
                Status::deadline_exceeded("the deadline passed before the entity was read")
            })??;
        let command = Command {
            method: request.method.name.clone(),
            payload: request.payload.clone(),
            metadata: request.metadata.clone(),
            id: format!("{:016x}", house.seed()),
            now_ms: clock::unix_ms(),
            seed: house.seed(),
        };
        let outcome = match folded.instance.handle(&command) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(rejection)) => return Err(rejection.into()),
            Err(failure) => return Err(self.crashed(request, &address, &failure)),
        };
        let malformed = |reason| self.crashed(request, &address, &Failure::Malformed { reason });
        let (method, service) = (&request.method, &request.service);
        let before = Before {
            kind: service.kind,
            seq: folded.seq,
            snapshot_every: service.snapshot_every,
            history: service.history,
            now_ms: command.now_ms,
            has_method: &|method| service.methods.contains_key(method),
        };
        let decision = kind::decide(outcome, &before)
            .map_err(|violation| malformed(format!("it asked for {violation}")))?;
        let reply = match &decision.answer {
            Answer::Reply(reply) => reply.clone(),
            Answer::None => Bytes::new(),
            Answer::Forward(_) => return Err(changes(&method.path)),
        };
        if decision.changes_something() {
            return Err(changes(&method.path));
        }
        method.response.check(&reply).map_err(malformed)?;
        Ok(reply)
    }

    async fn fold(
        &self,
        request: &Request,
        address: &Address,
    ) -> Result<activation::Folded, Status> {
        let _permit = self.house.activations.acquire().await.ok();
        activation::fold(&self.house, &request.service, address, None)
            .await
            .map_err(|error| fold_status(&error))
    }

    fn crashed(&self, request: &Request, address: &Address, failure: &Failure) -> Status {
        let warnings = &self.house.crashes.warnings;
        if let Some(left_out) = warnings.tell(&request.service.name.to_arc(), clock::now()) {
            tracing::warn!(
                %address, method = %request.method.path, reason = %failure,
                request_id = &*request.request_id, left_out, "an instance for a stale read crashed"
            );
        }
        failure.to_status(|| {
            let method = &request.method.name;
            format!("the entity crashed while it handled {method}; nothing was changed")
        })
    }
}

fn changes(path: &str) -> Status {
    Status::failed_precondition(format!(
        "{path} changes the entity or asks for other calls, which a stale read must not; call it without \
         stead-consistency: stale"
    ))
}
