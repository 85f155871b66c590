//! A turn: one command on one instance, from the guest's answer to the journal's queue.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::entity::actor::{Answer, Hot, Running, Said};
use crate::entity::crash::CrashReport;
use crate::entity::receipts::{self, PendingReceipt};
use crate::entity::{CallError, Origin, OutCall, Request, outbox, timers};
use crate::journal::{NewEffect, StoredCall, Write};
use crate::kind::{self, Before, Decision, Effect, Violation};
use crate::wasm::{self, Command, Failure, Outcome, Rejection};
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
        // Under another epoch, the step is on its way once more, and that one's result counts.
        if let Origin::Result(_, fence) = request.origin
            && fence != hot.fence
        {
            let (hold, seen) = (None, None);
            return End::Alive(Answer {
                result: Err(CallError::NotHere),
                hold,
                seen,
                awaited: Vec::new(),
            });
        }
        let now_ms = clock::unix_ms();
        let command = Command {
            method: request.method.name.clone(),
            payload: request.payload.clone(),
            metadata: request.metadata.clone(),
            id: self.command_id(request),
            now_ms,
            seed: self.house.seed(),
        };
        let outcome = match hot.instance.handle(&command) {
            Err(failure) => return End::Spent(self.crashed(hot, request, failure)),
            Ok(Err(rejection)) => return self.rejected(hot, request, rejection, now_ms),
            Ok(Ok(outcome)) => outcome,
        };
        let decision = match decide(outcome, hot, now_ms) {
            Ok(decision) => decision,
            Err(violation) => {
                let failure = Failure::Malformed { reason: format!("it asked for {violation}") };
                return End::Spent(self.crashed(hot, request, failure));
            }
        };
        let empty = Bytes::new();
        let reply = match &decision.answer {
            wasm::Answer::Reply(reply) => Some(reply),
            wasm::Answer::None => Some(&empty),
            // Its target's reply is as that function says.
            wasm::Answer::Forward(_) => None,
        };
        if let Some(reply) = reply
            && !matches!(request.origin, Origin::Result(..))
            && let Err(reason) = request.method.response.check(reply)
        {
            let failure = Failure::Malformed { reason };
            return End::Spent(self.crashed(hot, request, failure));
        }
        let fired = matches!(request.origin, Origin::Timer(_));
        if !decision.changes_something() && !fired {
            return End::Alive(from_memory(hot, Ok(self.said(request, decision.answer))));
        }
        self.persist(hot, request, decision, now_ms)
    }

    /// Stable for a command that comes again.
    fn command_id(&self, request: &Request) -> String {
        if let Origin::Timer(row) = &request.origin {
            return format!("timer-{}-{}", hex::encode(row.timer.token), row.timer.due_ms);
        }
        let key = request.idempotency_key.as_deref();
        key.map_or_else(
            || format!("{:016x}", self.house.seed()),
            |key| key.trim_start_matches('\u{1}').to_owned(),
        )
    }

    /// Nothing of a rejected command is kept; but a timer that fired has fired.
    fn rejected(&self, hot: &mut Hot, request: &Request, rejection: Rejection, now_ms: u64) -> End {
        let status = Status::from(rejection);
        let Origin::Timer(row) = &request.origin else {
            return End::Alive(from_memory(hot, Err(status)));
        };
        tracing::warn!(
            address = %self.actor.address, timer = row.name, method = &*request.method.name, %status,
            request_id = &*request.request_id, "the command of a timer was rejected"
        );
        let nothing = Decision {
            answer: wasm::Answer::None,
            events: Vec::new(),
            seq: hot.seq,
            snapshot_due: false,
            forget_before: None,
            effects: Vec::new(),
            timers: Vec::new(),
        };
        self.persist(hot, request, nothing, now_ms)
    }

    fn said(&self, request: &Request, answer: wasm::Answer) -> Said {
        match answer {
            wasm::Answer::Reply(reply) => Said::Reply(reply),
            wasm::Answer::None => Said::Reply(Bytes::new()),
            wasm::Answer::Forward(call) => {
                Said::Forward(Box::new(OutCall::forward(call, request, &self.actor.address)))
            }
        }
    }

    fn persist(&self, hot: &mut Hot, request: &Request, decision: Decision, now_ms: u64) -> End {
        let (snapshot, spent) = match decision.snapshot_due {
            true => self.snapshot(hot, request),
            false => (None, false),
        };
        let receipt = receipts::issue(request, &decision.answer, now_ms);
        let effects: Vec<_> = decision
            .effects
            .into_iter()
            .map(|effect| self.effect(effect, request, now_ms))
            .collect();
        let timers = timers::changes(&self.house, &request.origin, decision.timers, now_ms);
        let result_of = match request.origin {
            Origin::Result(id, _) => Some(id),
            Origin::Client | Origin::Function | Origin::Timer(_) => None,
        };
        let commit = self.house.journal.append(Write {
            events: decision.events,
            snapshot,
            receipt: receipt.clone(),
            effects: effects.iter().map(|(effect, _)| effect.clone()).collect(),
            result_of,
            timers: timers.clone(),
            forget_before: decision.forget_before,
            ..Write::new(self.actor.address.clone(), hot.fence, hot.seq, now_ms)
        });
        if let Some(receipt) = receipt {
            hot.pending_receipts.push(PendingReceipt::new(receipt, commit.clone()));
        }
        hot.seq = decision.seq;
        hot.last_write = Some(commit.clone());
        let refused = matches!(commit.outcome(), Some(Err(_)));
        let mut awaited = Vec::new();
        // A write that was refused at once must not hide the ones before it, which the next activation
        // has to wait for.
        if !refused {
            self.note_write(&commit);
            self.house.timers.note(hot.fence.shard, &self.actor.address, &timers, now_ms);
            if !effects.is_empty() {
                let source = self.actor.address.clone();
                awaited = outbox::take(&self.house, hot.fence, source, effects, commit.clone());
            }
        }
        self.actor.seq.store(hot.seq.0, Ordering::Relaxed);
        let result = Ok(self.said(request, decision.answer));
        let answer = Answer { result, hold: Some(commit), seen: None, awaited };
        if spent { End::Spent(answer) } else { End::Alive(answer) }
    }

    /// As it is stored, and whether the answer waits for it.
    fn effect(&self, effect: Effect, request: &Request, now_ms: u64) -> (NewEffect, bool) {
        let Effect { call, synchronous, timeout, key, result_to } = effect;
        let trail = request.trail.through(&request.method.path);
        let call = StoredCall {
            service: call.service,
            method: call.method,
            payload: call.payload,
            metadata: outbox::with_key(call.metadata, key),
            hops: trail.hops(),
            through: trail.names().iter().map(|name| name.to_string()).collect(),
            timeout_ms: timeout.as_millis() as u64,
            result_to,
            request_id: request.request_id.to_string(),
            created_ms: now_ms,
        };
        (NewEffect { id: self.house.effect_id(), call }, synchronous)
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
        let status = failure.to_status(|| {
            format!(
                "the entity crashed while it handled {}; nothing was changed, and `stead entity get` \
                 shows why",
                request.method.name
            )
        });
        from_memory(hot, Err(status))
    }

    fn report(&self, hot: &Hot, request: &Request, failure: &Failure) {
        let report = CrashReport::of(failure, format!("handle {}", request.method.name));
        self.record(hot, report, &request.request_id);
    }

    fn record(&self, hot: &Hot, report: CrashReport, request_id: &str) {
        let service = hot.service.name.to_arc();
        if let Some(left_out) = self.house.crashes.warnings.tell(&service, clock::now()) {
            tracing::warn!(
                address = %self.actor.address, what = report.what, during = report.during,
                reason = report.reason, request_id, left_out, "entity crashed"
            );
        }
        let labels = CrashLabels { service, what: report.what };
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
fn from_memory(hot: &Hot, result: Result<Said, Status>) -> Answer {
    let result = result.map_err(CallError::from);
    Answer { result, hold: hot.last_write.clone(), seen: Some(hot.fence), awaited: Vec::new() }
}

fn decide(outcome: Outcome, hot: &Hot, now_ms: u64) -> Result<Decision, Violation> {
    let service = &hot.service;
    let before = Before {
        kind: service.kind,
        seq: hot.seq,
        snapshot_every: service.snapshot_every,
        history: service.history,
        now_ms,
        has_method: &|method| service.methods.contains_key(method),
    };
    kind::decide(outcome, &before)
}
