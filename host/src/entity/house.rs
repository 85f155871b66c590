//! The house: every entity of this node.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::entity::actor::{Actor, Answer, Hot, Offer, Said, Task};
use crate::entity::crash::{CrashReport, Crashes};
use crate::entity::outbox::{self, Outbox};
use crate::entity::residents::Residents;
use crate::entity::timers::{self, Timers};
use crate::entity::{CallError, Caller, Consistency, EntitiesConfig, HotEntity, Origin, Request};
use crate::journal::{AppendError, Commit, EffectId, Fence, Holdings, Journal};
use crate::registry::{KeyError, Registry};
use crate::words::telemetry::{Metrics, TypeLabels};
use crate::words::{Address, Code, Epoch, JournalName, Seq, Shard, Status, clock, limits};

/// Every entity of this node. Cheap to clone.
#[derive(Clone)]
pub struct Entities {
    pub(super) house: Arc<House>,
}

/// Does not keep the entities alive.
#[derive(Clone)]
pub struct WeakEntities(Weak<House>);

impl WeakEntities {
    pub fn upgrade(&self) -> Option<Entities> {
        self.0.upgrade().map(|house| Entities { house })
    }
}

pub(super) struct House {
    pub(super) registry: Registry,
    pub(super) journal: Journal,
    pub(super) holdings: Holdings,
    pub(super) metrics: Metrics,
    pub(super) crashes: Crashes,
    pub(super) residents: Arc<Residents>,
    pub(super) activations: Semaphore,
    pub(super) caller: OnceLock<Arc<dyn Caller>>,
    pub(super) outbox: Outbox,
    pub(super) timers: Timers,
    /// Nanoseconds of the clock at the start, stepped with each effect.
    effect_ids: AtomicU64,
    /// By shard.
    actors: Vec<Mutex<HashMap<Address, Arc<Actor>>>>,
    seeds: AtomicU64,
    in_flight: AtomicUsize,
    bytes_in_flight: AtomicUsize,
    draining: AtomicBool,
    empty: Notify,
}

impl Entities {
    /// Starts the tasks that passivate idle entities and switch them to new modules.
    pub fn new(
        registry: Registry,
        journal: Journal,
        metrics: Metrics,
        config: EntitiesConfig,
    ) -> Self {
        let holdings = journal.holdings().clone();
        let house = Arc::new(House {
            outbox: Outbox::new(&config, metrics.clone()),
            timers: Timers::new(config.timers_in_memory_max, metrics.clone()),
            caller: OnceLock::new(),
            effect_ids: AtomicU64::new(clock::unix_ms().saturating_mul(1_000_000)),
            residents: Residents::new(config, metrics.clone()),
            registry,
            journal,
            metrics,
            crashes: Crashes::default(),
            activations: Semaphore::new(limits::ACTIVATIONS_AT_ONCE_MAX),
            actors: (0..holdings.shards()).map(|_| Mutex::default()).collect(),
            seeds: AtomicU64::new(RandomState::new().hash_one(clock::unix_ms())),
            holdings,
            in_flight: AtomicUsize::new(0),
            bytes_in_flight: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            empty: Notify::new(),
        });
        tokio::spawn(passivate_idle(Arc::downgrade(&house)));
        outbox::start(&house);
        timers::start(&house);
        tokio::spawn(follow_deployments(Arc::downgrade(&house), house.registry.watch()));
        Self { house }
    }

    /// Runs a command and returns the serialized reply once everything that it saw is durable.
    ///
    /// Dropping the future does not undo anything: a command that is running or queued for the
    /// journal takes effect, one that still waits for its turn is skipped.
    ///
    /// [`CallError::NotHere`] means that the command changed nothing, and is not counted.
    pub async fn call(&self, request: Request) -> Result<Bytes, CallError> {
        match self.address(&request) {
            Ok(address) => self.deliver(&request, &address).await,
            Err(status) => self.counted(&request, clock::now(), Err(status.into())),
        }
    }

    /// The same for a caller who keeps the request to route it again, and who has the entity's address
    /// from [`address`](Self::address).
    pub async fn deliver(&self, request: &Request, address: &Address) -> Result<Bytes, CallError> {
        let started = clock::now();
        let result = self.house.call(request, address).await;
        self.counted(request, started, result)
    }

