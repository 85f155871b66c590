//! Consumers, views, timers and effects, whichever node holds the shard and whichever is asked.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use stead_proto::admin::v1::WatchEventsRequest;
use stead_proto::admin::v1::admin_client::AdminClient;
use stead_tests::Host;
use stead_tests::cart::GUEST;
use stead_tests::cluster::{Cluster, Setup};
use tonic::transport::Channel;

use crate::cluster::until;

const MODEL: &str = "stead.tck.v1.EventSourcedModel";
const VIEW: &str = "stead.tck.v1.ModelView";
const GROUP: &str = "tck-model/tck";
const ENTITIES: usize = 80;
/// Shards go to new nodes a few at a time.
const SHARED_WITHIN: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(90);

/// Three nodes, each with shards.
async fn three(guest: &str, argument: &[&str]) -> Cluster {
    let mut setup = Setup::nodes(3);
    for argument in argument {
        setup = setup.argument(argument);
    }
    let cluster = setup.start(GUEST).await;
    cluster.host(0).deploy(guest).await;
    for node in cluster.up() {
        let path = format!("/{MODEL}/Process");
        let look = async || cluster.host(node).services.post(&path, &json!({"id": "x"})).await;
        until("it is live", SOON, look, |answer| answer.status == StatusCode::OK).await;
    }
    let owned = async || cluster.up().into_iter().map(|node| cluster.owned(node)).collect();
    let is_shared = |owned: &Vec<i64>| owned.iter().all(|shards| *shards >= 3);
    until("all own shards", SHARED_WITHIN, owned, is_shared).await;
    cluster
}

/// A shard on its way may keep a command waiting for too long, and a node that was killed may have stored what it did
/// not answer any more: tells it again, and has it take effect once.
async fn tell(host: &Host, id: &str, actions: Value) {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let key = format!("told-{}", TOLD.fetch_add(1, Ordering::Relaxed));
    let services = host.services.with_header("idempotency-key", &key);
    let path = format!("/{MODEL}/Process");
    let body = json!({"id": id, "actions": actions});
    let look = async || services.post(&path, &body).await;
    until(&path, SOON, look, |answer| !answer.status.is_server_error()).await.ok();
}

/// Has an operator's decision taken. While a shard is on its way, nobody may know of what is in it; and what was
/// not answered may have been done, so that there is nothing left to decide.
async fn decide(host: &Host, path: &str, decision: &Value) {
    let may_be_done = Cell::new(false);
    let look = async || host.admin.post(path, decision).await;
    until(path, SOON, look, |answer| {
        let was_done = may_be_done.get() && answer.status.is_client_error();
        may_be_done.set(answer.status.is_server_error());
        answer.status == StatusCode::OK || was_done
    })
    .await;
}

fn emit(value: &str) -> Value {
    json!({"emit": {"value": value}})
}

fn entities() -> impl Iterator<Item = String> {
    (0..ENTITIES).map(|number| format!("e{number}"))
}

async fn consumer(host: &Host, group: &str) -> Value {
    let list = host.stead(&["consumers", "list", "--format", "json"]).await.ok().json();
    let consumers = list["consumers"].as_array().expect("consumers");
    let found = consumers.iter().find(|consumer| consumer["group"] == group);
    found.cloned().unwrap_or_default()
}

async fn caught_up(host: &Host, group: &str) {
    let what = format!("{group} has caught up");
    let look = async || consumer(host, group).await;
    until(&what, SOON, look, |found| found["behind"] == 0).await;
}

