//! Rows of the acceptance list that event-sourced entities and value entities have in common. Each of the two
//! lists them with `rows!`.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use stead_tests::model::{Kind, Model, effect, fail, forward, synchronous, values};

/// Makes a test of each row.
macro_rules! rows {
    ($kind:expr; $($row:ident)*) => {
        $(
            #[tokio::test]
            async fn $row() {
                $crate::rows::$row($kind).await;
            }
        )*
    };
}
pub(crate) use rows;

pub async fn initial_empty_state(kind: Kind) {
    let model = Model::start(kind).await;
    assert_eq!(model.state("e1", &[]).await, "");
    assert!(model.stored("e1").await.is_empty());
}

pub async fn rehydration_after_passivation(kind: Kind) {
    let model = Model::start(kind).await;
    model.state("e1", &[kind.change("A"), kind.change("B")]).await;
    assert_eq!(model.host.passivate(kind.model, "e1").await["wasHot"], true);
    assert_eq!(model.state("e1", &[]).await, kind.after(&["A", "B"]));
    assert_eq!(model.state("e1", &[kind.change("C")]).await, kind.after(&["A", "B", "C"]));
    assert_eq!(model.host.metric("stead_activations_total").await, 2.0);
}

pub async fn forward_to_a_second_service(kind: Kind) {
    let model = Model::start(kind).await;
    assert_eq!(model.state("e1", &[forward("t", &[kind.change("X")])]).await, "X");
    assert_eq!(model.stored_by_two("t").await, values(&["X"]));
    assert!(model.stored("e1").await.is_empty());
}

pub async fn effect_to_a_second_service(kind: Kind) {
    let model = Model::start(kind).await;
    assert_eq!(model.state("e1", &[effect("t", &[kind.change("X")])]).await, "");
    model.two_becomes("t", "X").await;
    assert_eq!(model.stored_by_two("t").await, values(&["X"]));
    assert!(model.stored("e1").await.is_empty());
}

pub async fn synchronous_effect(kind: Kind) {
    let model = Model::start(kind).await;
    assert_eq!(model.state("e1", &[synchronous("t", &[kind.change("X")])]).await, "");
    // It is there when the answer is.
    assert_eq!(model.stored_by_two("t").await, values(&["X"]));
}

pub async fn forward_and_effect(kind: Kind) {
    let model = Model::start(kind).await;
    let actions = [
        effect("u", &[kind.change("Y")]),
        synchronous("t", &[kind.change("X")]),
        forward("t", &[]),
    ];
    // The forward comes after the effects, and finds what they have done.
    assert_eq!(model.state("e1", &actions).await, "X");
    model.two_becomes("u", "Y").await;
}

pub async fn several_effects(kind: Kind) {
    let model = Model::start(kind).await;
    let actions = [
        kind.change("A"),
        effect("t", &[kind.change("1")]),
        effect("t", &[kind.change("2")]),
        effect("u", &[kind.change("Y")]),
        synchronous("t", &[kind.change("3")]),
        synchronous("v", &[kind.change("Z")]),
    ];
    assert_eq!(model.state("e1", &actions).await, "A");
    // Those for one target keep their order, so the last one, which was waited for, has come after the others.
    assert_eq!(model.two("t").await, kind.after(&["1", "2", "3"]));
    assert_eq!(model.host.entity(kind.two, "t").await["seq"], "3");
    assert_eq!(model.two("v").await, "Z");
    model.two_becomes("u", "Y").await;
}

pub async fn failure(kind: Kind) {
    let model = Model::start(kind).await;
    let refused = model.process("e1", &[fail("expected")]).await;
    assert_eq!(refused.refused(400, "failed_precondition"), "expected");
}

pub async fn alive_after_failure(kind: Kind) {
    let model = Model::start(kind).await;
    model.state("e1", &[kind.change("A")]).await;
    let actions = [kind.change("B"), fail("expected")];
    model.process("e1", &actions).await.refused(400, "failed_precondition");
    assert_eq!(model.state("e1", &[]).await, "A");
    assert_eq!(model.state("e1", &[kind.change("C")]).await, kind.after(&["A", "C"]));
    assert_eq!(model.host.metric("stead_activations_total").await, 1.0, "a rejection is no crash");
}

pub async fn a_failure_allows_no_effects(kind: Kind) {
    let model = Model::start(kind).await;
    let told = |value| {
        [
            kind.change(value),
            effect("t", &[kind.change(value)]),
            synchronous("u", &[kind.change(value)]),
        ]
    };
    let mut failing = told("A").to_vec();
    failing.push(fail("expected"));
    model.process("e1", &failing).await.refused(400, "failed_precondition");
    // Effects for one target keep their order: if there was one of the failure, it comes before these.
    model.state("e1", &told("B")).await;
    model.two_becomes("t", "B").await;
    assert_eq!(model.two("u").await, "B");
    assert_eq!(model.stored_by_two("t").await, values(&["B"]));
    assert_eq!(model.stored_by_two("u").await, values(&["B"]));
}

/// Its model has an address of its own.
pub async fn http_api(kind: Kind, path: &str) {
    let model = Model::start(kind).await;
    let body = json!({"actions": [kind.change("A")]});
    let answer = model.host.services.post(path, &body).await.ok();
    assert_eq!(answer, json!({"message": "A"}));
    let get = model.host.services.send(Method::GET, path, "application/json", "").await;
    assert_eq!(get.status, 405);
    assert_eq!(get.header("allow"), Some("POST"));
}

pub async fn passivated_within_2_s_of_a_100_ms_timeout(kind: Kind) {
    let model = Model::start(kind).await;
    let path = format!("/{}/Call", kind.configured);
    let request = json!({"id": "e1", "actions": [kind.change("A")]});
    model.host.services.post(&path, &request).await.ok();
    let start = Instant::now();
    while model.host.entity(kind.configured, "e1").await["hot"] == true {
        assert!(start.elapsed() < Duration::from_secs(2), "still hot");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = model.host.services.post(&path, &json!({"id": "e1"})).await.ok();
    assert_eq!(answer["message"], "A");
}