    pub fn downgrade(&self) -> WeakEntities {
        WeakEntities(Arc::downgrade(&self.house))
    }

    /// Which entity a command is for.
    pub fn address(&self, request: &Request) -> Result<Address, Status> {
        address(request)
    }

    pub(super) fn counted(
        &self,
        request: &Request,
        started: clock::Instant,
        result: Result<Bytes, CallError>,
    ) -> Result<Bytes, CallError> {
        let code = match &result {
            Ok(_) => Code::Ok,
            Err(CallError::Status(status)) => status.code,
            Err(CallError::NotHere) => return result,
        };
        let method = &request.method;
        method
            .metrics
            .get_or_init(|| {
                self.house.metrics.command(&request.service.name.to_arc(), &method.name)
            })
            .answered(code, clock::now() - started);
        result
    }

    /// Hot entities in the order of their addresses, after `after`.
    pub fn hot(
        &self,
        journal: Option<&JournalName>,
        id_prefix: &str,
        after: Option<&Address>,
        limit: usize,
    ) -> Vec<HotEntity> {
        let mut found: Vec<Arc<Actor>> = Vec::new();
        for shard in &self.house.actors {
            let shard = shard.lock();
            found.extend(
                shard
                    .values()
                    .filter(|actor| {
                        let address = &actor.address;
                        journal.is_none_or(|journal| address.journal == *journal)
                            && address.id.as_str().starts_with(id_prefix)
                            && after.is_none_or(|after| address > after)
                    })
                    .cloned(),
            );
        }
        found.sort_unstable_by(|a, b| a.address.cmp(&b.address));
        found
            .iter()
            .filter(|actor| actor.is_hot())
            .take(limit)
            .map(|actor| describe(actor))
            .collect()
    }

    pub fn hot_one(&self, address: &Address) -> Option<HotEntity> {
        let actor = self.house.find(address)?;
        actor.is_hot().then(|| describe(&actor))
    }

    pub fn hot_count(&self) -> usize {
        self.house.residents.count()
    }

    pub fn crash(&self, address: &Address) -> Option<CrashReport> {
        self.house.crashes.get(address)
    }

    /// Drops the instance; if a turn runs, once it has ended. False if it was not hot.
    pub async fn passivate(&self, address: &Address) -> bool {
        let Some(actor) = self.house.find(address) else { return false };
        if let Some(write) = actor.pending_write() {
            // Whether it was stored is its caller's news.
            write.ended().await;
        }
        if let Some(hot) = actor.evict(None) {
            self.house.dropped(&actor, *hot);
            return true;
        }
        let hot = actor.is_hot();
        actor.retire();
        hot
    }

    /// Refuses new commands with UNAVAILABLE, lets queued ones end, and returns when all have been
    /// answered, which they are not before their writes are durable. Effects and timers stay in the store,
    /// but for those that a command waits for.
    pub async fn drain(&self) {
        self.house.draining.store(true, Ordering::SeqCst);
        self.house.outbox.stop();
        loop {
            let empty = self.house.empty.notified();
            if self.house.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            empty.await;
        }
    }
}

fn address(request: &Request) -> Result<Address, Status> {
    let Some(key) = &request.method.key else {
        let path = &request.method.path;
        return Err(Status::internal(format!("{path} is not a method of an entity")));
    };
    let id = key.read(&request.payload).map_err(|error| key_status(&error))?;
    Ok(Address { journal: request.service.journal.clone(), id })
}

fn describe(actor: &Actor) -> HotEntity {
    HotEntity {
        journal: actor.address.journal.clone(),
        id: actor.address.id.clone(),
        seq: Seq(actor.seq.load(Ordering::Relaxed)),
        memory_bytes: actor.memory_bytes.load(Ordering::Relaxed),
        idle: clock::now() - *actor.used_at.lock(),
        queued: actor.queued(),
    }
}