/// Of a group, at one node.
async fn metric(host: &Host, name: &str, group: &str) -> u64 {
    let text = host.metrics().await;
    let label = format!("group=\"{group}\"");
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(&label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

async fn values(host: &Host, id: &str) -> Vec<String> {
    let events = host.events(MODEL, id).await;
    events.iter().map(|event| event["json"]["value"].as_str().expect("a value").into()).collect()
}

/// Every row is the fold of its journal, whoever is asked.
async fn views_are_folds(cluster: &Cluster) {
    for id in entities() {
        for node in cluster.up() {
            let host = cluster.host(node);
            let expected = values(host, &id).await.concat();
            let look = async || {
                let row = host.services.post(&format!("/{VIEW}/Get"), &json!({"id": id})).await;
                row.status.is_success().then(|| row.json()["text"].clone())
            };
            until(&format!("the row of {id} at {node}"), SOON, look, |text| {
                text.as_ref().is_some_and(|text| *text == expected)
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_group_consumes_the_events_of_all_nodes_and_begins_again_at_all() {
    let cluster = three("tck-every-kind", &[]).await;
    let mut number = 0;
    for id in entities() {
        for node in cluster.up() {
            tell(cluster.host(node), &id, json!([emit(&format!("{number};"))])).await;
            number += 1;
        }
    }
    for node in cluster.up() {
        caught_up(cluster.host(node), GROUP).await;
    }
    views_are_folds(&cluster).await;
    let consumed = async || {
        let mut consumed = Vec::new();
        for node in cluster.up() {
            consumed.push(metric(cluster.host(node), "stead_consumed_events", GROUP).await);
        }
        consumed
    };
    let before = consumed().await;
    // An event may have been consumed twice where its shard was on the move.
    assert!(before.iter().sum::<u64>() >= number, "{before:?}");

    let reset = ["consumers", "reset", GROUP, "--from", "beginning", "--yes"];
    cluster.host(1).stead(&reset).await.ok();
    until("all is consumed again", SOON, consumed, |now| {
        let more = now.iter().zip(&before).map(|(now, before)| now - before);
        more.clone().all(|more| more > 0) && more.sum::<u64>() >= number
    })
    .await;
    for node in cluster.up() {
        let host = cluster.host(node);
        assert!(host.log().contains("an operator made a group begin again"), "{}", host.log());
        caught_up(host, GROUP).await;
    }
    cluster.check_rows();
}

#[tokio::test]
async fn any_node_tells_of_all_laggards_and_lets_a_group_go_on() {
    let cluster = three("tck-every-kind", &[]).await;
    for (number, id) in entities().enumerate() {
        let host = cluster.host(number % 3);
        tell(host, &id, json!([emit("a"), emit("poison"), emit("b")])).await;
    }
    let laggards = |found: &Value| found["laggards"].as_array().map_or(0, Vec::len);
    for node in cluster.up() {
        let look = async || consumer(cluster.host(node), GROUP).await;
        let found = until("all lag behind", SOON, look, |found| laggards(found) == ENTITIES).await;
        let listed = found["laggards"].as_array().expect("laggards").iter();
        let ids: BTreeSet<_> = listed.map(|row| row["entity_id"].as_str().unwrap()).collect();
        assert_eq!(ids, entities().collect::<Vec<_>>().iter().map(|id| &**id).collect());
    }
    for node in cluster.up() {
        let lagging = metric(cluster.host(node), "stead_consumer_laggards", GROUP).await;
        assert!(lagging > 0, "node {node} reads nothing");
    }
    for (number, id) in entities().enumerate() {
        let skip = json!({"group": GROUP, "entityId": id, "seq": "2"});
        decide(cluster.host(number % 3), "/v1/consumers:skipEvent", &skip).await;
    }
    for node in cluster.up() {
        let look = async || consumer(cluster.host(node), GROUP).await;
        until("none lags behind", SOON, look, |found| laggards(found) == 0).await;
    }
    let skip = json!({"group": GROUP, "entityId": "e1", "seq": "2"});
    let again = cluster.host(2).admin.post("/v1/consumers:skipEvent", &skip).await;
    let sentence = again.refused(400, "failed_precondition");
    assert!(sentence.contains("nothing was skipped"), "{sentence}");
    let skipped = cluster
        .up()
        .into_iter()
        .map(|node| cluster.host(node).log().matches("an operator had an event skipped").count());
    assert_eq!(skipped.sum::<usize>(), ENTITIES);
}

#[tokio::test]
async fn a_node_that_is_killed_leaves_its_partitions_and_timers_to_the_others() {
    let mut cluster = three("tck-every-kind", &[]).await;
    let due = SystemTime::now() + Duration::from_secs(8);
    let due_ms = due.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let timer = json!({"setTimer": {
        "name": "t", "atMs": due_ms.to_string(), "actions": [emit("timer;")]
    }});
    for (number, id) in entities().enumerate() {
        let actions = json!([emit("a;"), emit("poison;"), timer.clone()]);
        tell(cluster.host(number % 3), &id, actions).await;
    }
    let gone = cluster.owned(2);
    assert!(gone > 0);
    cluster.kill(2);
    for (number, id) in entities().enumerate() {
        tell(cluster.host(number % 2), &id, json!([emit("b;")])).await;
    }
    cluster.all_owned(SOON).await;
    for id in entities() {
        let look = async || values(cluster.host(0), &id).await;
        let is_whole = |values: &Vec<String>| values.contains(&"timer;".to_owned());
        let mut found = until(&format!("the timer of {id}"), SOON, look, is_whole).await;
        found.sort_unstable();
        assert_eq!(found, ["a;", "b;", "poison;", "timer;"], "{id}");
    }
    views_are_folds(&cluster).await;
    // The poison is not forgotten either.
    for node in cluster.up() {
        let look = async || consumer(cluster.host(node), GROUP).await;
        until("all lag behind", SOON, look, |found| {
            found["laggards"].as_array().map_or(0, Vec::len) == ENTITIES
        })
        .await;
    }
    // Whoever holds the partitions now consumes what comes.
    let before = consumer(cluster.host(0), GROUP).await;
    assert_eq!(before["service"], "stead.tck.v1.EventConsumer", "{before}");
    // Nor is anybody kept from a decision by who is not there.
    let reset = ["consumers", "reset", GROUP, "--from", "now", "--yes"];
    cluster.host(0).stead(&reset).await.ok();
    tell(cluster.host(0), "later", json!([emit("c")])).await;
    caught_up(cluster.host(1), GROUP).await;
    cluster.check_rows();
}

#[tokio::test]
async fn dead_letters_of_all_nodes_are_anybodys_to_list_retry_and_drop() {
    let cluster = three("tck-every-kind", &["--effect-tries", "2"]).await;
    let crashing = |id: &str| json!([emit("x"), {"effect": {"id": format!("of-{id}"), "actions": [{"crash": {}}]}}]);
    for (number, id) in entities().enumerate() {
        tell(cluster.host(number % 3), &id, crashing(&id)).await;
    }
    let letters = async |node: usize| {
        let list = cluster.host(node).admin.get("/v1/deadLetters?pageSize=1000").await.ok();
        let letters = list["deadLetters"].as_array().cloned().unwrap_or_default();
        let letter = |letter: &Value| {
            (letter["entityId"].as_str().expect("an id").to_owned(), letter.clone())
        };
        letters.iter().map(letter).collect::<BTreeMap<_, _>>()
    };
    for node in cluster.up() {
        let found =
            until("all are dead", SOON, async || letters(node).await, |f| f.len() == ENTITIES);
        assert_eq!(found.await.into_keys().collect::<BTreeSet<_>>(), entities().collect());
    }
    let all = letters(0).await;
    // One retries, another drops.
    let failed = async || {
        let mut failed = 0.0;
        for node in cluster.up() {
            failed += cluster.host(node).metric("stead_effects_total").await;
        }
        failed
    };
    let before = failed().await;
    for letter in all.values() {
        let path = format!("/v1/deadLetters/{}:retry", letter["id"].as_str().expect("an id"));
        decide(cluster.host(1), &path, &json!({})).await;
    }
    let tried = 2.0 * ENTITIES as f64;
    until("all are tried again", SOON, failed, |now| now - before >= tried).await;
    until("all are dead again", SOON, async || letters(2).await, |f| f.len() == ENTITIES).await;
    for letter in all.values() {
        let path = format!("/v1/deadLetters/{}:drop", letter["id"].as_str().expect("an id"));
        decide(cluster.host(2), &path, &json!({})).await;
    }
    for node in cluster.up() {
        assert_eq!(letters(node).await, BTreeMap::new(), "at node {node}");
    }
}

#[tokio::test]
async fn the_feed_of_any_node_has_the_events_of_all_and_goes_on_at_another() {
    let cluster = three("tck-every-kind", &[]).await;
    for (number, id) in entities().enumerate() {
        tell(cluster.host(number % 3), &id, json!([emit("a"), emit("b")])).await;
    }
    let mut seen = BTreeMap::new();
    let mut from = "beginning".to_owned();
    for node in cluster.up().into_iter().cycle() {
        let base = cluster.host(node).admin.base().to_owned();
        let channel = Channel::from_shared(base).expect("an address").connect().await;
        let mut client = AdminClient::new(channel.expect("connects"));
        let request = WatchEventsRequest {
            event_log: MODEL.into(),
            from: std::mem::take(&mut from),
            ..WatchEventsRequest::default()
        };
        let mut events = client.watch_events(request).await.expect("opens").into_inner();
        // A third, and then to the next event that says how to go on.
        for count in 0.. {
            let event = tokio::time::timeout(SOON, events.next()).await.expect("an event in time");
            let event = event.expect("no end").expect("no error");
            let seq = event.event.as_ref().expect("an event").seq;
            let last: &mut u64 = seen.entry(event.entity_id.clone()).or_default();
            assert_eq!(seq, *last + 1, "of {}", event.entity_id);
            *last = seq;
            let is_all = seen.len() == ENTITIES && seen.values().all(|last| *last == 2);
            if !event.position.is_empty() && (is_all || count > ENTITIES * 2 / 3) {
                from = event.position;
                break;
            }
        }
        if seen.len() == ENTITIES && seen.values().all(|last| *last == 2) {
            break;
        }
    }
}
