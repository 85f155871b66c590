//! Consumers and views: what carts persisted is counted by product, and the counts are a table to query.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stead_tests::Host;
use stead_tests::cart::GUEST;
use stead_tests::model::{self, BESIDE_EVERY_KIND, Model};

const GROUP: &str = "shopping-cart/hot-items";
/// Ample for what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);

async fn host() -> Host {
    let host = Host::with_guest(GUEST).await;
    host.deploy("hot-items").await;
    host
}

/// The table: how many of each product.
async fn table(host: &Host) -> BTreeMap<String, u64> {
    let list = host.services.get("/hot-items?pageSize=1000").await.ok();
    let row = |row: &Value| {
        let quantity = row["quantity"].as_str().expect("a number").parse().expect("a number");
        (row["productId"].as_str().expect("a product").to_owned(), quantity)
    };
    list["items"].as_array().expect("rows").iter().map(row).collect()
}

async fn table_becomes(host: &Host, expected: &BTreeMap<String, u64>) {
    let start = Instant::now();
    loop {
        let found = table(host).await;
        if found == *expected {
            return;
        }
        assert!(start.elapsed() < SOON, "expected {expected:?}, found {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(product, count)| ((*product).to_owned(), *count)).collect()
}

async fn consumer(host: &Host, group: &str) -> Value {
    let list = host.stead(&["--format", "json", "consumers", "list"]).await.json();
    let consumers = list["consumers"].as_array().expect("a list");
    let found = consumers.iter().find(|consumer| consumer["group"] == group);
    found.unwrap_or_else(|| panic!("{group} is not in {list}")).clone()
}

#[tokio::test]
async fn events_of_carts_are_counted_and_the_counts_are_a_table() {
    let host = host().await;
    for (user, product, quantity) in
        [("ada", "tea", 2), ("bob", "tea", 3), ("ada", "rice", 1), ("eve", "salt", 7)]
    {
        host.add(user, product, quantity).await.ok();
    }
    let expected = counts(&[("rice", 1), ("salt", 7), ("tea", 5)]);
    table_becomes(&host, &expected).await;
    let tea = host.services.get("/hot-items/tea").await.ok();
    assert_eq!((&tea["productId"], &tea["quantity"]), (&json!("tea"), &json!("5")));
    host.services.get("/hot-items/coffee").await.refused(404, "not_found");
    let group = consumer(&host, GROUP).await;
    assert_eq!((&group["behind"], &group["laggards"]), (&json!(0), &json!([])), "{group}");
    let view = consumer(&host, "view:com.example.hotitems.HotItems@1").await;
    assert_eq!((&view["view"], &view["serving"]), (&json!(true), &json!(true)), "{view}");
}

#[tokio::test]
async fn a_new_group_begins_with_the_first_event_there_is() {
    let host = Host::with_guest(GUEST).await;
    host.add("ada", "tea", 2).await.ok();
    host.add("bob", "tea", 1).await.ok();
    host.deploy("hot-items").await;
    table_becomes(&host, &counts(&[("tea", 3)])).await;
}

#[tokio::test]
async fn a_view_is_listed_by_page_in_order_and_by_filter() {
    let host = host().await;
    let mut expected = BTreeMap::new();
    for number in 1..=7 {
        let product = format!("p{number}");
        host.add("ada", &product, number).await.ok();
        expected.insert(product, number as u64);
    }
    table_becomes(&host, &expected).await;
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let page = format!("/hot-items?orderBy=quantity+desc&pageSize=3&pageToken={token}");
        let page = host.services.get(&page).await.ok();
        let rows = page["items"].as_array().expect("rows");
        assert!(rows.len() <= 3);
        found.extend(rows.iter().map(|row| row["productId"].as_str().expect("a name").to_owned()));
        token = page["nextPageToken"].as_str().expect("a token").to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["p7", "p6", "p5", "p4", "p3", "p2", "p1"]);
    let name = host.services.get("/hot-items/p3").await.ok()["name"].clone();
    let path = format!("/hot-items?name={}", name.as_str().expect("a name"));
    let filtered = host.services.get(&path).await.ok();
    let of_name = filtered["items"].as_array().expect("rows");
    assert!(of_name.iter().all(|row| row["name"] == name) && !of_name.is_empty(), "{filtered}");
}

#[tokio::test]
async fn questions_that_a_view_cannot_answer_are_refused_by_field() {
    let host = host().await;
    for (query, part) in [
        ("orderBy=color", "order_by is \"color\""),
        ("pageSize=-1", "page_size is -1"),
        ("pageToken=made-up", "page_token is not from an answer"),
    ] {
        let answer = host.services.get(&format!("/hot-items?{query}")).await;
        let message = answer.refused(400, "invalid_argument");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn nothing_is_lost_or_counted_twice_over_kills() {
    let mut host = host().await;
    let mut expected = BTreeMap::new();
    for _ in 0..3 {
        for number in 0..40 {
            let product = format!("p{}", number % 5);
            host.add(&format!("user-{number}"), &product, 1).await.ok();
            *expected.entry(product).or_insert(0) += 1;
        }
        host = host.kill_and_restart().await;
    }
    table_becomes(&host, &expected).await;
}

#[tokio::test]
async fn a_group_that_is_reset_consumes_again_and_the_entities_know_what_they_have_counted() {
    let host = host().await;
    host.add("ada", "tea", 2).await.ok();
    table_becomes(&host, &counts(&[("tea", 2)])).await;
    host.stead(&["consumers", "reset", GROUP, "--from", "beginning", "--yes"]).await.ok();
    host.add("ada", "rice", 1).await.ok();
    table_becomes(&host, &counts(&[("rice", 1), ("tea", 2)])).await;
}

#[tokio::test]
async fn what_is_no_group_is_refused() {
    let host = host().await;
    let reset = ["consumers", "reset", "no/such", "--from", "now", "--yes"];
    let ended = host.stead(&reset).await;
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("stead consumers list"), "{}", ended.stderr);
    let view = "view:com.example.hotitems.HotItems@1";
    let ended = host.stead(&["consumers", "reset", view, "--from", "now", "--yes"]).await;
    assert!(ended.stderr.contains("is a view"), "{}", ended.stderr);
    let ended = host.stead(&["consumers", "skip", GROUP, "ada", "1", "--yes"]).await;
    assert!(ended.stderr.contains("does not lag behind"), "{}", ended.stderr);
    let reset = json!({"group": GROUP, "to": "NOW", "partitions": [1]});
    let answer = host.admin.post("/v1/consumers:reset", &reset).await;
    let sentence = answer.refused(400, "invalid_argument");
    assert!(sentence.contains("partitions: there is no 1"), "{sentence}");
}

#[tokio::test]
async fn the_feed_is_served_as_server_sent_events() {
    let host = host().await;
    host.add("ada", "tea", 2).await.ok();
    let address = host.admin.address().to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{BufRead, BufReader, Write};
        let mut stream = std::net::TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        stream
            .write_all(
                b"GET /v1/feed?event_log=shopping-cart&from=beginning HTTP/1.1\r\nhost: localhost\r\n\r\n",
            )
            .expect("sends");
        let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
        let data = lines.find(|line| line.starts_with("data: ")).expect("an event");
        data["data: ".len()..].to_owned()
    });
    let event: Value = serde_json::from_str(&answer.await.expect("reads")).expect("JSON");
    assert_eq!((&event["eventLog"], &event["entityId"]), (&json!("shopping-cart"), &json!("ada")));
    assert_eq!(event["event"]["json"]["item"]["productId"], "tea", "{event}");
}