impl House {
    async fn call(
        self: &Arc<Self>,
        request: &Request,
        address: &Address,
    ) -> Result<Bytes, CallError> {
        let bytes = request.payload.len();
        let mut guest = self.admit(bytes, &request.origin)?;
        let epoch = guest.enter(self.holdings.shard_of(address))?;
        if request.consistency == Consistency::Leased && !self.holdings.lease_holds() {
            return Err(lease_ended().into());
        }
        let guest = Arc::new(guest);
        let task = Task::Command(request);
        let answer = match self.actor_turn(task, address, &guest, epoch)? {
            Turn::Over(answer) => answer,
            Turn::Waits(answer) => self.wait_for(answer, request.deadline).await?,
        };
        let Answer { result, hold, seen, awaited } = answer;
        if let Some(commit) = hold {
            durable(&commit, request.deadline).await?;
        }
        if let Some(fence) = seen {
            self.confirm(fence, request.consistency).await?;
        }
        match result? {
            Said::Reply(reply) if awaited.is_empty() => Ok(reply),
            said => {
                // The shard may leave while the command waits elsewhere. It still counts.
                let _stays = self.count_in(bytes);
                drop(guest);
                Box::pin(self.elsewhere(said, awaited, request)).await
            }
        }
    }

    /// As [`Entities::deliver`].
    pub(super) async fn deliver(
        self: &Arc<Self>,
        request: &Request,
        address: &Address,
    ) -> Result<Bytes, CallError> {
        Entities { house: self.clone() }.deliver(request, address).await
    }

    /// What is left to do for a command that is durable: its synchronous effects, and its forward.
    async fn elsewhere(
        self: &Arc<Self>,
        said: Said,
        awaited: Vec<tokio::sync::oneshot::Receiver<()>>,
        request: &Request,
    ) -> Result<Bytes, CallError> {
        for effect in awaited {
            // One that ends untried stays in the outbox, as one that failed does.
            let ended = tokio::time::timeout_at(request.deadline, effect).await;
            ended.map(drop).map_err(|_| {
                Status::deadline_exceeded(
                    "the deadline passed before the command's effects had ended; the command took \
                     effect, and its effects will",
                )
            })?;
        }
        match said {
            Said::Reply(reply) => Ok(reply),
            Said::Forward(call) => self.forward(*call, request).await,
        }
    }

    /// Fires a timer of an entity whose shard is held here. Returns when its command is durable.
    pub(super) async fn fire(
        self: &Arc<Self>,
        due: &crate::journal::DueTimer,
        deadline: clock::Instant,
    ) -> Result<(), CallError> {
        let mut guest = self.admit(0, &Origin::Function)?;
        let epoch = guest.enter(due.shard)?;
        let guest = Arc::new(guest);
        let task = Task::Timer(due);
        let answer = match self.actor_turn(task, &due.address, &guest, epoch)? {
            Turn::Over(answer) => answer,
            Turn::Waits(answer) => self.wait_for(answer, deadline).await?,
        };
        if let Some(commit) = answer.hold {
            durable(&commit, deadline).await?;
        }
        answer.result.map(drop)
    }

    fn actor_turn(
        self: &Arc<Self>,
        task: Task<'_>,
        address: &Address,
        guest: &Arc<Guest>,
        epoch: Epoch,
    ) -> Result<Turn, Status> {
        let live = self.registry.live().generation;
        loop {
            match self.actor(address).offer(self, task, guest, live, epoch) {
                Offer::Run(mut running) => {
                    let Task::Command(request) = task else {
                        return Err(Status::internal("a timer without a turn of its own"));
                    };
                    return Ok(Turn::Over(running.turn(request)));
                }
                Offer::Queued(answer) => return Ok(Turn::Waits(answer)),
                Offer::Refused(status) => return Err(status),
                Offer::Gone => {}
            }
        }
    }

    /// Whether an answer from memory may leave: nobody else can have written what it did not see.
    async fn confirm(&self, fence: Fence, consistency: Consistency) -> Result<(), CallError> {
        if self.holdings.is_alone() || consistency == Consistency::Stale {
            return Ok(());
        }
        // The lease may be that of a later life of this node, in which the shard is not ours.
        if self.holdings.epoch(fence.shard) != Some(fence.epoch) {
            return Err(CallError::NotHere);
        }
        match consistency {
            Consistency::Leased if self.holdings.lease_holds() => Ok(()),
            Consistency::Leased => Err(lease_ended().into()),
            Consistency::Fenced | Consistency::Stale => match self.journal.fenced(&[fence]).await {
                Ok(fenced) if fenced.is_empty() => Ok(()),
                Ok(_) => {
                    self.holdings.lose(fence.shard, fence.epoch);
                    Err(CallError::NotHere)
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot confirm an epoch");
                    Err(Status::unavailable(
                        "the store cannot be asked who owns the entity; a retry is safe",
                    )
                    .into())
                }
            },
        }
    }

