//! More effects and timers than there is room for in memory: the store has them until there is.

use std::time::Duration;

use serde_json::{Value, json};
use stead::journal::memory::MemoryStore;
use stead::journal::{EffectId, Fence, NewEffect, Store, StoredCall, Write};
use stead::words::{Address, Seq};

use crate::house::{EVERY_KIND, House, TWO, becomes, eventually, shared, spawn};

const ROOM: usize = 8;
const COMMANDS: usize = 60;
/// Of these, those that come when the others are durable.
const LATE: usize = 10;
const TARGETS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

fn model(id: &str) -> Address {
    Address::new("tck-model", id)
}

fn two(id: &str) -> Address {
    Address::new("tck-two", id)
}

/// Emits, and has each target emit the same.
fn told(number: usize) -> Value {
    let emit = json!({"emit": {"value": format!("{number};")}});
    let effect = |target| json!({"effect": {"id": format!("t{target}"), "actions": [emit]}});
    let mut actions: Vec<_> = (0..TARGETS).map(effect).collect();
    actions.push(emit.clone());
    json!(actions)
}

async fn house(effects: usize, timers: usize, store: &MemoryStore) -> House {
    let house = House::with_room_for(effects, timers, store).await;
    if house.registry.live().services.is_empty() {
        house.deploy(EVERY_KIND, &[]).await;
    }
    house
}

async fn all_delivered(house: &House) {
    let expected: String = (0..COMMANDS).map(|number| format!("{number};")).collect();
    for target in 0..TARGETS {
        let id = format!("t{target}");
        let delivered = async {
            while house.stored_events(&two(&id)).await < COMMANDS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, delivered).await;
        assert!(found.is_ok(), "{} of {COMMANDS} at {id}", house.stored_events(&two(&id)).await);
        // Each once, and in the order of the commands.
        assert_eq!(house.two(&id).await, expected, "{id}");
    }
    eventually("an empty memory", || house.metric("stead_outbox_effects") == 0.0).await;
    let effects = house.entities.effects_of(&model("m"), 100).await.unwrap();
    assert!(effects.is_empty(), "{} effects are left in the store", effects.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_that_have_no_room_are_delivered_once_and_in_order() {
    let house = shared(house(ROOM, 100, &MemoryStore::default()).await);
    // Nothing leaves memory while nothing is durable.
    let hold = house.store.hold().await;
    let mut commands = Vec::new();
    for number in 0..COMMANDS - LATE {
        let told_house = house.clone();
        commands.push(spawn(async move { told_house.tell("m", told(number)).await }));
        let turn = || {
            let hot = house.entities.hot_one(&model("m"));
            hot.is_some_and(|hot| hot.seq.0 as usize > number)
        };
        eventually("its turn", turn).await;
    }
    let held = house.metric("stead_outbox_effects") as usize;
    assert!(held < ROOM + TARGETS, "{held} effects in memory, with room for {ROOM}");
    drop(hold);
    // These take up the room that becomes free.
    for number in COMMANDS - LATE..COMMANDS {
        house.tell("m", told(number)).await.unwrap();
    }
    for command in commands {
        command.await.unwrap().unwrap();
    }
    all_delivered(&house).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_effects_than_there_is_room_for_are_taken_up_at_start() {
    let store = MemoryStore::default();
    let before = house(ROOM, 100, &store).await;
    let shard = before.journal.holdings().shard_of(&model("m"));
    // As a process leaves them that ends right after its commits.
    for number in 0..COMMANDS {
        let effects = (0..TARGETS).map(|target| {
            let told = json!({"id": format!("t{target}"), "actions": [
                {"emit": {"value": format!("{number};")}}
            ]});
            let call = StoredCall {
                service: TWO.into(),
                method: "Call".into(),
                payload: before.request(TWO, "Call", told).payload,
                hops: 1,
                timeout_ms: 30_000,
                request_id: "before".into(),
                ..StoredCall::default()
            };
            NewEffect { id: EffectId::new(1 + number as u64, target as u64), call }
        });
        let write = Write {
            effects: effects.collect(),
            ..Write::new(model("m"), Fence { shard, ..Fence::default() }, Seq::ZERO, 1)
        };
        assert!(store.commit(&[write], &[]).await.unwrap().is_empty());
    }
    assert_eq!(before.stored_events(&two("t0")).await, 0);
    drop(before);
    all_delivered(&house(ROOM, 100, &store).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_that_have_no_room_fire_once() {
    const TIMERS: usize = 50;
    let store = MemoryStore::default();
    let house = house(100, 4, &store).await;
    let set = |number: usize| {
        let value = format!("{number};");
        json!({"setTimer": {
            "name": value, "afterMs": 1 + number % 7 * 20, "actions": [{"emit": {"value": value}}]
        }})
    };
    let all: Vec<_> = (0..TIMERS).map(set).collect();
    house.tell("m", json!(all)).await.unwrap();
    assert!(house.metric("stead_timers_pending") <= 4.0);
    becomes("all fire", async || house.stored_events(&model("m")).await >= TIMERS).await;
    becomes("all are gone", async || {
        house.entities.timers_of(&model("m"), 100).await.unwrap().is_empty()
    })
    .await;
    let text = house.tell("m", json!([])).await.unwrap();
    let mut fired: Vec<usize> =
        text.split_terminator(';').map(|number| number.parse().unwrap()).collect();
    fired.sort_unstable();
    assert_eq!(fired, (0..TIMERS).collect::<Vec<_>>());
    assert_eq!(house.metric("stead_timers_total{result=\"fired\"}"), TIMERS as f64);
}
