//! Timers: commands that the host sends.

use serde_json::{Value, json};
use stead::journal::{Chore, Fence, Store, Task, Timer, TimerChange, Write};
use stead::words::{Address, Seq, clock};

use crate::house::{EVERY_KIND, House, MODEL, becomes};

fn model(id: &str) -> Address {
    Address::new("tck-model", id)
}

fn set(name: &str, after_ms: u64, every_ms: u64, actions: Value) -> Value {
    json!({"setTimer": {
        "name": name, "afterMs": after_ms, "everyMs": every_ms, "actions": actions
    }})
}

fn emit(value: &str) -> Value {
    json!({"emit": {"value": value}})
}

async fn timers(house: &House, id: &str) -> Vec<String> {
    let rows = house.entities.timers_of(&model(id), 10).await.unwrap();
    rows.into_iter().map(|row| row.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_fires_once_and_is_gone() {
    let house = House::with(&[EVERY_KIND]).await;
    house.tell("m", json!([set("t", 1, 0, json!([emit("rang")]))])).await.unwrap();
    becomes("it fires", async || house.stored_events(&model("m")).await == 1).await;
    assert_eq!(timers(&house, "m").await, [""; 0]);
    assert_eq!(house.tell("m", json!([])).await.unwrap(), "rang");
    assert_eq!(house.metric("stead_timers_total{result=\"fired\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_without_anything_to_store_is_gone_too() {
    let house = House::with(&[EVERY_KIND]).await;
    for actions in [json!([]), json!([{"fail": {"message": "not now"}}])] {
        house.tell("m", json!([set("t", 1, 0, actions)])).await.unwrap();
        becomes("it fires", async || timers(&house, "m").await.is_empty()).await;
    }
    assert_eq!(house.metric("stead_timers_total{result=\"fired\"}"), 2.0);
    assert_eq!(house.stored_events(&model("m")).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_or_set_anew_does_not_fire() {
    let house = House::with(&[EVERY_KIND]).await;
    let hour = 3_600_000;
    let told = json!([
        set("later", 200, 0, json!([emit("wrong")])),
        set("never", 200, 0, json!([emit("wrong")])),
        set("last", 300, 0, json!([emit("right")])),
    ]);
    house.tell("m", told).await.unwrap();
    let told = json!([
        set("later", hour, 0, json!([emit("wrong")])),
        {"cancelTimer": {"name": "never"}},
    ]);
    house.tell("m", told).await.unwrap();
    becomes("the last one", async || house.stored_events(&model("m")).await == 1).await;
    assert_eq!(house.tell("m", json!([])).await.unwrap(), "right");
    assert_eq!(timers(&house, "m").await, ["later"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeating_timer_fires_until_it_is_cancelled() {
    let house = House::with(&[EVERY_KIND]).await;
    house.tell("m", json!([set("t", 1, 100, json!([emit("x")]))])).await.unwrap();
    becomes("three times", async || house.stored_events(&model("m")).await >= 3).await;
    assert_eq!(timers(&house, "m").await, ["t"]);
    let text = house.tell("m", json!([{"cancelTimer": {"name": "t"}}])).await.unwrap();
    assert_eq!(timers(&house, "m").await, [""; 0]);
    // Another one, due after the next time of the first would have been.
    house.tell("m", json!([set("u", 250, 0, json!([emit("end")]))])).await.unwrap();
    becomes("the other one", async || timers(&house, "m").await.is_empty()).await;
    assert_eq!(house.tell("m", json!([])).await.unwrap(), text + "end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_set_its_own_timer_again() {
    let house = House::with(&[EVERY_KIND]).await;
    let again = set("t", 3_600_000, 0, json!([emit("later")]));
    house.tell("m", json!([set("t", 1, 0, json!([emit("x"), again]))])).await.unwrap();
    becomes("it fires", async || house.stored_events(&model("m")).await == 1).await;
    let rows = house.entities.timers_of(&model("m"), 10).await.unwrap();
    assert!(rows[0].timer.due_ms > clock::unix_ms() + 3_000_000, "{rows:?}");
}

const LATE: [u8; 16] = [7; 16];

/// Leaves a timer `t` that has been due for long.
async fn leave_late(before: &House, every_ms: Option<u64>) {
    let body = json!({"id": "m", "actions": [emit("late")]});
    let timer = Timer {
        due_ms: 1,
        every_ms,
        method: "Wake".into(),
        payload: before.request(MODEL, "Wake", body).payload,
        token: LATE,
    };
    let shard = House::again(&before.store).await.journal.holdings().shard_of(&model("m"));
    let write = Write {
        timers: vec![TimerChange { name: "t".into(), set: Some(timer) }],
        ..Write::new(model("m"), Fence { shard, ..Fence::default() }, Seq::ZERO, 1)
    };
    before.store.commit(&[write], &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_timers_fire_at_start() {
    let before = House::member(&[EVERY_KIND]).await;
    leave_late(&before, None).await;
    let house = House::again(&before.store).await;
    becomes("it fires", async || house.stored_events(&model("m")).await == 1).await;
    becomes("it is gone", async || timers(&house, "m").await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_that_was_given_up_too_early_does_not_touch_the_repetition() {
    let before = House::member(&[EVERY_KIND]).await;
    leave_late(&before, Some(3_600_000)).await;
    let house = House::again(&before.store).await;
    becomes("it fires", async || house.stored_events(&model("m")).await == 1).await;
    let rows = house.entities.timers_of(&model("m"), 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_ne!(rows[0].timer.token, LATE);
    let (address, name, error) = (model("m"), String::from("t"), String::from("too late"));
    let task = Task::TimerLater { address, name, token: LATE, due_ms: 1, tries: 1, error };
    let fence = Fence { shard: rows[0].shard, ..Fence::default() };
    house.journal.chore(Chore { fence, task }).wait().await.unwrap();
    assert_eq!(house.entities.timers_of(&model("m"), 10).await.unwrap(), rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_whose_command_crashes_fires_again_later() {
    let house = House::with(&[EVERY_KIND]).await;
    house.tell("m", json!([set("t", 1, 0, json!([{"crash": {}}]))])).await.unwrap();
    becomes("two tries", async || {
        let rows = house.entities.timers_of(&model("m"), 10).await.unwrap();
        rows.first().is_some_and(|row| row.tries >= 2 && row.error.contains("crashed"))
    })
    .await;
    // The entity itself goes on.
    assert_eq!(house.tell("m", json!([emit("well")])).await.unwrap(), "well");
    house.tell("m", json!([{"cancelTimer": {"name": "t"}}])).await.unwrap();
    assert_eq!(timers(&house, "m").await, [""; 0]);
}
