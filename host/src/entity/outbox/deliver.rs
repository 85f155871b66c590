//! From memory to the target, and back with what became of it.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::entity::calls::{effect_key, own_key, result_key};
use crate::entity::house::House;
use crate::entity::outbox::{Bundle, Outbox, Retry, Source, State, Waiting, Work, clip};
use crate::entity::{CallError, Consistency, Origin, OutCall, Request};
use crate::journal::{Chore, StoredCall, Task};
use crate::kind::{call::KEY, workflow};
use crate::words::telemetry::ResultLabels;
use crate::words::{Address, Code, Status, Trail, clock, limits};

/// What a try came to.
enum Tried {
    /// Definite: the target has answered, be it with a rejection.
    Ended(Result<Bytes, Status>),
    /// It may succeed another time.
    Failed(Status),
    /// Another node sees to it.
    NotOurs,
}

/// Puts effects behind those of their source. All of them are remembered already.
pub(super) fn enqueue(house: &Arc<House>, state: &mut State, bundle: Bundle) {
    // A command that is waited for by another one must not wait for what that one waits for.
    if bundle.is_nested() {
        tokio::spawn(start_bundle(house.clone(), bundle));
        return;
    }
    let address = bundle.source.clone();
    let source = state.sources.entry(address.clone()).or_default();
    source.bundles.push_back(bundle);
    if !std::mem::replace(&mut source.starting, true) {
        tokio::spawn(start_in_order(house.clone(), address));
    }
}

/// Starts the effects of a source, one after the other.
async fn start_in_order(house: Arc<House>, address: Address) {
    while let Some(bundle) = next_bundle(&house.outbox, &address) {
        start_bundle(house.clone(), bundle).await;
    }
}

async fn start_bundle(house: Arc<House>, bundle: Bundle) {
    if let Some(commit) = &bundle.commit
        && commit.wait().await.is_err()
    {
        house.outbox.forget(bundle.effects.iter().map(Waiting::past));
        return;
    }
    let is_nested = bundle.is_nested();
    for mut effect in bundle.effects {
        let Some(command) = effect.waited_for.take() else {
            start(&house, effect);
            continue;
        };
        if is_nested {
            deliver(&house, effect, true).await;
        } else {
            let (tried, waited) = oneshot::channel();
            effect.waited_for = Some(tried);
            start(&house, effect);
            // An error means that it stays in the outbox untried.
            let _ = waited.await;
        }
        // The command may have gone away.
        let _ = command.send(());
    }
}

impl Bundle {
    /// Whether its command is part of another one, and waits for effects.
    fn is_nested(&self) -> bool {
        self.effects.iter().any(|effect| effect.waited_for.is_some() && effect.call.hops > 1)
    }
}

fn next_bundle(outbox: &Outbox, address: &Address) -> Option<Bundle> {
    let mut state = outbox.state.lock();
    let source = state.sources.get_mut(address)?;
    let bundle = source.bundles.pop_front();
    if bundle.is_none() {
        source.starting = false;
        state.forget_if_idle(address);
    }
    bundle
}

impl State {
    fn forget_if_idle(&mut self, address: &Address) {
        let is_idle = |source: &Source| {
            !source.starting && source.bundles.is_empty() && source.lanes.is_empty()
        };
        if self.sources.get(address).is_some_and(is_idle) {
            self.sources.remove(address);
        }
    }
}

/// Puts an effect behind those of its source for the same target.
fn start(house: &Arc<House>, effect: Waiting) {
    if house.outbox.is_stopped() {
        return;
    }
    let target = target(house, &effect.call);
    let address = effect.source.clone();
    let mut state = house.outbox.state.lock();
    let source = state.sources.entry(address.clone()).or_default();
    if let Some(lane) = source.lanes.get_mut(&target) {
        lane.push_back(effect);
        return;
    }
    source.lanes.insert(target.clone(), [effect].into());
    drop(state);
    tokio::spawn(run_lane(house.clone(), address, target));
}

