//! The actor of one entity: its mailbox, and its instance between turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::entity::house::{Guest, House};
use crate::entity::receipts::{self, PendingReceipt};
use crate::entity::residents::Share;
use crate::entity::work;
use crate::entity::{CallError, OutCall, Request};
use crate::journal::{Commit, DueTimer, Fence};
use crate::registry::Service;
use crate::wasm::Instance;
use crate::words::clock::Instant;
use crate::words::{Address, Epoch, Seq, Shard, Status, clock, limits};

/// An entity in memory. Found through the house; removed from it only while it is at rest, cold and
/// has no write on its way.
pub(super) struct Actor {
    pub(super) address: Address,
    pub(super) shard: Shard,
    inner: Mutex<Inner>,
    // What operators and the eviction look at without disturbing a turn.
    pub(super) seq: AtomicU64,
    pub(super) memory_bytes: AtomicUsize,
    pub(super) used_at: Mutex<Instant>,
    pub(super) place: Place,
}

/// Where the residents keep track of the actor: at most once in each list.
#[derive(Default)]
pub(super) struct Place {
    pub(super) in_ring: AtomicBool,
    pub(super) scheduled: AtomicBool,
    pub(super) passivate_after_ms: AtomicU64,
}

struct Inner {
    phase: Phase,
    queue: VecDeque<Envelope>,
    /// The newest write of the entity. Outlives the instance: the next activation waits for it.
    last_write: Option<Commit>,
    /// Somebody wants the instance dropped after the turn that runs.
    retire: bool,
}

enum Phase {
    /// No instance. After failed activations, none is tried before `retry_at`.
    Cold { failures: u32, retry_at: Option<(Instant, Status)> },
    /// At rest, with an instance.
    Ready(Box<Hot>),
    /// A [`Running`] has the instance, or is making one.
    Busy { failures: u32 },
    /// Removed from the house: look there again.
    Gone,
}

const COLD: Phase = Phase::Cold { failures: 0, retry_at: None };

/// The instance and what it knows of itself.
pub(super) struct Hot {
    pub(super) instance: Instance,
    pub(super) service: Arc<Service>,
    /// The newest generation of what is live that `service` is known to be part of.
    pub(super) generation: u64,
    pub(super) seq: Seq,
    /// The shard, and the epoch under which it was held when the entity was loaded.
    pub(super) fence: Fence,
    pub(super) last_write: Option<Commit>,
    pub(super) pending_receipts: Vec<PendingReceipt>,
    /// Linear memory right after it was instantiated: mostly untouched pages.
    pub(super) memory_bytes_at_start: usize,
    /// Its share of the house's account, given back when it is dropped.
    pub(super) share: Share,
}

impl Hot {
    /// Whether a write that this instance has applied was not stored: its state is wrong.
    pub(super) fn is_spoilt(&self) -> bool {
        self.last_write.as_ref().is_some_and(|commit| matches!(commit.outcome(), Some(Err(_))))
    }
}