    async fn wait_for(
        &self,
        answer: tokio::sync::oneshot::Receiver<Answer>,
        deadline: clock::Instant,
    ) -> Result<Answer, Status> {
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) if self.draining.load(Ordering::SeqCst) => {
                Err(Status::unavailable("the node is stopping; a retry is safe"))
            }
            Ok(Err(_)) => Err(Status::new(
                Code::Unknown,
                "the node failed while it ran the command, which may have taken effect; retry it \
                 only with an idempotency key",
            )),
            Err(_) => Err(Status::deadline_exceeded(
                "the deadline passed before the command had its turn; it is skipped unless it is \
                 running already",
            )),
        }
    }

    /// Counts a command in, within the bounds of the house.
    pub(super) fn admit(self: &Arc<Self>, bytes: usize, origin: &Origin) -> Result<Guest, Status> {
        let guest = self.count_in(bytes);
        // What a function asks for is part of a command that was admitted before.
        if *origin == Origin::Client && self.is_draining() {
            return Err(Status::unavailable("the node is stopping; a retry is safe"));
        }
        if self.in_flight.load(Ordering::SeqCst) > limits::COMMANDS_IN_FLIGHT_MAX
            || self.bytes_in_flight.load(Ordering::Relaxed) > limits::COMMAND_BYTES_IN_FLIGHT_MAX
        {
            return Err(Status::resource_exhausted(
                "the node has as many commands in hand as it may; try again later",
            ));
        }
        Ok(guest)
    }

    fn count_in(self: &Arc<Self>, bytes: usize) -> Guest {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.bytes_in_flight.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.commands_in_flight.inc();
        Guest { house: self.clone(), bytes, shard: None }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Whether what belongs to a shard may be acted upon here.
    pub(super) fn serves(&self, fence: Fence) -> bool {
        self.holdings.epoch(fence.shard) == Some(fence.epoch)
            && !self.holdings.is_closing(fence.shard)
            && !self.is_draining()
    }

    /// The id of a new effect: they only go up.
    pub(super) fn effect_id(&self) -> EffectId {
        let now = clock::unix_ms().saturating_mul(1_000_000);
        self.effect_ids.fetch_max(now, Ordering::Relaxed);
        EffectId::new(self.effect_ids.fetch_add(1, Ordering::Relaxed), self.seed())
    }

    fn find(&self, address: &Address) -> Option<Arc<Actor>> {
        let Shard(shard) = self.holdings.shard_of(address);
        self.actors[shard as usize].lock().get(address).cloned()
    }

    pub(super) fn actor(&self, address: &Address) -> Arc<Actor> {
        let shard_no = self.holdings.shard_of(address);
        let mut shard = self.actors[shard_no.0 as usize].lock();
        if let Some(actor) = shard.get(address) {
            return actor.clone();
        }
        let actor = Arc::new(Actor::new(address.clone(), shard_no));
        shard.insert(address.clone(), actor.clone());
        actor
    }

    /// An instance was taken out of its actor: drops it and forgets the actor.
    pub(super) fn dropped(&self, actor: &Arc<Actor>, hot: Hot) {
        let service = hot.service.name.to_arc();
        drop(hot);
        self.metrics.passivations.get_or_create(&TypeLabels { service }).inc();
        self.forget(actor);
    }

    fn forget(&self, actor: &Arc<Actor>) {
        let mut shard = self.actors[actor.shard.0 as usize].lock();
        if actor.bury() {
            shard.remove(&actor.address);
        }
    }

    /// A fresh seed for a guest's randomness (SplitMix64, Steele et al. 2014).
    pub(super) fn seed(&self) -> u64 {
        let mut z = self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Those of one shard.
    pub(super) fn of(&self, shard: Shard) -> Vec<Arc<Actor>> {
        let actors = self.actors.get(shard.0 as usize);
        actors.map(|actors| actors.lock().values().cloned().collect()).unwrap_or_default()
    }

    fn all(&self) -> Vec<Arc<Actor>> {
        self.actors
            .iter()
            .flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>())
            .collect()
    }
}

