//! Effects: when they are delivered, in which order, how often, and what becomes of those that fail.

use std::sync::Arc;

use serde_json::{Value, json};
use stead::entity::OutCall;
use stead::journal::{
    EffectId, Fence, NewEffect, Store, StoreError, StoredCall, Timer, TimerChange, Write,
};
use stead::words::limits::SHARDS_LOOKED_AT_EVERY;
use stead::words::{Address, Code, Epoch, Seq, Shard, Status};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::house::{EVERY_KIND, House, MODEL, TWO, becomes, eventually, grant_all, shared, spawn};

fn model(id: &str) -> Address {
    Address::new("tck-model", id)
}

fn two(id: &str) -> Address {
    Address::new("tck-two", id)
}

fn emit(value: &str) -> Value {
    json!({"emit": {"value": value}})
}

/// Two is told to emit this.
fn effect(id: &str, value: &str) -> Value {
    json!({"effect": {"id": id, "actions": [emit(value)]}})
}

fn synchronous(id: &str, value: &str) -> Value {
    json!({"effect": {"id": id, "synchronous": true, "actions": [emit(value)]}})
}

async fn outbox(house: &House) -> usize {
    let shards: Vec<Shard> = (0..house.journal.holdings().shards()).map(Shard).collect();
    house.journal.outbox(&shards, None, 1_000).await.expect("an outbox").len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_of_a_command_that_is_not_stored_is_not_delivered() {
    let house = shared(House::with(&[EVERY_KIND]).await);
    let hold = house.store.hold().await;
    let told = spawn({
        let house = house.clone();
        async move { house.tell("m", json!([emit("x"), effect("t", "lost")])).await }
    });
    let turn = || house.entities.hot_one(&model("m")).is_some_and(|hot| hot.seq.0 == 1);
    eventually("the turn", turn).await;
    assert!(house.entities.hot_one(&two("t")).is_none(), "delivered before it was durable");
    house.store.fail_next(StoreError::Full { reason: "no space".into() });
    drop(hold);
    assert_eq!(told.await.unwrap().unwrap_err().code, Code::ResourceExhausted);
    // What comes after it goes its way, and it has left nothing.
    house.tell("m", json!([synchronous("t", "kept")])).await.unwrap();
    assert_eq!(house.two("t").await, "kept");
    becomes("an empty outbox", async || outbox(&house).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_for_one_target_keep_their_order() {
    let house = House::with(&[EVERY_KIND]).await;
    for start in [0, 10, 20] {
        let effects: Vec<_> = (start..start + 10).map(|n| effect("t", &format!("{n} "))).collect();
        house.tell("m", json!(effects)).await.unwrap();
    }
    let all: String = (0..30).map(|n| format!("{n} ")).collect();
    becomes("thirty effects", async || house.stored_events(&two("t")).await == 30).await;
    assert_eq!(house.two("t").await, all);
    becomes("an empty outbox", async || outbox(&house).await == 0).await;
    eventually("all are counted", || {
        house.metric("stead_effects_total{result=\"delivered\"}") == 30.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reply_waits_for_a_synchronous_effect() {
    let house = House::with(&[EVERY_KIND]).await;
    let told = json!([emit("m"), synchronous("t", "a"), synchronous("u", "b")]);
    assert_eq!(house.tell("m", told).await.unwrap(), "m");
    assert_eq!(house.stored_events(&two("t")).await, 1);
    assert_eq!(house.stored_events(&two("u")).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_command_has_no_effects() {
    let house = House::with(&[EVERY_KIND]).await;
    let told = json!([emit("x"), effect("t", "y"), {"fail": {"message": "no"}}]);
    assert_eq!(house.tell("m", told).await.unwrap_err().code, Code::FailedPrecondition);
    assert_eq!(outbox(&house).await, 0);
    house.tell("m", json!([synchronous("t", "z")])).await.unwrap();
    assert_eq!(house.two("t").await, "z");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_with_effects_alone_that_comes_again_does_not_repeat_them() {
    let house = House::with(&[EVERY_KIND]).await;
    let told = || {
        let mut request = house.telling("m", json!([synchronous("t", "once")]));
        request.idempotency_key = Some("key".into());
        request
    };
    house.send(told()).await.unwrap();
    house.send(told()).await.unwrap();
    assert_eq!(house.two("t").await, "once");
    assert_eq!(house.stored_events(&model("m")).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_is_rejected_has_been_delivered() {
    let house = House::with(&[EVERY_KIND]).await;
    let failing = json!({"effect": {"id": "t", "synchronous": true, "actions": [
        {"fail": {"message": "no"}}
    ]}});
    house.tell("m", json!([failing])).await.unwrap();
    becomes("an empty outbox", async || outbox(&house).await == 0).await;
    assert_eq!(house.metric("stead_effects_total{result=\"rejected\"}"), 1.0);
}

/// Puts an effect into the store as a process that died right after its commit leaves it.
async fn leave_behind(house: &House, id: EffectId) {
    let request = house.request(TWO, "Call", json!({"id": "t", "actions": [emit("x")]}));
    let call = StoredCall {
        service: TWO.into(),
        method: "Call".into(),
        payload: request.payload,
        hops: 1,
        timeout_ms: 30_000,
        request_id: "before".into(),
        ..StoredCall::default()
    };
    let shard = house.journal.holdings().shard_of(&model("m"));
    let fence = Fence { shard, ..Fence::default() };
    let write = Write {
        effects: vec![NewEffect { id, call }],
        ..Write::new(model("m"), fence, Seq::ZERO, 1)
    };
    assert!(house.store.commit(&[write], &[]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_is_delivered_at_start_and_once_in_effect() {
    let before = House::member(&[EVERY_KIND]).await;
    let store = before.store.clone();
    for life in 0..3 {
        leave_behind(&before, EffectId::new(7, 7)).await;
        let house = House::again(&store).await;
        becomes("a delivery", async || outbox(&house).await == 0).await;
        assert_eq!(house.stored_events(&two("t")).await, 1, "in life {life}");
        house.entities.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_whose_target_crashes_is_tried_again_and_then_parked() {
    let house = House::with(&[EVERY_KIND]).await;
    let crashing = json!({"effect": {"id": "t", "actions": [{"crash": {}}]}});
    house.tell("m", json!([emit("x"), crashing, effect("t", "after")])).await.unwrap();
    let letters = async || house.entities.dead_letters(None, 10).await.unwrap();
    becomes("a dead letter", async || letters().await.len() == 1).await;
    // It has held up nobody.
    assert_eq!(house.two("t").await, "after");
    let letter = letters().await.remove(0);
    assert_eq!((letter.source.clone(), letter.tries), (model("m"), 3));
    assert!(letter.error.contains("crashed"), "{}", letter.error);
    assert_eq!(house.entities.effects_of(&model("m"), 10).await.unwrap().len(), 1);

    let tried = || house.metric("stead_effects_total{result=\"failed\"}");
    assert_eq!(tried(), 3.0);
    house.entities.retry_effect(letter.id).await.unwrap();
    eventually("tries as if there had been none", || tried() == 6.0).await;
    becomes("a dead letter again", async || letters().await.len() == 1).await;
    house.entities.drop_effect(letter.id).await.unwrap();
    assert!(house.entities.effect(letter.id).await.unwrap().is_none());
    let gone = house.entities.retry_effect(letter.id).await.unwrap_err().into_status();
    assert_eq!(gone.code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_of_synchronous_effects_ends() {
    let house = House::with(&[EVERY_KIND]).await;
    let mut innermost = json!([emit("end")]);
    for _ in 0..6 {
        innermost = json!([{"effect": {"id": "t", "synchronous": true, "actions": innermost}}]);
    }
    house.tell("m", innermost).await.unwrap();
    assert_eq!(house.two("t").await, "end");
}

/// As a node that is ahead of a deployment which removes every function.
struct Elsewhere;

impl stead::entity::Caller for Elsewhere {
    fn call(&self, call: OutCall) -> stead::entity::Called {
        Box::pin(async move {
            Err(Status::unimplemented(format!("{} is not deployed (any more)", call.service)))
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_comes_to_a_node_that_does_not_know_its_target_is_not_lost() {
    let house = House::with(&[EVERY_KIND]).await;
    house.entities.set_caller(std::sync::Arc::new(Elsewhere));
    house.tell("m", json!([effect("t", "x")])).await.unwrap();
    let letters = async || house.entities.dead_letters(None, 10).await.unwrap();
    becomes("a dead letter", async || letters().await.len() == 1).await;
    let letter = letters().await.remove(0);
    assert_eq!(letter.tries, 3);
    assert!(letter.error.contains("not deployed"), "{}", letter.error);
}

/// Answers calls once it is told to.
struct Slow {
    called: UnboundedSender<OutCall>,
    answers: Arc<Semaphore>,
}

/// Calls come to the test, and are answered as often as it permits.
fn slow(house: &House) -> (UnboundedReceiver<OutCall>, Arc<Semaphore>) {
    let (called, calls) = mpsc::unbounded_channel();
    let answers = Arc::new(Semaphore::new(0));
    house.entities.set_caller(Arc::new(Slow { called, answers: answers.clone() }));
    (calls, answers)
}

impl stead::entity::Caller for Slow {
    fn call(&self, call: OutCall) -> stead::entity::Called {
        let answers = self.answers.clone();
        self.called.send(call).expect("the test listens");
        Box::pin(async move {
            answers.acquire().await.expect("open").forget();
            Ok::<_, Status>(Default::default())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_can_leave_while_its_command_waits_elsewhere() {
    let house = shared(House::with(&[EVERY_KIND]).await);
    let (mut calls, answers) = slow(&house);
    let holdings = house.journal.holdings();
    let shard = holdings.shard_of(&model("m"));
    for told in [json!([emit("x"), {"forward": {"id": "t"}}]), json!([synchronous("t", "y")])] {
        let waiting = spawn({
            let house = house.clone();
            async move { house.tell("m", told).await }
        });
        let call = calls.recv().await.expect("a call");
        assert_eq!((call.service.as_str(), call.trail.hops()), (TWO, 1));
        eventually("it has left its shard", || holdings.inside(shard) == 0).await;
        // The entity goes on meanwhile.
        house.tell("m", json!([])).await.unwrap();
        assert!(!waiting.is_finished());
        answers.add_permits(1);
        waiting.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_target_holds_nobody_up() {
    let house = House::with(&[EVERY_KIND]).await;
    let (mut calls, answers) = slow(&house);
    let told = json!([effect("t", "1"), effect("t", "2"), effect("u", "3")]);
    house.tell("m", told).await.unwrap();
    house.tell("n", json!([effect("t", "4")])).await.unwrap();
    // Of each source the first for each target: the second for the same one waits.
    let mut keys = Vec::new();
    for _ in 0..3 {
        let call = calls.recv().await.expect("a call");
        assert!(call.fresh.is_some());
        keys.push(call.idempotency_key.expect("a key"));
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3);
    answers.add_permits(3);
    calls.recv().await.expect("the second for the same target");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_comes_brings_its_effects_and_its_timers() {
    let house = House::member(&[EVERY_KIND]).await;
    leave_behind(&house, EffectId::new(7, 7)).await;
    let body = json!({"id": "m", "actions": [emit("late")]});
    let timer = Timer {
        due_ms: 1,
        every_ms: None,
        method: "Wake".into(),
        payload: house.request(MODEL, "Wake", body).payload,
        token: [7; 16],
    };
    let shard = house.journal.holdings().shard_of(&model("m"));
    let write = Write {
        timers: vec![TimerChange { name: "t".into(), set: Some(timer) }],
        ..Write::new(model("m"), Fence { shard, ..Fence::default() }, Seq::ZERO, 1)
    };
    house.store.commit(&[write], &[]).await.unwrap();
    assert_eq!(outbox(&house).await, 1);
    grant_all(&house, 1);
    becomes("a delivery", async || outbox(&house).await == 0).await;
    assert_eq!(house.stored_events(&two("t")).await, 1);
    becomes("a timer", async || house.stored_events(&model("m")).await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_leaves_leaves_its_effects_to_whoever_has_it_next() {
    let house = House::member(&[EVERY_KIND]).await;
    grant_all(&house, 1);
    let (mut calls, answers) = slow(&house);
    house.tell("m", json!([effect("t", "1"), effect("t", "2")])).await.unwrap();
    let first = calls.recv().await.expect("a call");
    assert!(first.fresh.is_some());

    let holdings = house.journal.holdings();
    let shard = holdings.shard_of(&model("m"));
    assert!(holdings.close(shard, Epoch(1)));
    house.entities.empty_shard(shard).await;
    assert!(holdings.revoke(shard, Epoch(1)));
    house.store.set_epoch(shard, Epoch(2));
    // The answer comes, but the effect is not this owner's any more.
    answers.add_permits(1);
    becomes("nothing in memory", async || house.entities.pending().effects == 0).await;
    assert_eq!(outbox(&house).await, 2);

    assert!(holdings.grant(shard, Epoch(2)));
    answers.add_permits(2);
    let again = calls.recv().await.expect("the first again");
    assert_eq!(again.idempotency_key, first.idempotency_key);
    assert!(again.fresh.is_none(), "a receipt may exist");
    calls.recv().await.expect("the second");
    becomes("an empty outbox", async || outbox(&house).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_outlives_its_epoch_is_seen_to_under_the_next_one() {
    let house = House::member(&[EVERY_KIND]).await;
    grant_all(&house, 1);
    let (mut calls, answers) = slow(&house);
    house.tell("m", json!([effect("t", "1")])).await.unwrap();
    let first = calls.recv().await.expect("a call");

    // As after an answer of the store that was lost: the same node has the shard again.
    let holdings = house.journal.holdings();
    let shard = holdings.shard_of(&model("m"));
    house.store.set_epoch(shard, Epoch(2));
    assert!(holdings.grant(shard, Epoch(2)));
    tokio::time::sleep(SHARDS_LOOKED_AT_EVERY * 3).await;
    answers.add_permits(2);
    let again = calls.recv().await.expect("the same again");
    assert_eq!(again.idempotency_key, first.idempotency_key);
    assert!(again.fresh.is_none(), "a receipt may exist");
    becomes("an empty outbox", async || outbox(&house).await == 0).await;
    becomes("nothing in memory", async || house.entities.pending().effects == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_whose_write_is_on_its_way_while_an_older_one_is_let_go_is_delivered() {
    let house = shared(House::member(&[EVERY_KIND]).await);
    grant_all(&house, 1);
    let (mut calls, answers) = slow(&house);
    house.tell("m", json!([effect("t", "1"), effect("t", "2")])).await.unwrap();
    calls.recv().await.expect("the first");
    let holdings = house.journal.holdings();
    let shard = holdings.shard_of(&model("m"));
    house.store.set_epoch(shard, Epoch(2));
    assert!(holdings.grant(shard, Epoch(2)));
    let hold = house.store.hold().await;
    let told = spawn({
        let house = house.clone();
        async move { house.tell("m", json!([effect("u", "3")])).await }
    });
    // Those of before are let go, and the shard is read, before the third is in the store.
    answers.add_permits(1);
    tokio::time::sleep(SHARDS_LOOKED_AT_EVERY * 3).await;
    drop(hold);
    told.await.unwrap().unwrap();
    answers.add_permits(10);
    becomes("an empty outbox", async || outbox(&house).await == 0).await;
    becomes("nothing in memory", async || house.entities.pending().effects == 0).await;
}
