//! A shopping cart that survives kill -9, shown and checked.

mod cluster;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::host::Host;
use crate::{cargo, guests, http, steps, tools};

const SERVICE: &str = "com.example.shoppingcart.ShoppingCart";
const CUSTOMER: &str = "ada";

/// The host and the cart, built.
fn build() -> anyhow::Result<(PathBuf, PathBuf)> {
    tools::ensure_toolchain()?;
    let stead = steps::long(
        "host",
        "cargo build --package stead-host (minutes the first time, seconds after)",
        "the host is built",
        cargo::build_host,
    )?;
    let cart = tools::root().join("examples/shopping-cart");
    let component = guests::build(&stead, &cart, "shopping-cart", None)?;
    Ok((stead, component))
}

pub fn run_cluster() -> anyhow::Result<()> {
    steps::title("Stead: three nodes, and no item lost while they come and go");
    tools::ensure_postgres()?;
    let (stead, component) = build()?;
    let dir = temporary_dir()?;
    match cluster::run(&stead, &component, &dir) {
        Ok(()) => {
            std::fs::remove_dir_all(&dir)?;
            eprintln!("\nAll of it was right.");
            Ok(())
        }
        Err(error) => Err(error.context(format!("data and logs are left in {}", dir.display()))),
    }
}

pub fn run(keep: bool) -> anyhow::Result<()> {
    steps::title("Stead: a shopping cart that survives kill -9");
    let (stead, component) = build()?;
    let dir = temporary_dir()?;
    let shown = show(&stead, &component, &dir);
    match shown {
        Ok(host) if keep => {
            what_next(&stead, &host, &dir);
            host.leave_running();
            Ok(())
        }
        Ok(host) => {
            drop(host);
            std::fs::remove_dir_all(&dir)?;
            eprintln!("\nAll of it was right. `cargo xtask demo --keep` leaves the host running.");
            Ok(())
        }
        Err(error) => Err(error.context(format!("data and log are left in {}", dir.display()))),
    }
}

fn show(stead: &Path, component: &Path, dir: &Path) -> anyhow::Result<Host> {
    let host = start(stead, dir, "a node on a fresh data directory")?;
    let mut deploy = client(stead, &host);
    deploy.arg("deploy").arg(component).arg("--yes");
    let typed = tools::show(&deploy);
    steps::short("deploy", |_| tools::output(&mut deploy), &typed)?;

    add_over_http(&host, "kettle", "Kettle", 1)?;
    add_over_grpc(stead, &host, "teapot", "Teapot", 2)?;
    add_over_http(&host, "tea", "Assam, 250 g", 3)?;
    let before = cart(&host)?;
    let wanted = json!({"items": [
        {"productId": "kettle", "name": "Kettle", "quantity": 1},
        {"productId": "teapot", "name": "Teapot", "quantity": 2},
        {"productId": "tea", "name": "Assam, 250 g", "quantity": 3},
    ]});
    if sorted(&before) != sorted(&wanted) {
        bail!("the cart is wrong: {before}");
    }

    let pid = host.pid();
    steps::short(
        "kill",
        |text| {
            *text = format!("kill -9 {pid}: {}", host.kill()?);
            Ok(())
        },
        "",
    )?;
    let host = start(stead, dir, "again, on the same data directory")?;
    let after = cart(&host)?;
    if after != before {
        bail!("the cart was {before} before the host was killed, and is {after} now");
    }
    journal(&host)?;
    Ok(host)
}

fn start(stead: &Path, dir: &Path, what: &str) -> anyhow::Result<Host> {
    steps::short(
        "serve",
        |text| {
            let host = Host::start(stead, dir)?;
            *text = format!("{what}: {} (pid {})", host.services, host.pid());
            Ok(host)
        },
        what,
    )
}