const MODEL_VIEW: &str = "stead.tck.v1.ModelView";

async fn emit(model: &Model, id: &str, values: &[&str]) {
    let actions: Vec<_> = values.iter().map(|value| model::emit(value)).collect();
    model.state(id, &actions).await;
}

async fn row_becomes(host: &Host, id: &str, text: &str) {
    let start = Instant::now();
    loop {
        let answer = host.services.post(&format!("/{MODEL_VIEW}/Get"), &json!({"id": id})).await;
        if answer.status.is_success() && answer.json()["text"] == text {
            return;
        }
        assert!(start.elapsed() < SOON, "the row of {id}: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn lags(host: &Host, group: &str, id: &str, seq: u64) -> Value {
    let start = Instant::now();
    loop {
        let group = consumer(host, group).await;
        let laggards = group["laggards"].as_array().expect("a list");
        if let Some(laggard) =
            laggards.iter().find(|laggard| laggard["entity_id"] == id && laggard["seq"] == seq)
        {
            return laggard.clone();
        }
        assert!(start.elapsed() < SOON, "{id} does not lag behind: {group}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_guest_that_traps_over_an_event_holds_up_that_entity_alone() {
    let model = Model::start(BESIDE_EVERY_KIND).await;
    emit(&model, "bad", &["a", "trap", "b"]).await;
    emit(&model, "good", &["a", "b"]).await;
    let laggard = lags(&model.host, "tck-model/tck", "bad", 2).await;
    assert!(laggard["error"].as_str().expect("a reason").contains("internal"), "{laggard}");
    // The view has no trouble with it, and the group none with the other entity.
    row_becomes(&model.host, "bad", "atrapb").await;
    row_becomes(&model.host, "good", "ab").await;
    let group = consumer(&model.host, "tck-model/tck").await;
    assert_eq!(group["laggards"].as_array().map(Vec::len), Some(1), "{group}");
}

#[tokio::test]
async fn a_poison_event_is_left_out_of_a_view_only_by_decision() {
    let model = Model::start(BESIDE_EVERY_KIND).await;
    let group = format!("view:{MODEL_VIEW}@1");
    emit(&model, "e", &["a", "no row", "b"]).await;
    lags(&model.host, &group, "e", 2).await;
    row_becomes(&model.host, "e", "a").await;
    model.host.stead(&["consumers", "skip", &group, "e", "2", "--yes"]).await.ok();
    row_becomes(&model.host, "e", "ab").await;
    assert!(model.host.log().contains("an operator had an event skipped"));
}

#[tokio::test]
async fn a_consumer_that_was_removed_and_comes_back_goes_on_where_it_was() {
    let model = Model::start(BESIDE_EVERY_KIND).await;
    emit(&model, "e", &["a"]).await;
    row_becomes(&model.host, "e", "a").await;
    let removed = model.host.upload(&stead_tests::files::guest("tck-model")).await;
    model.host.deploy_digest(&removed, true).await.ok();
    emit(&model, "e", &["b"]).await;
    model.host.deploy("tck-every-kind").await;
    row_becomes(&model.host, "e", "ab").await;
}

#[tokio::test]
async fn a_group_is_deleted_once_nothing_that_is_deployed_has_it() {
    let model = Model::start(BESIDE_EVERY_KIND).await;
    let host = &model.host;
    emit(&model, "e", &["a"]).await;
    row_becomes(host, "e", "a").await;
    let view = format!("view:{MODEL_VIEW}@1");
    let groups = [view.as_str(), "tck-model/tck"];
    let delete = async |group: &str| host.stead(&["consumers", "delete", group, "--yes"]).await;
    for group in groups {
        let refused = delete(group).await;
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("is deployed"), "{}", refused.stderr);
    }
    let removed = host.upload(&stead_tests::files::guest("tck-model")).await;
    host.deploy_digest(&removed, true).await.ok();
    let unsure = host.stead(&["consumers", "delete", &view]).await;
    assert!(unsure.stderr.contains("pass --yes if you mean it"), "{}", unsure.stderr);
    for group in groups {
        assert_eq!(consumer(host, group).await["service"], "");
        let deleted =
            host.stead(&["--format", "json", "consumers", "delete", group, "--yes"]).await;
        assert_eq!(deleted.json(), json!({ "group": group }));
        assert_eq!(delete(group).await.code, 3);
    }
    assert_eq!(
        host.stead(&["--format", "json", "consumers", "list"]).await.json()["consumers"],
        json!([])
    );
    // Had its row stayed, the view would have appended to it.
    host.deploy("tck-every-kind").await;
    emit(&model, "e", &["b"]).await;
    row_becomes(host, "e", "ab").await;
}
