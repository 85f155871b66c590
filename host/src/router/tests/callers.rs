//! Actions that have other functions answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::action::{self, Actions};
use crate::consumer::Views;
use crate::entity::{Consistency, Entities, EntitiesConfig};
use crate::journal::memory::MemoryStore;
use crate::journal::{AnyStore, Holdings, Journal};
use crate::registry::testing::{describe, describing};
use crate::registry::{DeployRequest, Registry};
use crate::router::{Callers, Router};
use crate::wasm::fixtures::{Guest, engine};
use crate::words::telemetry::Metrics;
use crate::words::{Code, Status, clock};

const SERVICE: &str = r#"
    syntax = "proto3";
    package test.v1;
    message M { string id = 1; }
    service Actions { rpc Loop(M) returns (M); }
"#;

/// Answers by another method of the same service, named by what is at an address.
fn forwarding(method: &str) -> String {
    format!(
        "(i32.store8 (i32.const 20) (i32.const 1))
         (call $pair (i32.const 24) (i32.const 1024) (i32.const 15))
         (call $pair (i32.const 32) {method})
         (i32.const 16)"
    )
}

/// What a call of the service comes to, and in how many calls.
async fn call(handle: &str) -> (Result<Bytes, Status>, Metrics) {
    let metrics = Metrics::default();
    let store = AnyStore::Memory(MemoryStore::default());
    let journal = Journal::start(store, Holdings::alone(), metrics.clone());
    let registry = Registry::open(engine(), journal.clone()).await.unwrap();
    let mut description = describe(SERVICE, &[("test.v1.Actions", "actions")]);
    description.entity_types[0].kind = "action".into();
    let module = describing(Guest::acting().with("handle", handle), &description);
    let upload = registry.upload("test.wasm", module).await.unwrap();
    let request = DeployRequest {
        modules: vec![upload.record.digest],
        plan: false,
        force: false,
        note: String::new(),
        allow: Vec::new(),
    };
    registry.deploy(request).await.unwrap();
    let config = EntitiesConfig { effect_tries_max: 1, ..EntitiesConfig::default() };
    let entities = Entities::new(registry.clone(), journal.clone(), metrics.clone(), config);
    let actions = Actions::new(registry.clone(), metrics.clone());
    let router = Router::local(entities);
    let views = Views::new(journal);
    let callers = Callers::new(registry.clone(), &router, actions.downgrade(), views);
    actions.calls_through(Arc::new(callers));
    let live = registry.live();
    let (service, method) = live.method("test.v1.Actions", "Loop").unwrap();
    let request = action::Request {
        service: service.clone(),
        method: method.clone(),
        payload: Bytes::from_static(b"\x0a\x01a"),
        metadata: Vec::new(),
        idempotency_key: None,
        deadline: clock::now() + Duration::from_secs(20),
        request_id: "id".into(),
        consistency: Consistency::default(),
        trail: Default::default(),
    };
    (actions.call(request, None).await, metrics)
}

#[tokio::test]
async fn a_circle_of_forwards_ends_after_sixteen_functions() {
    let itself = forwarding("(local.get $method) (local.get $method_len)");
    let (result, metrics) = call(&itself).await;
    let status = result.unwrap_err();
    assert_eq!(status.code, Code::FailedPrecondition);
    assert!(status.message.contains("went through 17 functions"), "{}", status.message);
    let way = ["/test.v1.Actions/Loop"; 18].join(" -> ");
    assert!(status.message.ends_with(&format!(": {way}")), "{}", status.message);
    let calls = r#"stead_commands_total{service="test.v1.Actions",method="Loop",result="failed_precondition"} 17"#;
    assert!(metrics.render().contains(calls), "{}", metrics.render());
}

#[tokio::test]
async fn a_forward_to_a_function_that_is_not_deployed_is_internal() {
    let (result, _) = call(&forwarding("(i32.const 1024) (i32.const 4)")).await;
    let status = result.unwrap_err();
    assert_eq!(status.code, Code::Internal);
    assert!(status.message.contains("not deployed"), "{}", status.message);
}

#[tokio::test]
async fn a_reply_that_does_not_decode_is_a_crash() {
    let garbage = "(call $pair (i32.const 24) (i32.const 1024) (i32.const 3)) (i32.const 16)";
    let (result, metrics) = call(garbage).await;
    assert_eq!(result.unwrap_err().code, Code::Internal);
    assert!(metrics.render().contains(r#"what="malformed"} 1"#), "{}", metrics.render());
}
