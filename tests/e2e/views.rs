//! A view's new version is made beside the old one, and swapped in when it has caught up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stead_tests::Host;

const MODEL: &str = "/stead.tck.v1.EventSourcedModel/Process";
const VIEW: &str = "stead.tck.v1.ModelView";
const OLD: &str = "tck-every-kind";
/// Its rows list what they are made of the other way around, and take their time.
const NEW: &str = "tck-next-view";
const ENTITIES: usize = 20;
const EVENTS: usize = 40;
const SOON: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// What each entity has emitted, oldest first.
#[derive(Default)]
struct Emitted(BTreeMap<String, Vec<String>>);

impl Emitted {
    async fn emit(&mut self, host: &Host, id: &str, values: Vec<String>) {
        let actions: Vec<_> =
            values.iter().map(|value| json!({"emit": {"value": value}})).collect();
        host.services.post(MODEL, &json!({"id": id, "actions": actions})).await.ok();
        self.0.entry(id.to_owned()).or_default().extend(values);
    }

    async fn many(host: &Host) -> Self {
        let mut emitted = Self::default();
        for number in 0..ENTITIES {
            let values = (0..EVENTS).map(|event| format!("{event};")).collect();
            emitted.emit(host, &format!("e{number}"), values).await;
        }
        emitted
    }

    fn old_row(&self, id: &str) -> String {
        self.0[id].concat()
    }

    fn new_row(&self, id: &str) -> String {
        self.0[id].iter().rev().cloned().collect()
    }
}

async fn row(host: &Host, id: &str) -> Option<String> {
    let answer = host.services.post(&format!("/{VIEW}/Get"), &json!({"id": id})).await;
    answer.status.is_success().then(|| answer.json()["text"].as_str().expect("a text").to_owned())
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < SOON, "{what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn version(host: &Host, version: u32) -> Value {
    let list = host.admin.get("/v1/consumers").await.ok();
    let name = format!("view:{VIEW}@{version}");
    let consumers = list["consumers"].as_array().expect("consumers");
    consumers.iter().find(|consumer| consumer["group"] == name).cloned().unwrap_or_default()
}

async fn all_old(host: &Host, emitted: &Emitted) {
    for id in emitted.0.keys() {
        let expected = Some(emitted.old_row(id));
        until(&format!("the row of {id}"), async || row(host, id).await == expected).await;
    }
}

async fn all_new(host: &Host, emitted: &Emitted) {
    for id in emitted.0.keys() {
        let expected = Some(emitted.new_row(id));
        until(&format!("the new row of {id}"), async || row(host, id).await == expected).await;
    }
    let (old, new) = (version(host, 1).await, version(host, 2).await);
    assert_eq!((&new["serving"], &new["laggards"]), (&json!(true), &json!([])), "{new}");
    assert_ne!(old["serving"], true, "{old}");
    let text = host.stead(&["consumers", "list"]).await.ok().stdout;
    let line = text.lines().find(|line| line.contains(&format!("{VIEW}@2")));
    assert!(line.is_some_and(|line| line.contains("served")), "{text}");
}

#[tokio::test]
async fn old_rows_are_served_until_the_new_ones_have_caught_up() {
    let host = Host::with_guest(OLD).await;
    let mut emitted = Emitted::many(&host).await;
    all_old(&host, &emitted).await;
    host.deploy(NEW).await;

    let text = host.stead(&["consumers", "list"]).await.ok().stdout;
    let line = text.lines().find(|line| line.contains(&format!("{VIEW}@2"))).expect("it is listed");
    assert!(line.contains("being made"), "{text}");
    // What was there at the deployment is served as it was, while new events come all the time.
    let frozen: BTreeMap<_, _> =
        emitted.0.keys().map(|id| (id.clone(), emitted.old_row(id))).collect();
    let mut looks = 0;
    let start = Instant::now();
    for number in 0.. {
        let (id, old) = frozen.iter().nth(number % ENTITIES).expect("an entity");
        let found = row(&host, id).await.expect("a row at any time");
        if found != *old {
            assert!(found.ends_with(";1;0;"), "{found}");
            break;
        }
        looks += 1;
        let listed = version(&host, 2).await;
        let other = format!("e{}", (number + 7) % ENTITIES);
        emitted.emit(&host, &other, vec![format!("n{number};")]).await;
        assert!(start.elapsed() < SOON, "the new rows are not served: {listed}");
    }
    assert!(looks > 0, "the new rows were served at once");
    all_new(&host, &emitted).await;
    assert!(host.log().contains("a view has been made anew"));
}

#[tokio::test]
async fn a_kill_while_a_view_is_made_anew_loses_nothing() {
    let host = Host::with_guest(OLD).await;
    let mut emitted = Emitted::many(&host).await;
    all_old(&host, &emitted).await;
    host.deploy(NEW).await;
    assert_ne!(version(&host, 2).await["serving"], true);
    emitted.emit(&host, "e0", vec!["before the kill;".into()]).await;

    let host = host.kill_and_restart().await;
    // Whichever rows are served, they are whole: those of before the deployment, or the new ones.
    let found = row(&host, "e1").await.expect("a row right after the start");
    assert!([emitted.old_row("e1"), emitted.new_row("e1")].contains(&found), "{found}");
    emitted.emit(&host, "e0", vec!["after the kill;".into()]).await;
    all_new(&host, &emitted).await;
}

#[tokio::test]
async fn a_view_that_goes_back_to_its_old_version_is_made_anew_too() {
    let host = Host::with_guest(OLD).await;
    let mut emitted = Emitted::default();
    emitted.emit(&host, "e", vec!["a".into(), "b".into()]).await;
    all_old(&host, &emitted).await;
    host.deploy(NEW).await;
    all_new(&host, &emitted).await;
    host.stead(&["rollback", "1"]).await.ok();
    emitted.emit(&host, "e", vec!["c".into()]).await;
    all_old(&host, &emitted).await;
}