enum Turn {
    Over(Answer),
    Waits(tokio::sync::oneshot::Receiver<Answer>),
}

/// Returns when a write is durable.
async fn durable(commit: &Commit, deadline: clock::Instant) -> Result<(), CallError> {
    let outcome = match commit.outcome() {
        Some(outcome) => outcome,
        None => tokio::time::timeout_at(deadline, commit.wait()).await.map_err(|_| {
            Status::deadline_exceeded(
                "the deadline passed before the journal had answered; the command may take effect, so \
                 retry it with an idempotency key",
            )
        })?,
    };
    outcome.map_err(|error| append_error(&error))
}

/// A command in the house.
pub(super) struct Guest {
    house: Arc<House>,
    bytes: usize,
    /// The shard that it has entered.
    shard: Option<Shard>,
}

impl Guest {
    fn enter(&mut self, shard: Shard) -> Result<Epoch, CallError> {
        let epoch = self.house.holdings.enter(shard).map_err(|_| CallError::NotHere)?;
        self.shard = Some(shard);
        Ok(epoch)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(shard) = self.shard {
            self.house.holdings.leave(shard);
        }
        self.house.bytes_in_flight.fetch_sub(self.bytes, Ordering::Relaxed);
        self.house.metrics.commands_in_flight.dec();
        if self.house.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.house.empty.notify_waiters();
        }
    }
}

/// Drops idle instances, and forgets actors that came to nothing.
async fn passivate_idle(house: std::sync::Weak<House>) {
    let mut tick = tokio::time::interval(limits::PASSIVATION_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks = 0_u64;
    loop {
        tick.tick().await;
        let Some(house) = house.upgrade() else { return };
        for (actor, hot) in house.residents.idle() {
            match hot {
                Some(hot) => house.dropped(&actor, *hot),
                None => house.forget(&actor),
            }
        }
        ticks += 1;
        if ticks.is_multiple_of(limits::FORGET_EVERY_TICKS) {
            for actor in house.all() {
                if !actor.is_hot() {
                    house.forget(&actor);
                }
            }
        }
    }
}

/// Drops idle instances whose module is not the live one any more. Busy ones follow by themselves,
/// before their next turn.
async fn follow_deployments(
    house: std::sync::Weak<House>,
    mut revision: tokio::sync::watch::Receiver<crate::words::Revision>,
) {
    while revision.changed().await.is_ok() {
        let Some(house) = house.upgrade() else { return };
        let live = house.registry.live();
        for actor in house.all() {
            let Some(service) = actor.service_at_rest() else { continue };
            let same = live
                .by_journal(&actor.address.journal)
                .is_some_and(|now| now.module.digest == service.module.digest);
            if !same && let Some(hot) = actor.evict(None) {
                house.dropped(&actor, *hot);
            }
        }
    }
}

fn key_status(error: &KeyError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn lease_ended() -> Status {
    Status::unavailable(
        "this node has lost touch with the store, so it does not know whether the entity is still its \
         own; a retry is safe",
    )
}

fn append_error(error: &AppendError) -> CallError {
    let status = match error {
        AppendError::Fenced => return CallError::NotHere,
        AppendError::Unavailable => Status::unavailable(
            "the journal's database cannot be reached; nothing was stored, and a retry is safe",
        ),
        AppendError::Conflict => Status::aborted(
            "a write that this answer depends on was not stored; nothing was changed, and a retry \
             is safe",
        ),
        AppendError::Full => Status::resource_exhausted(
            "the journal's disk is full; nothing was stored, and a retry is safe once there is space",
        ),
        AppendError::Busy => Status::resource_exhausted(
            "as many writes wait for the journal as may; nothing was stored, and a retry is safe",
        ),
        AppendError::Unknown { .. } => Status::new(
            Code::Unknown,
            "nobody can tell whether a write that this answer depends on was stored; the command \
             may have taken effect, so retry it only with its idempotency key",
        ),
        AppendError::Stopped { .. } => {
            Status::unavailable("the journal has stopped; nothing was stored, and a retry is safe")
        }
    };
    status.into()
}