/// What is offered to an actor.
#[derive(Clone, Copy)]
pub(super) enum Task<'a> {
    Command(&'a Request),
    Timer(&'a DueTimer),
}

/// What waits in a mailbox.
pub(super) enum Job {
    Command(Request),
    /// What its command is, its turn reads from the store.
    Timer(DueTimer),
}

pub(super) struct Envelope {
    pub(super) job: Job,
    /// It counts for as long as it waits, even if its caller goes away.
    _guest: Arc<Guest>,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What a turn says, and the write that must be durable before it may be said.
pub(super) struct Answer {
    pub(super) result: Result<Said, CallError>,
    pub(super) hold: Option<Commit>,
    /// If it tells what was in memory and stored nothing: the fence that must still stand when it leaves.
    pub(super) seen: Option<Fence>,
    /// Synchronous effects: each ends when it was tried once.
    pub(super) awaited: Vec<oneshot::Receiver<()>>,
}

pub(super) enum Said {
    Reply(Bytes),
    /// Another function answers.
    Forward(Box<OutCall>),
}

impl From<CallError> for Answer {
    fn from(error: CallError) -> Self {
        Self::of(Err(error), None)
    }
}

impl Answer {
    pub(super) fn of(result: Result<Said, CallError>, hold: Option<Commit>) -> Self {
        Self { result, hold, seen: None, awaited: Vec::new() }
    }
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        CallError::from(status).into()
    }
}

/// What became of a command that was offered to an actor.
pub(super) enum Offer {
    /// The entity was at rest: the caller runs the turn itself.
    Run(Running),
    /// The answer comes through here.
    Queued(oneshot::Receiver<Answer>),
    Refused(Status),
    /// Look the actor up again.
    Gone,
}

impl Actor {
    pub(super) fn new(address: Address, shard: Shard) -> Self {
        Self {
            address,
            shard,
            inner: Mutex::new(Inner {
                phase: COLD,
                queue: VecDeque::new(),
                last_write: None,
                retire: false,
            }),
            seq: AtomicU64::new(0),
            memory_bytes: AtomicUsize::new(0),
            used_at: Mutex::new(clock::now()),
            place: Place::default(),
        }
    }

    /// Takes a command in. `live` is the generation of what is live, `epoch` the one under which the shard is held.
    pub(super) fn offer(
        self: &Arc<Self>,
        house: &Arc<House>,
        task: Task<'_>,
        guest: &Arc<Guest>,
        live: u64,
        epoch: Epoch,
    ) -> Offer {
        let mut inner = self.inner.lock();
        let failures = match &inner.phase {
            Phase::Gone => return Offer::Gone,
            Phase::Busy { .. } if inner.queue.len() >= limits::MAILBOX_COMMANDS_MAX => {
                return Offer::Refused(Status::resource_exhausted(format!(
                    "{} commands are waiting for this entity already; try again later",
                    limits::MAILBOX_COMMANDS_MAX
                )));
            }
            Phase::Busy { .. } => return Offer::Queued(inner.enqueue(task, guest)),
            Phase::Cold { retry_at: Some((at, status)), .. } if clock::now() < *at => {
                return Offer::Refused(status.clone());
            }
            Phase::Cold { failures, .. } => *failures,
            Phase::Ready(_) => 0,
        };
        let phase = std::mem::replace(&mut inner.phase, Phase::Busy { failures });
        let mut running = Running::new(self.clone(), house.clone());
        if let Phase::Ready(hot) = phase {
            // The caller can run the turn itself only if nothing in it has to wait.
            let at_once = task.needs_no_reading(house)
                && hot.generation == live
                && hot.fence.epoch == epoch
                && !inner.retire
                && !hot.is_spoilt();
            running.hot = Some(hot);
            if at_once {
                return Offer::Run(running);
            }
        }
        let answer = inner.enqueue(task, guest);
        drop(inner);
        running.spawn();
        Offer::Queued(answer)
    }

    /// The right to load the entity, if it is cold and does not back off.
    pub(super) fn load(self: &Arc<Self>, house: &Arc<House>) -> Option<Running> {
        let mut inner = self.inner.lock();
        if !matches!(inner.phase, Phase::Cold { retry_at: None, .. }) {
            return None;
        }
        inner.phase = Phase::Busy { failures: 0 };
        let mut running = Running::new(self.clone(), house.clone());
        running.in_task = true;
        Some(running)
    }

    /// How many commands wait.
    pub(super) fn queued(&self) -> usize {
        self.inner.lock().queue.len()
    }

    pub(super) fn is_hot(&self) -> bool {
        match self.inner.lock().phase {
            Phase::Ready(_) | Phase::Busy { .. } => true,
            Phase::Cold { .. } | Phase::Gone => false,
        }
    }

    /// The service of the instance, if the entity is at rest.
    pub(super) fn service_at_rest(&self) -> Option<Arc<Service>> {
        match &self.inner.lock().phase {
            Phase::Ready(hot) => Some(hot.service.clone()),
            Phase::Cold { .. } | Phase::Busy { .. } | Phase::Gone => None,
        }
    }

    /// The newest write, unless it and all before it are known to have ended.
    pub(super) fn pending_write(&self) -> Option<Commit> {
        let inner = self.inner.lock();
        inner.last_write.clone().filter(|commit| !commit.has_ended())
    }

    /// Takes the instance out, if the entity is at rest, has not been used after `idle_since`, and
    /// its writes have ended. A busy entity is left alone.
    pub(super) fn evict(&self, idle_since: Option<Instant>) -> Option<Box<Hot>> {
        let mut inner = self.inner.lock();
        let used = idle_since.is_some_and(|since| *self.used_at.lock() > since);
        if used || !inner.writes_ended() {
            return None;
        }
        match std::mem::replace(&mut inner.phase, COLD) {
            Phase::Ready(hot) => {
                inner.retire = false;
                inner.last_write = None;
                Some(hot)
            }
            other @ (Phase::Cold { .. } | Phase::Busy { .. } | Phase::Gone) => {
                inner.phase = other;
                None
            }
        }
    }

    /// Asks for the instance to be dropped before the next turn.
    pub(super) fn retire(&self) {
        let mut inner = self.inner.lock();
        inner.retire = matches!(inner.phase, Phase::Busy { .. } | Phase::Ready(_));
    }

    /// Makes the actor unusable if it is cold and does not back off, so that the house may forget it.
    pub(super) fn bury(&self) -> bool {
        let mut inner = self.inner.lock();
        let at_peace = match &inner.phase {
            Phase::Cold { retry_at, .. } => {
                // The number of failures is remembered for as long as the longest wait.
                retry_at
                    .as_ref()
                    .is_none_or(|(at, _)| *at + limits::ACTIVATION_BACKOFF_MAX <= clock::now())
            }
            Phase::Ready(_) | Phase::Busy { .. } | Phase::Gone => false,
        };
        if at_peace && inner.writes_ended() {
            inner.phase = Phase::Gone;
            return true;
        }
        false
    }
}

impl Task<'_> {
    /// Whether its turn needs nothing from the store: no receipt, and no timer.
    fn needs_no_reading(self, house: &House) -> bool {
        match self {
            Task::Command(request) => receipts::is_new(house, request),
            Task::Timer(_) => false,
        }
    }

    fn job(self) -> Job {
        match self {
            Task::Command(request) => Job::Command(request.clone()),
            Task::Timer(due) => Job::Timer(due.clone()),
        }
    }
}

