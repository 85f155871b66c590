//! A turn: one command on one instance, from the guest's answer to the journal's queue.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::entity::actor::{Answer, Hot, Running};
use crate::entity::crash::CrashReport;
use crate::entity::receipts::{self, PendingReceipt};
use crate::entity::{CallError, Request};
use crate::journal::Write;
use crate::kind::event_sourced::{self, Decision, Violation};
use crate::wasm::{Command, Failure};
use crate::words::telemetry::{CrashLabels, TypeLabels};
use crate::words::{Message, Status, clock, limits};

/// What a turn means for the instance.
enum End {
    Alive(Answer),
    /// The instance is spent.
    Spent(Answer),
}

impl Running {
    /// Runs a command on the instance. Never waits. Afterwards there may be no instance any more.
    pub(super) fn turn(&mut self, request: &Request) -> Answer {
        let now = clock::now();
        *self.actor.used_at.lock() = now;
        if now >= request.deadline {
            return Status::deadline_exceeded(
                "the deadline passed while the command waited for its turn; it was not run",
            )
            .into();
        }
        let Some(mut hot) = self.hot.take() else {
            return Status::internal("the entity has no instance").into();
        };
        match self.run(&mut hot, request) {
            End::Alive(answer) => {
                self.account(&mut hot);
                self.hot = Some(hot);
                answer
            }
            End::Spent(answer) => answer,
        }
    }

    fn run(&self, hot: &mut Hot, request: &Request) -> End {
        let now_ms = clock::unix_ms();
        let command = Command {
            method: request.method.name.clone(),
            payload: request.payload.clone(),
            metadata: request.metadata.clone(),
            id: request
                .idempotency_key
                .clone()
                .unwrap_or_else(|| format!("{:016x}", self.house.seed())),
            now_ms,
            seed: self.house.seed(),
        };
        let outcome = match hot.instance.handle(&command) {
            Err(failure) => return End::Spent(self.crashed(hot, request, failure)),
            Ok(Err(rejection)) => {
                let mut status = Status::new(rejection.code, rejection.message);
                status.details = rejection.details;
                return End::Alive(from_memory(hot, Err(status)));
            }
            Ok(Ok(outcome)) => outcome,
        };
        let decision = match event_sourced::decide(outcome, hot.seq, hot.service.snapshot_every) {
            Ok(decision) => decision,
            Err(violation) => return End::Spent(self.violated(hot, request, violation)),
        };
        if let Err(reason) = request.method.response.check(&decision.reply) {
            let failure = Failure::Malformed { reason };
            return End::Spent(self.crashed(hot, request, failure));
        }
        if decision.events.is_empty() {
            return End::Alive(from_memory(hot, Ok(decision.reply)));
        }
        self.persist(hot, request, decision, now_ms)
    }

    fn persist(&self, hot: &mut Hot, request: &Request, decision: Decision, now_ms: u64) -> End {
        let (snapshot, spent) = match decision.snapshot_due {
            true => self.snapshot(hot, request),
            false => (None, false),
        };
        let receipt = receipts::issue(request, &decision.reply, now_ms);
        let commit = self.house.journal.append(Write {
            address: self.actor.address.clone(),
            fence: hot.fence,
            after: hot.seq,
            events: decision.events,
            snapshot,
            receipt: receipt.clone(),
            at_ms: now_ms,
            effects: Vec::new(),
            timers: Vec::new(),
            forget_before: None,
        });
        if let Some(receipt) = receipt {
            hot.pending_receipts.push(PendingReceipt::new(&receipt, commit.clone()));
        }
        hot.seq = decision.seq;
        hot.last_write = Some(commit.clone());
        // A write that was refused at once must not hide the ones before it, which the next activation
        // has to wait for.
        if !matches!(commit.outcome(), Some(Err(_))) {
            self.note_write(&commit);
        }
        self.actor.seq.store(hot.seq.0, Ordering::Relaxed);
        let answer = Answer { result: Ok(decision.reply), hold: Some(commit), seen: None };
        if spent { End::Spent(answer) } else { End::Alive(answer) }
    }

    /// The snapshot that is due, and whether the instance was lost over it. A command never fails
    /// because of its snapshot.
    fn snapshot(&self, hot: &mut Hot, request: &Request) -> (Option<Message>, bool) {
        let service = hot.service.name.to_arc();
        match hot.instance.snapshot() {
            Ok(Some(state)) if state.size() <= limits::SNAPSHOT_BYTES_MAX => {
                self.house.metrics.snapshots.get_or_create(&TypeLabels { service }).inc();
                (Some(state), false)
            }
            Ok(Some(state)) => {
                let bytes = state.size();
                tracing::warn!(
                    address = %self.actor.address, bytes, max = limits::SNAPSHOT_BYTES_MAX,
                    "the snapshot is too large to store; replays get longer"
                );
                (None, false)
            }
            Ok(None) => (None, false),
            Err(failure) => {
                let report = CrashReport::of(&failure, "snapshot".into());
                self.record(hot, report, &request.request_id);
                (None, true)
            }
        }
    }

    fn crashed(&self, hot: &Hot, request: &Request, failure: Failure) -> Answer {
        self.report(hot, request, &failure);
        let status = match failure {
            Failure::NoRoom { .. } => {
                Status::unavailable("the node has no room for this call; try again later")
            }
            Failure::Trap { .. }
            | Failure::Deadline { .. }
            | Failure::Memory { .. }
            | Failure::Malformed { .. }
            | Failure::Refused { .. } => Status::internal(format!(
                "the entity crashed while it handled {}; nothing was changed, and `stead entity get` \
                 shows why",
                request.method.name
            )),
        };
        from_memory(hot, Err(status))
    }

    /// The guest has applied its events already: this instance cannot go on.
    fn violated(&self, hot: &Hot, request: &Request, violation: Violation) -> Answer {
        let reason = format!("the guest asked for {violation}");
        self.report(hot, request, &Failure::Malformed { reason });
        let path = &request.method.path;
        let status =
            Status::unimplemented(format!("{path} asked for {violation}; nothing was changed"));
        from_memory(hot, Err(status))
    }

    fn report(&self, hot: &Hot, request: &Request, failure: &Failure) {
        let report = CrashReport::of(failure, format!("handle {}", request.method.name));
        self.record(hot, report, &request.request_id);
    }

    fn record(&self, hot: &Hot, report: CrashReport, request_id: &str) {
        tracing::warn!(
            address = %self.actor.address, what = report.what, during = report.during,
            reason = report.reason, request_id, "entity crashed"
        );
        let labels = CrashLabels { service: hot.service.name.to_arc(), what: report.what };
        self.house.metrics.crashes.get_or_create(&labels).inc();
        self.house.crashes.record(&self.actor.address, report);
    }

    fn account(&self, hot: &mut Hot) {
        let memory = hot.instance.memory_bytes();
        self.actor.memory_bytes.store(memory, Ordering::Relaxed);
        let grown = memory.saturating_sub(hot.memory_bytes_at_start);
        hot.share.resize(limits::HOT_ENTITY_BYTES + grown);
    }
}

/// An answer that stored nothing: it leaves once everything that it may have seen is durable.
fn from_memory(hot: &Hot, result: Result<Bytes, Status>) -> Answer {
    let result = result.map_err(CallError::from);
    Answer { result, hold: hot.last_write.clone(), seen: Some(hot.fence) }
}
