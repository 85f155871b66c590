//! Everything that is measured.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use prost::Message;
use stead_tests::cart::{self, SERVICE};
use stead_tests::host::Options;
use stead_tests::{Host, proto};

use crate::load::{self, Measured, Until};
use crate::report::{self, Goal, Result, Unit};
use crate::{Settings, cluster, functions, hello, process, sqlite};

const PROTO: &str = "application/proto";
const JSON: &str = "application/json";
/// Below the cart's snapshot interval, so that every event is replayed.
const EVENTS_PER_REPLAYED_CART: usize = 99;
const LOADERS: usize = 64;
/// Idle carts would leave memory after 30 s; a population is built and measured in less.
const POPULATION_SECONDS_MAX: f64 = 28.0;

pub async fn all(settings: &Settings) -> anyhow::Result<Vec<Result>> {
    let mut results = throughput(settings).await?;
    results.push(replay(settings).await?);
    results.push(cold_activations(settings).await?);
    results.extend(memory(settings).await?);
    results.push(first_call(settings).await?);
    for mut part in [functions::all(settings).await?, cluster::all(settings).await?] {
        report::shift(&mut part, results.len());
        results.append(&mut part);
    }
    Ok(results)
}

/// Interleaved, so that a noisy minute hits every row.
async fn throughput(settings: &Settings) -> anyhow::Result<Vec<Result>> {
    let host = big().start().await;
    host.deploy(cart::GUEST).await;
    let hello = hello::start()?;
    let users: Vec<_> = (0..settings.carts).map(|n| format!("cart-{n}")).collect();
    let add: Vec<_> = users.iter().map(|user| add(user, 1)).collect();
    let get: Vec<_> = users.iter().map(|user| get(user)).collect();
    let get_json: Vec<_> = users
        .iter()
        .map(|user| load::request("GET", &format!("/carts/{user}"), JSON, b""))
        .collect();
    let add_json: Vec<_> = users
        .iter()
        .map(|user| {
            let path = format!("/cart/{user}/items/add");
            let body = br#"{"productId":"kettle","name":"Kettle","quantity":1}"#;
            load::request("POST", &path, JSON, body)
        })
        .collect();
    let one = vec![self::add("the-only-one", 1)];
    let hello_request = vec![load::request("GET", "/", JSON, b"")];

    let mut rows = [
        Result::new("bare hyper, fixed body, 64 connections", Unit::PerSecond, Goal::None),
        Result::new("read, Connect protobuf, 64", Unit::PerSecond, Goal::Share(0, 0.5)),
        Result::new("read, HTTP/JSON GET, 64", Unit::PerSecond, Goal::None),
        Result::new("SQLite alone, single-row commits", Unit::PerSecond, Goal::None),
        Result::new("durable, Connect protobuf, 64", Unit::PerSecond, Goal::Both(15_000.0, 3, 2.0)),
        Result::new(
            "durable, Connect protobuf, 512",
            Unit::PerSecond,
            Goal::Both(30_000.0, 3, 3.0),
        ),
        Result::new("durable, HTTP/JSON POST, 64", Unit::PerSecond, Goal::None),
        Result::new("durable, one hot cart, 64", Unit::PerSecond, Goal::AtLeast(8_000.0)),
        Result::new("written to disk a durable command, 64", Unit::Bytes, Goal::AtMost(1024.0)),
        Result::new("written to disk a durable command, 512", Unit::Bytes, Goal::AtMost(1024.0)),
    ];
    call(host.services.address(), &add, LOADERS, Until::Sent).await?;
    call(host.services.address(), &get, LOADERS, Until::Elapsed(settings.time)).await?;
    for round in 0..settings.rounds {
        eprintln!("  round {} of {}", round + 1, settings.rounds);
        let services = host.services.address();
        let until = Until::Elapsed(settings.time);
        rows[0].measured(call(&hello, &hello_request, 64, until).await?);
        rows[1].measured(call(services, &get, 64, until).await?);
        rows[2].measured(call(services, &get_json, 64, until).await?);
        rows[3].value(sqlite::single_row_commits(host.dir(), settings.time).await?);
        let (measured, bytes) = durable(&host, &add, 64, until).await?;
        rows[4].measured(measured);
        rows[8].value(bytes);
        let (measured, bytes) = durable(&host, &add, 512, until).await?;
        rows[5].measured(measured);
        rows[9].value(bytes);
        rows[6].measured(call(services, &add_json, 64, until).await?);
        rows[7].measured(call(services, &one, 64, until).await?);
    }
    Ok(rows.into())
}

/// The rate, and what a command made the process write, checkpoints included.
async fn durable(
    host: &Host,
    requests: &[Bytes],
    connections: usize,
    until: Until,
) -> anyhow::Result<(Measured, f64)> {
    let before = process::written_bytes(host.pid())?;
    let measured = call(host.services.address(), requests, connections, until).await?;
    let written = process::written_bytes(host.pid())? - before;
    let bytes = written as f64 / measured.calls as f64;
    Ok((measured, bytes))
}