/// What effects must not overtake each other for: an entity, or else a service.
fn target(house: &House, call: &StoredCall) -> String {
    let live = house.registry.live();
    let method = live.method(&call.service, &call.method);
    let key = method.and_then(|(_, method)| method.key.as_ref()?.read(&call.payload).ok());
    match key {
        Some(id) => format!("{}\0{}", call.service, id.as_str()),
        None => call.service.clone(),
    }
}

async fn run_lane(house: Arc<House>, address: Address, target: String) {
    while let Some(effect) = next_in_lane(&house.outbox, &address, &target) {
        let is_waited_for = effect.waited_for.is_some();
        deliver(&house, effect, is_waited_for).await;
    }
}

fn next_in_lane(outbox: &Outbox, address: &Address, target: &str) -> Option<Waiting> {
    let mut state = outbox.state.lock();
    let source = state.sources.get_mut(address)?;
    let effect = source.lanes.get_mut(target).and_then(|lane| lane.pop_front());
    if effect.is_none() {
        source.lanes.remove(target);
        state.forget_if_idle(address);
    }
    effect
}

impl Outbox {
    fn of_service(&self, service: &str) -> Arc<Semaphore> {
        let most = limits::EFFECTS_AT_ONCE_PER_SERVICE_MAX;
        let mut services = self.services.lock();
        if !services.contains_key(service) && services.len() >= limits::EFFECT_SERVICES_MAX {
            services.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        }
        let full = services.len() >= limits::EFFECT_SERVICES_MAX;
        let name = if full { "" } else { service };
        services.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(most))).clone()
    }
}

/// Those that commands wait for do not wait for others in their turn: they are bounded by the commands in
/// hand.
async fn deliver(house: &Arc<House>, mut effect: Waiting, is_waited_for: bool) {
    let of_service = house.outbox.of_service(&effect.call.service);
    let mut _permits = None;
    if !is_waited_for {
        // Never closed.
        let of_service = of_service.acquire().await.ok();
        _permits = Some((of_service, house.outbox.at_once.acquire().await.ok()));
    }
    let waited_for = effect.waited_for.take();
    deliver_now(house, effect).await;
    if let Some(command) = waited_for {
        // It may have gone away.
        let _ = command.send(());
    }
}

async fn deliver_now(house: &Arc<House>, mut effect: Waiting) {
    let tried = match effect.result.take() {
        Some(result) => Tried::Ended(result),
        None => attempt(house, &effect).await,
    };
    let result = match tried {
        Tried::Ended(result) => result,
        // A workflow is told at once: it tries again by itself.
        Tried::Failed(status) if effect.call.result_to.is_some() => Err(status),
        Tried::Failed(status) => return failed(house, effect, status).await,
        Tried::NotOurs => return house.outbox.let_go([effect.past()]),
    };
    match hand_back(house, &effect, &result).await {
        HandedBack::Done => ended(house, &effect, result.err().as_ref()),
        HandedBack::Later(status) => {
            effect.result = Some(result);
            failed(house, effect, status).await;
        }
        HandedBack::NotOurs => house.outbox.let_go([effect.past()]),
    }
}

impl Waiting {
    /// Whether nobody has sent its keys to anybody.
    fn is_unused(&self) -> bool {
        self.is_new && self.tries == 0
    }

    fn own_key(&self) -> Option<&str> {
        let own = self.call.metadata.iter().find(|(name, _)| name == KEY);
        own.map(|(_, key)| key.as_str())
    }

    /// With which it comes to its target.
    fn key(&self) -> String {
        match self.own_key() {
            Some(own) => own_key(&self.source, own),
            None => effect_key(self.id),
        }
    }
}

