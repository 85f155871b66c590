//! Activation: from the journal to an instance.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::entity::CallError;
use crate::entity::actor::{Actor, Hot, Running};
use crate::entity::crash::{CrashReport, backoff};
use crate::entity::house::House;
use crate::journal::{Fence, Snapshot, StoreError};
use crate::kind::value;
use crate::registry::{Kind, Service};
use crate::wasm::{Failure, Instance};
use crate::words::clock::Instant;
use crate::words::telemetry::{CrashLabels, TypeLabels};
use crate::words::{Address, Message, Seq, Status, clock, limits};

/// Why there is no instance, and when to try again.
pub(super) struct Down {
    pub(super) error: CallError,
    pub(super) failures: u32,
    /// None: at once.
    pub(super) retry_at: Option<Instant>,
}

/// Why a fold did not give an instance.
#[derive(Debug, thiserror::Error)]
pub(super) enum FoldError {
    #[error("{0}")]
    Guest(#[from] Failure),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("event {expected} is missing")]
    Gap { expected: Seq },
    /// Of a value entity: the store has dropped the state that was asked for.
    #[error("the state {at} is not kept any more; the oldest one that is has the version {oldest}")]
    Forgotten { at: Seq, oldest: Seq },
}

pub(super) struct Folded {
    pub(super) instance: Instance,
    pub(super) seq: Seq,
    pub(super) replayed: u64,
    pub(super) memory_bytes_at_start: usize,
}

/// Makes an instance with all that is in the journal.
pub(super) async fn activate(running: &mut Running) -> Result<Box<Hot>, Down> {
    let house = running.house.clone();
    let actor = running.actor.clone();
    let started = clock::now();
    let live = house.registry.live();
    // Read before the journal is: what is loaded under an epoch is all that was stored before it.
    let shard = actor.shard;
    let Some(epoch) = house.journal.holdings().epoch(shard) else {
        let failures = running.failures();
        return Err(Down { error: CallError::NotHere, failures, retry_at: None });
    };
    let Some(service) = live.by_journal(&actor.address.journal).cloned() else {
        return Err(transient(
            running,
            Status::unimplemented("this entity's type is not deployed any more"),
        ));
    };
    // What is on its way to the journal must be seen by the fold. If it failed, that is its callers'
    // news: the journal tells what is true.
    if let Some(write) = running.last_write() {
        write.ended().await;
    }
    let _permit = house.activations.acquire().await.ok();
    let (share, evicted) = house.residents.admit();
    for (evicted, hot) in evicted {
        house.dropped(&evicted, *hot);
    }
    let Some(mut share) = share else {
        return Err(transient(
            running,
            Status::resource_exhausted(
                "the node has as many entities in memory as it may, and all are busy; try again later",
            ),
        ));
    };
    let folded = match fold(&house, &service, &actor.address, None).await {
        Ok(folded) => folded,
        Err(error) => return Err(failed(running, &service, error)),
    };
    running.activated();
    house.crashes.recovered(&actor.address);
    let memory = folded.instance.memory_bytes();
    let grown = memory.saturating_sub(folded.memory_bytes_at_start);
    share.resize(limits::HOT_ENTITY_BYTES + grown);
    note_activation(&house, &actor, &service, &folded, started);
    Ok(Box::new(Hot {
        seq: folded.seq,
        fence: Fence { shard, epoch },
        memory_bytes_at_start: folded.memory_bytes_at_start,
        instance: folded.instance,
        service,
        generation: live.generation,
        last_write: None,
        pending_receipts: Vec::new(),
        share,
    }))
}

fn note_activation(
    house: &House,
    actor: &Arc<Actor>,
    service: &Service,
    folded: &Folded,
    started: Instant,
) {
    actor.seq.store(folded.seq.0, Ordering::Relaxed);
    actor.memory_bytes.store(folded.instance.memory_bytes(), Ordering::Relaxed);
    *actor.used_at.lock() = clock::now();
    house.residents.enter(actor, service.passivate_after);
    let labels = TypeLabels { service: service.name.to_arc() };
    let metrics = &house.metrics;
    metrics.activations.get_or_create(&labels).inc();
    metrics.replayed_events.get_or_create(&labels).inc_by(folded.replayed);
    metrics
        .activation_seconds
        .get_or_create(&labels)
        .observe((clock::now() - started).as_secs_f64());
    tracing::debug!(
        address = %actor.address, seq = %folded.seq, replayed = folded.replayed, "activated"
    );
}

fn transient(running: &Running, status: Status) -> Down {
    Down { error: status.into(), failures: running.failures(), retry_at: None }
}

/// Records a failed activation, and says when to try again.
fn failed(running: &Running, service: &Service, error: FoldError) -> Down {
    let address = &running.actor.address;
    let failure = match error {
        FoldError::Guest(Failure::NoRoom { reason }) => {
            tracing::warn!(%address, reason, "no room to activate an entity");
            return transient(
                running,
                Status::unavailable("the node has no room for another instance; try again later"),
            );
        }
        FoldError::Guest(failure) => failure,
        FoldError::Store(
            error @ (StoreError::Read { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Poisoned { .. }),
        ) => {
            tracing::error!(%address, %error, "cannot activate an entity");
            return transient(
                running,
                Status::unavailable("the journal cannot be read; a retry is safe"),
            );
        }
        FoldError::Store(error) => {
            tracing::error!(%address, %error, "an entity's journal is damaged");
            return damaged(running, &error.to_string());
        }
        // Only of a version that was asked for.
        error @ FoldError::Forgotten { .. } => return damaged(running, &error.to_string()),
        FoldError::Gap { expected } => {
            tracing::error!(%address, %expected, "an entity's journal has a gap");
            return damaged(running, &format!("event {expected} is missing"));
        }
    };
    let failures = running.failures() + 1;
    let wait = backoff(failures);
    let report = CrashReport {
        consecutive: failures,
        retry_at_ms: Some(clock::unix_ms() + wait.as_millis() as u64),
        ..CrashReport::of(&failure, "activation".into())
    };
    let name = service.name.to_arc();
    if let Some(left_out) = running.house.crashes.warnings.tell(&name, clock::now()) {
        tracing::warn!(
            %address, what = report.what, reason = report.reason, failures, ?wait, left_out,
            "an entity could not be activated"
        );
    }
    let labels = CrashLabels { service: name, what: report.what };
    running.house.metrics.crashes.get_or_create(&labels).inc();
    let status = Status::unavailable(format!(
        "the entity cannot be activated ({}, {} times in a row); the next try is within {} ms, and \
         `stead entity get` shows why",
        report.what,
        failures,
        wait.as_millis()
    ));
    running.house.crashes.record(address, report);
    Down { error: status.into(), failures, retry_at: Some(clock::now() + wait) }
}

fn damaged(running: &Running, reason: &str) -> Down {
    let failures = running.failures() + 1;
    let wait = backoff(failures);
    let report = CrashReport {
        consecutive: failures,
        retry_at_ms: Some(clock::unix_ms() + wait.as_millis() as u64),
        ..CrashReport::of(
            &Failure::Refused { what: "journal", reason: reason.to_owned() },
            "activation".into(),
        )
    };
    running.house.crashes.record(&running.actor.address, report);
    let status = Status::data_loss("the entity's journal is damaged; restore it from a backup");
    Down { error: status.into(), failures, retry_at: Some(clock::now() + wait) }
}

/// Folds an entity's events up to and including `at` (all, if none) in a fresh instance.
///
/// A snapshot that the guest cannot read, or over which it crashes, is left aside: the events alone
/// give the same state.
pub(super) async fn fold(
    house: &House,
    service: &Arc<Service>,
    address: &Address,
    at: Option<Seq>,
) -> Result<Folded, FoldError> {
    if service.kind == Kind::Value {
        return restore_value(house, service, address, at).await;
    }
    let loaded = house.journal.load(address, at).await?;
    let until = at.unwrap_or(loaded.seq).min(loaded.seq);
    let mut fresh = Folded::nothing(service, address)?;
    if let Some(Snapshot { seq, state }) = loaded.snapshot {
        match fresh.instance.restore(&state) {
            Ok(()) => fresh.seq = seq,
            Err(failure @ Failure::NoRoom { .. }) => return Err(failure.into()),
            Err(failure) => {
                let warnings = &house.crashes.warnings;
                if let Some(left_out) = warnings.tell(&service.name.to_arc(), clock::now()) {
                    tracing::warn!(
                        %address, %seq, %failure, left_out,
                        "the snapshot cannot be read by this module; replaying every event"
                    );
                }
                fresh = Folded::nothing(service, address)?;
            }
        }
    }
    replay(house, address, &mut fresh, until).await?;
    Ok(fresh)
}

/// The state of a value entity is its newest event, or the one at `at`.
async fn restore_value(
    house: &House,
    service: &Arc<Service>,
    address: &Address,
    at: Option<Seq>,
) -> Result<Folded, FoldError> {
    let (seq, state) = value_at(house, address, at).await?;
    let mut fresh = Folded::nothing(service, address)?;
    if let Some(state) = state {
        fresh.instance.restore(&state)?;
        fresh.replayed = 1;
    }
    fresh.seq = seq;
    Ok(fresh)
}

/// The version of a value entity at `at` (its newest, if none or later), and the state.
pub(super) async fn value_at(
    house: &House,
    address: &Address,
    at: Option<Seq>,
) -> Result<(Seq, Option<Message>), FoldError> {
    for _ in 0..limits::VALUE_READS_MAX {
        let newest = house.journal.load(address, at).await?.seq;
        let seq = at.unwrap_or(newest).min(newest);
        if seq == Seq::ZERO {
            return Ok((seq, None));
        }
        let page = house.journal.events(address, seq, 1, limits::REPLAY_BATCH_BYTES).await?;
        match page.events.into_iter().next() {
            Some(stored) if stored.seq == seq => {
                return Ok((seq, value::state(&stored.event).cloned()));
            }
            Some(stored) if seq < newest => {
                return Err(FoldError::Forgotten { at: seq, oldest: stored.seq });
            }
            // It was the newest until another node replaced it, just now.
            Some(_) => {}
            None => return Err(FoldError::Gap { expected: seq }),
        }
    }
    let reason = "the entity's state is replaced faster than it can be read".into();
    Err(StoreError::Read { reason }.into())
}

impl Folded {
    fn nothing(service: &Service, address: &Address) -> Result<Self, Failure> {
        let name = service.name.as_str();
        let component = &service.module.component;
        let instance = component.instantiate(name, address.id.as_str(), service.limits)?;
        let memory_bytes_at_start = instance.memory_bytes();
        Ok(Self { instance, seq: Seq::ZERO, replayed: 0, memory_bytes_at_start })
    }
}

/// Applies the events up to and including `until`.
async fn replay(
    house: &House,
    address: &Address,
    folded: &mut Folded,
    until: Seq,
) -> Result<(), FoldError> {
    let mut batch: Vec<Message> = Vec::new();
    while folded.seq < until {
        let next = folded.seq.plus(1);
        let page = house
            .journal
            .events(address, next, limits::REPLAY_BATCH_EVENTS, limits::REPLAY_BATCH_BYTES)
            .await?;
        batch.clear();
        for stored in page.events {
            if folded.seq == until {
                break;
            }
            let expected = folded.seq.plus(1);
            if stored.seq != expected {
                return Err(FoldError::Gap { expected });
            }
            folded.seq = expected;
            batch.push(stored.event);
        }
        if batch.is_empty() {
            return Err(FoldError::Gap { expected: next });
        }
        folded.instance.apply(&batch)?;
        folded.replayed += batch.len() as u64;
    }
    Ok(())
}
