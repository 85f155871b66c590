//! What functions of other kinds cost, beside what the same guest does without.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use stead_tests::Host;

use crate::Settings;
use crate::load::{self, Until};
use crate::measures::{big, call};
use crate::report::{Goal, Result, Unit};

const MODEL: &str = "/stead.tck.v1.EventSourcedModel/Process";
const ACTION: &str = "/stead.tck.v1.ActionModel/ProcessUnary";
const TIMERS: usize = 10_000;
const TIMERS_PER_ENTITY: usize = 10;
const TIMERS_APART: Duration = Duration::from_millis(100);
/// Until the timers are due: they are all set by then.
const TIMERS_AHEAD: Duration = Duration::from_secs(10);
const FOLLOWED_EVENTS_PER_COMMAND: usize = 100;
const STEPS_PER_ORDER: u64 = 3;
const WAIT_MAX: Duration = Duration::from_secs(120);

pub async fn all(settings: &Settings) -> anyhow::Result<Vec<Result>> {
    let mut results = throughput(settings).await?;
    results.push(timers(settings).await?);
    results.push(consumer(settings).await?);
    results.push(workflows(settings).await?);
    Ok(results)
}

async fn throughput(settings: &Settings) -> anyhow::Result<Vec<Result>> {
    let host = big().start().await;
    host.deploy("tck-every-kind").await;
    let emit = json!({"emit": {"value": "x"}});
    let model = |n: usize, actions: &[Value]| {
        post(MODEL, &json!({"id": format!("e{n}"), "actions": actions}))
    };
    let effect = |n: usize| json!({"effect": {"id": format!("t{n}"), "actions": [emit.clone()]}});
    let read: Vec<_> = (0..settings.carts).map(|n| model(n, &[])).collect();
    let durable: Vec<_> =
        (0..settings.carts).map(|n| model(n, std::slice::from_ref(&emit))).collect();
    let with_effect: Vec<_> =
        (0..settings.carts).map(|n| model(n, &[emit.clone(), effect(n)])).collect();
    let reply = json!({"groups": [{"steps": [{"reply": {"message": "x"}}]}]});
    let action = vec![post(ACTION, &reply)];

    let mut rows = [
        Result::new("read of an entity, JSON, 64", Unit::PerSecond, Goal::None),
        Result::new("action, unary, JSON, 64", Unit::PerSecond, Goal::ShareOf(0, 0.8, "the read")),
        Result::new("durable command, JSON, 64", Unit::PerSecond, Goal::None),
        Result::new(
            "with an effect to another entity, delivered, 64",
            Unit::PerSecond,
            Goal::ShareOf(2, 0.4, "the plain one"),
        ),
    ];
    call(host.services.address(), &durable, 64, Until::Sent).await?;
    for round in 0..settings.rounds {
        eprintln!("  round {} of {}", round + 1, settings.rounds);
        let services = host.services.address();
        let until = Until::Elapsed(settings.time);
        rows[0].measured(call(services, &read, 64, until).await?);
        rows[1].measured(call(services, &action, 64, until).await?);
        rows[2].measured(call(services, &durable, 64, until).await?);
        let before = delivered(&host).await;
        let start = Instant::now();
        let measured = call(services, &with_effect, 64, until).await?;
        let expected = before + measured.calls as f64;
        wait_for("every effect", async || delivered(&host).await >= expected).await?;
        rows[3].value(measured.calls as f64 / start.elapsed().as_secs_f64());
    }
    Ok(rows.into())
}

async fn delivered(host: &Host) -> f64 {
    host.metric("stead_effects_total").await
}

