//! Value entities: a state, its versions, and nothing else.

use serde_json::{Value, json};
use stead::journal::{Fence, Write};
use stead::words::{Address, Code, EntityId, Message, Seq, limits};

use crate::house::{EVERY_KIND, House};

const VALUE: &str = "stead.tck.v1.ValueEntityModel";

fn address() -> Address {
    Address::new("tck-value-model", "v")
}

async fn tell(house: &House, actions: Value) -> Result<String, Code> {
    let request = house.request(VALUE, "Process", json!({"id": "v", "actions": actions}));
    let reply = house.send(request).await.map_err(|status| status.code)?;
    Ok(reply["message"].as_str().expect("a message").to_owned())
}

fn update(value: &str) -> Value {
    json!({"update": {"value": value}})
}

async fn state(house: &House, at: Option<u64>) -> Result<Option<String>, Code> {
    let live = house.registry.live();
    let (service, _) = live.method(VALUE, "Process").expect("a method");
    let state = house.entities.state(service, &EntityId::from("v"), at.map(Seq)).await;
    let state = state.map_err(|status| status.code)?.state;
    // A message with one string: its tag and its length stand before it.
    Ok(state.map(|state| String::from_utf8_lossy(state.data.get(2..).unwrap_or_default()).into()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_change_of_a_command_counts_and_is_one_version() {
    let house = House::with(&[EVERY_KIND]).await;
    assert_eq!(tell(&house, json!([])).await.unwrap(), "");
    assert_eq!(tell(&house, json!([update("a"), update("b")])).await.unwrap(), "b");
    assert_eq!(house.stored_events(&address()).await, 1);
    assert_eq!(tell(&house, json!([{"delete": {}}, update("c")])).await.unwrap(), "c");
    assert_eq!(state(&house, None).await.unwrap().as_deref(), Some("c"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_comes_back_after_passivation_and_a_deleted_one_does_not() {
    let house = House::with(&[EVERY_KIND]).await;
    tell(&house, json!([update("kept")])).await.unwrap();
    assert!(house.entities.passivate(&address()).await);
    assert_eq!(tell(&house, json!([])).await.unwrap(), "kept");
    assert_eq!(tell(&house, json!([{"delete": {}}])).await.unwrap(), "");
    assert!(house.entities.passivate(&address()).await);
    assert_eq!(tell(&house, json!([])).await.unwrap(), "");
    assert_eq!(state(&house, None).await.unwrap(), None);
    assert_eq!(tell(&house, json!([update("new")])).await.unwrap(), "new");
    assert_eq!(house.stored_events(&address()).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_command_changes_nothing() {
    let house = House::with(&[EVERY_KIND]).await;
    tell(&house, json!([update("a")])).await.unwrap();
    let told = json!([update("b"), {"fail": {"message": "no"}}]);
    assert_eq!(tell(&house, told).await, Err(Code::FailedPrecondition));
    assert_eq!(tell(&house, json!([])).await.unwrap(), "a");
    assert_eq!(house.stored_events(&address()).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_versions_are_kept_as_the_type_asks_for() {
    let house = House::with(&[EVERY_KIND]).await;
    for version in 1..=33 {
        tell(&house, json!([update(&version.to_string())])).await.unwrap();
    }
    // Old ones went with version 32, of which the type keeps three.
    for version in 30..=33 {
        let kept = state(&house, Some(version)).await.unwrap();
        assert_eq!(kept, Some(version.to_string()));
    }
    assert_eq!(state(&house, Some(29)).await, Err(Code::OutOfRange));
    assert_eq!(state(&house, Some(34)).await, Err(Code::OutOfRange));
    let again = House::again(&house.store).await;
    assert_eq!(tell(&again, json!([])).await.unwrap(), "33");
}

/// The entity's first two versions, "a" and "b".
async fn first_versions(house: &House) -> [Message; 2] {
    tell(house, json!([update("a")])).await.unwrap();
    tell(house, json!([update("b")])).await.unwrap();
    let page = house.journal.events(&address(), Seq(1), 2, 1 << 20).await.unwrap();
    let events: Vec<Message> = page.events.into_iter().map(|stored| stored.event).collect();
    events.try_into().unwrap()
}

/// The version after `after`, which lets the store drop all before it.
fn replacing(after: u64, state: &Message) -> Write {
    let after = Seq(after);
    Write {
        events: vec![state.clone()],
        forget_before: Some(after.plus(1)),
        ..Write::new(address(), Fence::default(), after, 0)
    }
}

async fn stale(house: &House) -> Result<String, Code> {
    let request = house.request(VALUE, "Process", json!({"id": "v", "actions": []}));
    let reply = house.entities.stale(&request).await.map_err(|status| status.code)?;
    Ok(String::from_utf8_lossy(reply.get(2..).unwrap_or_default()).into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_another_node_replaces_while_it_is_read_is_no_loss() {
    let house = House::with(&[EVERY_KIND]).await;
    let [a, b] = first_versions(&house).await;
    house.store.store_after_load(replacing(2, &a));
    assert_eq!(stale(&house).await.unwrap(), "a");
    house.store.store_after_load(replacing(3, &b));
    assert_eq!(state(&house, None).await.unwrap().as_deref(), Some("b"));
    // One that was asked for by its number has been there, and is not kept.
    house.store.store_after_load(replacing(4, &a));
    assert_eq!(state(&house, Some(4)).await, Err(Code::OutOfRange));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_replaced_over_and_over_is_not_looked_for_for_ever() {
    let house = House::with(&[EVERY_KIND]).await;
    let [a, _] = first_versions(&house).await;
    for read in 0..limits::VALUE_READS_MAX {
        house.store.store_after_load(replacing(2 + u64::from(read), &a));
    }
    assert_eq!(state(&house, None).await, Err(Code::Unavailable));
    assert_eq!(state(&house, None).await.unwrap().as_deref(), Some("a"));
}