fn add_over_http(host: &Host, product: &str, name: &str, quantity: u32) -> anyhow::Result<()> {
    let path = format!("/cart/{CUSTOMER}/items/add");
    let item = json!({"productId": product, "name": name, "quantity": quantity});
    steps::short(
        "http",
        |_| http::json("POST", &host.services, &path, Some(&item)),
        &format!("POST {path}  {quantity} x {product}"),
    )?;
    Ok(())
}

fn add_over_grpc(
    stead: &Path,
    host: &Host,
    product: &str,
    name: &str,
    quantity: u32,
) -> anyhow::Result<()> {
    let item = json!({
        "userId": CUSTOMER, "productId": product, "name": name, "quantity": quantity
    });
    let mut call = client(stead, host);
    call.arg("call").arg(format!("{SERVICE}/AddItem")).arg(item.to_string());
    steps::short(
        "grpc",
        |_| tools::output(&mut call),
        &format!("stead call ShoppingCart/AddItem  {quantity} x {product}"),
    )?;
    Ok(())
}

fn cart(host: &Host) -> anyhow::Result<Value> {
    let path = format!("/carts/{CUSTOMER}");
    let cart = steps::short(
        "http",
        |_| http::json("GET", &host.services, &path, None),
        &format!("GET {path}"),
    )?;
    for item in cart["items"].as_array().into_iter().flatten() {
        steps::detail(&format!(
            "{:>3} x {}",
            item["quantity"],
            item["name"].as_str().unwrap_or("?")
        ));
    }
    Ok(cart)
}

/// The three events, numbered from 1.
fn journal(host: &Host) -> anyhow::Result<()> {
    let path = format!("/v1/entities/{SERVICE}/{CUSTOMER}/events");
    let answer = steps::short(
        "journal",
        |_| http::json("GET", &host.admin, &path, None),
        &format!("stead entity events of {CUSTOMER}"),
    )?;
    let events = answer["events"].as_array().context("the journal is empty")?;
    for event in events {
        let seq = event["seq"].as_str().unwrap_or("?");
        let name = event["type"].as_str().unwrap_or("?").rsplit('.').next().unwrap_or("?");
        steps::detail(&format!("{seq:>3}  {name}  {}", event["json"]));
    }
    let numbers: Vec<_> = events.iter().filter_map(|event| event["seq"].as_str()).collect();
    if numbers != ["1", "2", "3"] {
        bail!("the journal should have the events 1 to 3 and has {numbers:?}");
    }
    Ok(())
}

fn client(stead: &Path, host: &Host) -> Command {
    let mut command = Command::new(stead);
    command.env("STEAD_URL", &host.services).env("STEAD_ADMIN_URL", &host.admin);
    command
}

/// Items in the order of their ids: the order within a cart is the cart's own business.
fn sorted(cart: &Value) -> Vec<String> {
    let mut items: Vec<_> =
        cart["items"].as_array().into_iter().flatten().map(Value::to_string).collect();
    items.sort();
    items
}

fn temporary_dir() -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("stead-demo-{}", std::process::id()));
    std::fs::create_dir_all(&dir)
        .with_context(|| format!("cannot create the data directory {}", dir.display()))?;
    Ok(dir)
}

fn what_next(stead: &Path, host: &Host, dir: &Path) {
    let Host { services, admin, log, .. } = host;
    let stead = stead.display();
    eprintln!(
        "
The host goes on running (pid {pid}). Try:

  export STEAD_URL={services} STEAD_ADMIN_URL={admin}
  curl -s {services}/carts/{CUSTOMER}
  curl -s {services}/cart/{CUSTOMER}/items/add -d '{{\"productId\":\"scone\",\"name\":\"Scone\",\"quantity\":4}}' \\
       -H 'content-type: application/json' -H 'idempotency-key: scones-1'
  {stead} call {SERVICE}/GetCart '{{\"userId\":\"{CUSTOMER}\"}}'
  {stead} entity list
  {stead} entity events {SERVICE} {CUSTOMER}

Stop it with `kill {pid}`. Its log is {log}, its data {data}.",
        pid = host.pid(),
        log = log.display(),
        data = dir.join("data").display(),
    );
}