impl Inner {
    fn enqueue(&mut self, task: Task<'_>, guest: &Arc<Guest>) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let (job, guest) = (task.job(), guest.clone());
        self.queue.push_back(Envelope { job, _guest: guest, answer });
        receiver
    }

    fn writes_ended(&self) -> bool {
        self.last_write.as_ref().is_none_or(Commit::has_ended)
    }
}

/// The right to run an entity's turns. Exactly one exists while the actor is busy. When a call drops
/// it, the instance is put to rest, or, if commands wait, both go to a task of their own.
pub(super) struct Running {
    pub(super) actor: Arc<Actor>,
    pub(super) house: Arc<House>,
    pub(super) hot: Option<Box<Hot>>,
    /// Held by a task that works through the mailbox, not by a call.
    in_task: bool,
    ended: bool,
}

impl Running {
    fn new(actor: Arc<Actor>, house: Arc<House>) -> Self {
        Self { actor, house, hot: None, in_task: false, ended: false }
    }

    /// Hands the right to a task that works through the mailbox.
    fn spawn(mut self) {
        self.in_task = true;
        tokio::spawn(work::work(self));
    }

    /// The next command. None: the mailbox was empty, and the right has ended.
    pub(super) fn next(&mut self) -> Option<Envelope> {
        let actor = self.actor.clone();
        let mut inner = actor.inner.lock();
        let next = inner.queue.pop_front();
        if next.is_none() {
            self.rest(&mut inner);
        }
        next
    }

    /// Whether the instance shall be dropped before the next turn.
    pub(super) fn take_retire(&self) -> bool {
        std::mem::take(&mut self.actor.inner.lock().retire)
    }

    pub(super) fn last_write(&self) -> Option<Commit> {
        self.actor.inner.lock().last_write.clone()
    }

    pub(super) fn note_write(&self, commit: &Commit) {
        self.actor.inner.lock().last_write = Some(commit.clone());
    }

    /// Activations that failed in a row before this one.
    pub(super) fn failures(&self) -> u32 {
        match self.actor.inner.lock().phase {
            Phase::Busy { failures } | Phase::Cold { failures, .. } => failures,
            Phase::Ready(_) | Phase::Gone => 0,
        }
    }

    pub(super) fn activated(&self) {
        if let Phase::Busy { failures } = &mut self.actor.inner.lock().phase {
            *failures = 0;
        }
    }

    /// No instance can be made: answers everything that waits with `error`, and everything that
    /// comes before `retry_at`.
    pub(super) fn give_up(mut self, failures: u32, retry_at: Option<Instant>, error: &CallError) {
        self.ended = true;
        let waiting = {
            let mut inner = self.actor.inner.lock();
            let retry_at = retry_at.map(|at| (at, error.clone().into_status()));
            inner.phase = Phase::Cold { failures, retry_at };
            inner.retire = false;
            std::mem::take(&mut inner.queue)
        };
        for envelope in waiting {
            // A caller that went away wants no answer.
            let _ = envelope.answer.send(error.clone().into());
        }
    }

    fn rest(&mut self, inner: &mut Inner) {
        self.ended = true;
        // An instance that is to be dropped stays here, and goes when the lock is free again.
        let retire = std::mem::take(&mut inner.retire);
        let hot = if retire { None } else { self.hot.take() };
        inner.phase = hot.map_or(COLD, Phase::Ready);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if std::thread::panicking() {
            self.hot = None;
        }
        let actor = self.actor.clone();
        let mut inner = actor.inner.lock();
        if self.in_task {
            // Its task was cancelled: the node stops, and has no other task for what waits. The
            // callers are told when their envelopes are dropped, after the lock.
            let _waiting = std::mem::take(&mut inner.queue);
            self.rest(&mut inner);
            drop(inner);
        } else if inner.queue.is_empty() {
            self.rest(&mut inner);
        } else {
            drop(inner);
            let mut running = Running::new(self.actor.clone(), self.house.clone());
            running.hot = self.hot.take();
            running.spawn();
        }
    }
}