/// Carts with events but no snapshot, all loaded again after a restart.
async fn replay(settings: &Settings) -> anyhow::Result<Result> {
    eprintln!("  replay");
    let mut row =
        Result::new("replay, from a cold journal", Unit::EventsPerSecond, Goal::AtLeast(300_000.0));
    let mut host = big().start().await;
    host.deploy(cart::GUEST).await;
    let users: Vec<_> = (0..settings.replay_carts).map(|n| format!("cart-{n}")).collect();
    let add: Vec<_> =
        (0..EVENTS_PER_REPLAYED_CART).flat_map(|_| users.iter().map(|user| add(user, 1))).collect();
    call(host.services.address(), &add, LOADERS, Until::Sent).await?;
    let get: Vec<_> = users.iter().map(|user| get(user)).collect();
    for _ in 0..settings.rounds {
        host = host.terminate(Duration::from_secs(10)).await.start().await;
        let measured = call(host.services.address(), &get, LOADERS, Until::Sent).await?;
        let events = host.metric("stead_replayed_events_total").await;
        let wanted = (users.len() * EVENTS_PER_REPLAYED_CART) as f64;
        ensure!(events == wanted, "{events} events were replayed instead of {wanted}");
        row.value(events / measured.seconds);
    }
    Ok(row)
}

/// Reads of carts that nobody has heard of.
async fn cold_activations(settings: &Settings) -> anyhow::Result<Result> {
    eprintln!("  cold activations");
    let mut row =
        Result::new("activation, no journal yet, 64", Unit::PerSecond, Goal::AtLeast(5_000.0));
    let host = big().start().await;
    host.deploy(cart::GUEST).await;
    let per_round = 10_000;
    for round in 0..settings.rounds {
        let get: Vec<_> = (0..per_round).map(|n| get(&format!("new-{round}-{n}"))).collect();
        let before = host.metric("stead_activations_total").await;
        row.measured(call(host.services.address(), &get, LOADERS, Until::Sent).await?);
        let activations = host.metric("stead_activations_total").await - before;
        ensure!(activations == per_round as f64, "{activations} activations in {per_round} calls");
    }
    Ok(row)
}

/// What a hot cart with one item adds to the resident set.
async fn memory(settings: &Settings) -> anyhow::Result<Vec<Result>> {
    let mut rows = Vec::new();
    for &population in settings.populations {
        eprintln!("  memory of {population} hot carts");
        let mut row = Result::new(
            &format!("resident a hot cart, {population} of them"),
            Unit::Kib,
            Goal::AtMost(48.0),
        );
        let host = big().start().await;
        host.deploy(cart::GUEST).await;
        call(host.services.address(), &[add("first", 1)], 1, Until::Sent).await?;
        let before = process::resident_kib(host.pid())?;
        let add: Vec<_> = (0..population).map(|n| add(&format!("cart-{n}"), 1)).collect();
        let measured = call(host.services.address(), &add, LOADERS, Until::Sent).await?;
        let after = process::resident_kib(host.pid())?;
        let hot = host.metric("stead_hot_entities").await;
        if hot < population as f64 {
            row.note = Some(format!("only {hot} were hot at the end"));
        }
        ensure!(
            measured.seconds < POPULATION_SECONDS_MAX || hot >= population as f64,
            "{population} carts took {:.0} s: the first were passivated meanwhile",
            measured.seconds
        );
        row.value((after - before) as f64 / hot.max(1.0));
        rows.push(row);
    }
    Ok(rows)
}

/// From the start of the process to the first answer, with the module compiled by an earlier one.
async fn first_call(settings: &Settings) -> anyhow::Result<Result> {
    eprintln!("  first call");
    let mut row =
        Result::new("start of the process to first answer", Unit::Ms, Goal::AtMost(300.0));
    let mut host = big().start().await;
    host.deploy(cart::GUEST).await;
    host.add("ada", "kettle", 1).await.ok();
    for _ in 0..settings.starts {
        let stopped = host.kill();
        let start = Instant::now();
        host = stopped.start().await;
        host.cart("ada").await;
        row.value(start.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(row)
}

pub fn big() -> Options {
    Options::default().env("STEAD_HOT_ENTITIES", "200000").env("STEAD_HOT_MEMORY", "1024GiB")
}

/// The load runs on a thread of its own.
pub async fn call(
    address: &str,
    requests: &[Bytes],
    connections: usize,
    until: Until,
) -> anyhow::Result<Measured> {
    let (address, requests) = (address.to_owned(), requests.to_vec());
    tokio::task::spawn_blocking(move || load::run(&address, &requests, connections, until)).await?
}

pub fn add(user: &str, quantity: i32) -> Bytes {
    let item = proto::AddLineItem {
        user_id: user.into(),
        product_id: "kettle".into(),
        name: "Kettle".into(),
        quantity,
    };
    load::request("POST", &format!("/{SERVICE}/AddItem"), PROTO, &item.encode_to_vec())
}

pub fn get(user: &str) -> Bytes {
    let cart = proto::GetShoppingCart { user_id: user.into() };
    load::request("POST", &format!("/{SERVICE}/GetCart"), PROTO, &cart.encode_to_vec())
}
