//! Guests that trap where no caller waits: in a step of a workflow, in the workflow, in the command of a timer.
//! Consumers have theirs among the consumers.

use serde_json::{Value, json};
use stead_tests::eventually::{becomes, eventually};
use stead_tests::host::Options;
use stead_tests::model::{BESIDE_EVERY_KIND, Model, crash, crash_unless, emit, fail, values};

const FLOW: &str = "stead.tck.v1.FlowModel";
const MODEL: &str = BESIDE_EVERY_KIND.model;
const TWO: &str = BESIDE_EVERY_KIND.two;

async fn model() -> Model {
    Model::start(BESIDE_EVERY_KIND).await
}

/// The second service is told this.
fn step(id: &str, actions: &[Value], retries: u32) -> Value {
    let undo = [emit("undone")];
    json!({"id": id, "actions": actions, "undo": undo, "retries": retries})
}

async fn start(model: &Model, id: &str, steps: &[Value]) {
    let flow = json!({"id": id, "steps": steps});
    model.host.services.post(&format!("/{FLOW}/Start"), &flow).await.ok();
}

async fn status(model: &Model, id: &str) -> Value {
    model.host.services.post(&format!("/{FLOW}/Get"), &json!({"id": id})).await.ok()
}

/// Once it is over.
async fn ended(model: &Model, id: &str) -> Value {
    eventually(&format!("the end of {id}"), async || {
        let status = status(model, id).await;
        match status["state"] == "COMPLETED" || status["state"] == "FAILED" {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    })
    .await
}

/// Once it has trapped.
async fn trapped(model: &Model, service: &str, id: &str) {
    eventually(&format!("{id} traps"), async || {
        let found = model.host.admin.get(&format!("/v1/entities/{service}/{id}")).await;
        match found.status.is_success() && found.json()["lastCrash"]["what"] == "trap" {
            true => Ok(()),
            false => Err(found.text()),
        }
    })
    .await;
}

/// An entity, another one's timer and another workflow do not notice.
async fn others_go_on(model: &Model) {
    assert_eq!(model.state("neighbour", &[emit("A"), timer(&[emit("rang")])]).await, "A");
    becomes("the neighbour", "Arang".to_owned(), async || model.state("neighbour", &[]).await)
        .await;
    start(model, "good", &[step("good", &[emit("1")], 0)]).await;
    let status = ended(model, "good").await;
    assert_eq!(
        (&status["state"], &status["result"]["message"]),
        (&json!("COMPLETED"), &json!("1"))
    );
}

#[tokio::test]
async fn a_workflow_goes_on_when_its_step_does_not_trap_any_more() {
    let model = model().await;
    let steps = [
        step("a", &[emit("1")], 0),
        step("b", &[crash_unless("go"), emit("2")], 1_000),
        step("c", &[emit("3")], 0),
    ];
    start(&model, "flow", &steps).await;
    trapped(&model, TWO, "b").await;
    others_go_on(&model).await;
    assert_eq!(status(&model, "flow").await["state"], "RUNNING");
    assert_eq!(model.tell_two("b", &[emit("go")]).await, "go", "what trapped is alive");
    let status = ended(&model, "flow").await;
    assert_eq!(
        (&status["state"], &status["result"]["message"]),
        (&json!("COMPLETED"), &json!("3"))
    );
    assert_eq!(model.stored_by_two("a").await, values(&["1"]), "a finished step is not repeated");
    assert_eq!(model.stored_by_two("b").await, values(&["go", "2"]));
}

#[tokio::test]
async fn a_workflow_undoes_what_it_did_when_its_step_traps_at_every_try() {
    let model = model().await;
    start(&model, "flow", &[step("a", &[emit("1")], 0), step("b", &[crash()], 2)]).await;
    let status = ended(&model, "flow").await;
    assert_eq!(status["state"], "FAILED", "{status}");
    let message = status["message"].as_str().expect("a message");
    assert!(!message.contains("as told"), "the guest's internals are in: {message}");
    // Whether the step that trapped had happened is not for the workflow to know.
    assert_eq!(status["compensated"], json!(["step 1", "step 0"]), "{status}");
    assert_eq!(model.stored_by_two("a").await, values(&["1", "undone"]));
    assert_eq!(model.stored_by_two("b").await, values(&["undone"]));
    assert_eq!(model.host.metric("stead_crashes_total").await, 3.0, "a try and two more");
    others_go_on(&model).await;
}

#[tokio::test]
async fn what_undoes_a_step_is_tried_until_it_does_not_trap_any_more() {
    let model = model().await;
    let mut first = step("a", &[emit("1")], 0);
    first["undo"] = json!([crash_unless("go"), emit("undone")]);
    start(&model, "flow", &[first, step("b", &[fail("no")], 0)]).await;
    trapped(&model, TWO, "a").await;
    others_go_on(&model).await;
    assert_eq!(status(&model, "flow").await["state"], "COMPENSATING");
    assert_eq!(model.tell_two("a", &[emit("go")]).await, "1go");
    let status = ended(&model, "flow").await;
    assert_eq!((&status["state"], &status["message"]), (&json!("FAILED"), &json!("no")));
    assert_eq!(status["compensated"], json!(["step 0"]), "{status}");
    assert_eq!(model.stored_by_two("a").await, values(&["1", "go", "undone"]));
}

#[tokio::test]
async fn a_workflow_that_traps_itself_keeps_what_it_has_and_its_result_waits() {
    let model =
        Model::with(Options::default().argument("--effect-tries=3"), BESIDE_EVERY_KIND).await;
    let mut bad = step("a", &[emit("1")], 0);
    bad["crash"] = json!(true);
    start(&model, "bad", &[bad]).await;
    trapped(&model, FLOW, "bad").await;
    others_go_on(&model).await;
    let letter = eventually("the result is parked", async || {
        let list =
            model.host.stead(&["--format", "json", "dead-letters", "list"]).await.ok().json();
        match &list["dead_letters"][0] {
            Value::Null => Err(list.to_string()),
            letter => Ok(letter.clone()),
        }
    })
    .await;
    assert_eq!((&letter["entity_id"], &letter["tries"]), (&json!("bad"), &json!(3)), "{letter}");
    let error = letter["error"].as_str().expect("an error");
    assert!(error.contains("its result could not be given back"), "{error}");
    assert_eq!(status(&model, "bad").await["state"], "RUNNING");
    assert_eq!(model.stored_by_two("a").await, values(&["1"]), "the step happened once");
}

/// Wakes the entity at once.
fn timer(actions: &[Value]) -> Value {
    json!({"setTimer": {"name": "alarm", "afterMs": "1", "actions": actions}})
}

#[tokio::test]
async fn a_timer_whose_command_traps_fires_again_later() {
    let model = model().await;
    model.state("e1", &[emit("A"), timer(&[crash_unless("go"), emit("rang")])]).await;
    trapped(&model, MODEL, "e1").await;
    others_go_on(&model).await;
    let alarm = eventually("the alarm has failed", async || {
        let entity = model.host.entity(MODEL, "e1").await;
        match entity["timers"][0]["tries"].as_u64() {
            Some(tries) if tries > 0 => Ok(entity["timers"][0].clone()),
            _ => Err(entity.to_string()),
        }
    })
    .await;
    assert_eq!(alarm["name"], "alarm", "{alarm}");
    assert!(!alarm["error"].as_str().expect("an error").is_empty(), "{alarm}");
    assert_eq!(model.state("e1", &[emit("go")]).await, "Ago", "the entity is alive");
    becomes("e1", "Agorang".to_owned(), async || model.state("e1", &[]).await).await;
    assert_eq!(model.stored("e1").await, values(&["A", "go", "rang"]));
    let timers = model.host.entity(MODEL, "e1").await["timers"].clone();
    assert!(timers.as_array().is_none_or(Vec::is_empty), "{timers}");
}