/// How long after they were due the last of many timers had fired.
async fn timers(settings: &Settings) -> anyhow::Result<Result> {
    eprintln!("  timers");
    let mut row = Result::new(
        "last of 10,000 timers due within a second, late by",
        Unit::Ms,
        Goal::AtMost(2_000.0),
    );
    for _ in 0..settings.rounds.min(3) {
        let host = big().start().await;
        host.deploy("tck-every-kind").await;
        let due = SystemTime::now().duration_since(UNIX_EPOCH)? + TIMERS_AHEAD;
        let set = |entity: usize| {
            let timer = |name: usize| {
                let at_ms = (due + TIMERS_APART * name as u32).as_millis();
                json!({"setTimer": {"name": format!("n{name}"), "atMs": at_ms.to_string(),
                    "actions": [{"emit": {"value": "x"}}]}})
            };
            let actions: Vec<_> = (0..TIMERS_PER_ENTITY).map(timer).collect();
            post(MODEL, &json!({"id": format!("e{entity}"), "actions": actions}))
        };
        let requests: Vec<_> = (0..TIMERS / TIMERS_PER_ENTITY).map(set).collect();
        call(host.services.address(), &requests, 64, Until::Sent).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        ensure!(now < due, "setting the timers took longer than they had");
        let fired = async || host.metric("stead_timers_total").await >= TIMERS as f64;
        wait_for("every timer", fired).await?;
        let last = due + TIMERS_APART * (TIMERS_PER_ENTITY as u32 - 1);
        let late = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(last);
        row.value(late.as_secs_f64() * 1_000.0);
    }
    Ok(row)
}

/// A consumer that begins with the first of many events.
async fn consumer(settings: &Settings) -> anyhow::Result<Result> {
    eprintln!("  consumer");
    let mut row = Result::new(
        "a consumer, from the beginning",
        Unit::EventsPerSecond,
        Goal::AtLeast(20_000.0),
    );
    for _ in 0..settings.rounds.min(3) {
        let host = big().start().await;
        host.deploy("tck-model").await;
        let emits = vec![json!({"emit": {"value": "x"}}); FOLLOWED_EVENTS_PER_COMMAND];
        let request = |n: usize| post(MODEL, &json!({"id": format!("e{n}"), "actions": emits}));
        let requests: Vec<_> = (0..settings.carts).map(request).collect();
        call(host.services.address(), &requests, 64, Until::Sent).await?;
        let events = (settings.carts * FOLLOWED_EVENTS_PER_COMMAND) as f64;
        host.deploy("tck-every-kind").await;
        let start = Instant::now();
        let consumed = async || host.metric("stead_consumed_events_total").await >= 2.0 * events;
        wait_for("the consumer and the view", consumed).await?;
        // Both read every event.
        row.value(2.0 * events / start.elapsed().as_secs_f64());
    }
    row.note = Some("a consumer and a view at once, events of both".into());
    Ok(row)
}

/// Orders of three steps, each a durable command of another entity or an action.
async fn workflows(settings: &Settings) -> anyhow::Result<Result> {
    eprintln!("  workflows");
    let mut row = Result::new("workflow steps", Unit::PerSecond, Goal::AtLeast(2_000.0));
    for _ in 0..settings.rounds.min(3) {
        let host = big().start().await;
        host.deploy("checkout").await;
        let shelves = 100;
        let restock = |n: usize| post(&format!("/stock/s{n}"), &json!({"quantity": 1_000_000}));
        let deposit = |n: usize| post(&format!("/accounts/c{n}"), &json!({"cents": "1000000000"}));
        let prepare: Vec<_> = (0..shelves).flat_map(|n| [restock(n), deposit(n)]).collect();
        call(host.services.address(), &prepare, 16, Until::Sent).await?;
        let orders = settings.carts * 2;
        let order = |n: usize| {
            let (sku, customer) = (format!("s{}", n % shelves), format!("c{}", n % shelves));
            post(
                &format!("/orders/o{n}"),
                &json!({"sku": sku, "customer": customer, "quantity": 1, "cents": "100", "address": "x"}),
            )
        };
        let requests: Vec<_> = (0..orders).map(order).collect();
        let start = Instant::now();
        call(host.services.address(), &requests, 64, Until::Sent).await?;
        let last = format!("/orders/o{}", orders - 1);
        let steps = orders as u64 * STEPS_PER_ORDER;
        let done = async || host.metric("stead_effects_total").await >= steps as f64;
        wait_for("every step", done).await?;
        wait_for("the last order", async || {
            let status = host.services.get(&last).await.ok();
            status["state"] == "COMPLETED"
        })
        .await?;
        row.value(steps as f64 / start.elapsed().as_secs_f64());
    }
    Ok(row)
}

fn post(path: &str, body: &Value) -> Bytes {
    load::request("POST", path, "application/json", body.to_string().as_bytes())
}

async fn wait_for(what: &str, mut done: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let waited = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, waited).await.with_context(|| format!("{what} took too long"))
}