async fn attempt(house: &Arc<House>, effect: &Waiting) -> Tried {
    if house.outbox.is_stopped() || !house.serves(effect.fence) {
        return Tried::NotOurs;
    }
    let StoredCall { service, method, .. } = &effect.call;
    if !house.is_deployed(service, method) {
        return Tried::Failed(Status::not_found(format!("{service}/{method} is not deployed")));
    }
    let (call, key) = (effect.call.clone(), effect.key());
    let deadline = clock::now() + Duration::from_millis(call.timeout_ms);
    let mut metadata = call.metadata;
    metadata.retain(|(name, _)| name != KEY);
    let out = OutCall {
        service: call.service,
        method: call.method,
        payload: call.payload,
        metadata,
        idempotency_key: Some(key),
        // An effect before it may have had the same key.
        fresh: (effect.is_unused() && effect.own_key().is_none()).then_some(effect.fence),
        deadline,
        request_id: call.request_id.into(),
        trail: Trail::of(call.hops, call.through),
        consistency: Consistency::default(),
    };
    let result = match tokio::time::timeout_at(deadline, house.reach(out)).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded("the function did not answer in time")),
    };
    match result {
        Err(status) if may_succeed_later(status.code) => Tried::Failed(status),
        result => Tried::Ended(result),
    }
}

fn may_succeed_later(code: Code) -> bool {
    match code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Unknown
        | Code::ResourceExhausted
        | Code::Aborted
        // A node that is ahead or behind of a deployment does not know the function.
        | Code::Unimplemented
        | Code::Internal => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

enum HandedBack {
    /// Or nobody has asked for it.
    Done,
    Later(Status),
    /// Another node sees to it.
    NotOurs,
}

/// Gives the result to the workflow that asked for it. Until that has it, the effect is not over.
async fn hand_back(
    house: &Arc<House>,
    effect: &Waiting,
    result: &Result<Bytes, Status>,
) -> HandedBack {
    let Some(token) = &effect.call.result_to else { return HandedBack::Done };
    let live = house.registry.live();
    let Some(service) = live.by_journal(&effect.source.journal) else {
        return HandedBack::Later(Status::not_found("the workflow is not deployed any more"));
    };
    // It may be no workflow any more: then nobody waits.
    let Some(method) = &service.result else { return HandedBack::Done };
    let request = Request {
        service: service.clone(),
        method: method.clone(),
        payload: workflow::result(token, result.clone()),
        metadata: Vec::new(),
        idempotency_key: Some(result_key(effect.id)),
        deadline: clock::now() + limits::EFFECT_TIMEOUT_DEFAULT,
        request_id: effect.call.request_id.as_str().into(),
        consistency: Consistency::default(),
        trail: Trail::default(),
        origin: Origin::Result(effect.id, effect.fence),
        fresh: effect.is_unused().then_some(effect.fence),
    };
    match house.deliver(&request, &effect.source).await {
        Ok(_) => HandedBack::Done,
        Err(CallError::NotHere) => HandedBack::NotOurs,
        Err(CallError::Status(status)) if may_succeed_later(status.code) => {
            let reason = format!("its result could not be given back: {}", status.message);
            HandedBack::Later(Status::new(status.code, reason))
        }
        Err(CallError::Status(status)) => {
            tracing::warn!(
                source = %effect.source, effect = %effect.id, %status,
                request_id = effect.call.request_id, "a workflow rejected the result of an effect"
            );
            HandedBack::Done
        }
    }
}

fn ended(house: &House, effect: &Waiting, rejection: Option<&Status>) {
    if let Some(status) = rejection {
        tracing::warn!(
            source = %effect.source, effect = %effect.id, service = effect.call.service,
            method = effect.call.method, %status, request_id = effect.call.request_id,
            "an effect was rejected"
        );
    }
    count(house, if rejection.is_some() { "rejected" } else { "delivered" });
    house.outbox.deliver(effect.past());
}

async fn failed(house: &Arc<House>, mut effect: Waiting, status: Status) {
    effect.tries = effect.tries.saturating_add(1);
    effect.is_new = false;
    let StoredCall { service, method, request_id, .. } = &effect.call;
    count(house, "failed");
    tracing::info!(
        source = %effect.source, effect = %effect.id, service, method, tries = effect.tries, %status,
        request_id, "an effect failed"
    );
    if effect.tries >= house.outbox.tries_max {
        return park(house, effect, status).await;
    }
    let wait = backoff(effect.tries, house.seed());
    let task = Task::EffectLater {
        id: effect.id,
        tries: effect.tries,
        due_ms: clock::unix_ms() + wait.as_millis() as u64,
        error: clip(&status.to_string()),
    };
    // What the store knows of it is for operators, and for who comes after a crash.
    let _ = house.journal.chore(Chore { fence: effect.fence, task });
    retry_in(house, effect, wait);
}

fn retry_in(house: &House, effect: Waiting, wait: Duration) {
    if house.outbox.is_stopped() {
        return;
    }
    let retry = Retry { at: clock::now() + wait, effect };
    house.outbox.state.lock().retries.push(Reverse(retry));
    house.outbox.work.retry.notify_one();
}

/// From now on it is an operator's.
async fn park(house: &Arc<House>, effect: Waiting, status: Status) {
    let StoredCall { service, method, request_id, .. } = &effect.call;
    let error = clip(&status.to_string());
    let task = Task::EffectPark { id: effect.id, tries: effect.tries, error };
    if house.journal.chore(Chore { fence: effect.fence, task }).wait().await.is_err() {
        return match house.serves(effect.fence) {
            true => retry_in(house, effect, limits::EFFECT_BACKOFF_MAX),
            false => house.outbox.let_go([effect.past()]),
        };
    }
    count(house, "parked");
    tracing::error!(
        source = %effect.source, effect = %effect.id, service, method, tries = effect.tries, %status,
        request_id, "an effect was given up: it waits among the dead letters"
    );
    house.outbox.forget([effect.past()]);
}

/// Doubling, with a cap; somewhere between half of that and all of it.
fn backoff(tries: u32, random: u64) -> Duration {
    let doublings = tries.saturating_sub(1).min(16);
    let whole = (limits::EFFECT_BACKOFF_MIN * (1 << doublings)).min(limits::EFFECT_BACKOFF_MAX);
    let half = whole / 2;
    half + half.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

fn count(house: &House, result: &'static str) {
    house.metrics.effects.get_or_create(&ResultLabels { result }).inc();
}

/// Tries again what failed, when its time has come.
pub(super) async fn try_again(house: Weak<House>, work: Arc<Work>) {
    let mut idle = limits::OUTBOX_RETRY_AFTER;
    loop {
        let _ = tokio::time::timeout(idle, work.retry.notified()).await;
        let Some(house) = house.upgrade() else { return };
        if house.outbox.is_stopped() {
            return;
        }
        while let Some(effect) = due(&house.outbox) {
            start(&house, effect);
        }
        let state = house.outbox.state.lock();
        let next = state.retries.peek().map(|Reverse(retry)| retry.at - clock::now());
        idle = next.map_or(limits::OUTBOX_RETRY_AFTER, |next| next.min(limits::OUTBOX_RETRY_AFTER));
    }
}

fn due(outbox: &Outbox) -> Option<Waiting> {
    let mut state = outbox.state.lock();
    if state.retries.peek()?.0.at > clock::now() {
        return None;
    }
    Some(state.retries.pop()?.0.effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_wait_longer_each_time_up_to_a_cap() {
        for (tries, most) in [(1, 100), (2, 200), (5, 1_600), (20, 30_000), (u32::MAX, 30_000)] {
            let most = Duration::from_millis(most);
            assert_eq!(backoff(tries, 0), most / 2);
            assert!(backoff(tries, u64::MAX) <= most && backoff(tries, u64::MAX) > most * 9 / 10);
        }
    }
}
