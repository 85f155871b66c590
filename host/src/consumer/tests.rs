//! Groups over a journal in memory, with calls that fail when they are told to.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::*;
use crate::entity::OutCall;
use crate::journal::memory::MemoryStore;
use crate::journal::{AnyStore, Fence, Holdings, Write};
use crate::registry::testing::{describe, describing};
use crate::registry::{DeployRequest, Kind};
use crate::wasm::fixtures::{Guest, engine};
use crate::words::{Code, Epoch, Message, Shard, clock};

const CONSUMER: &str = r#"
    syntax = "proto3";
    package t;
    import "stead/options.proto";
    message E { string x = 1; }
    message R {}
    service C {
        rpc On(E) returns (R) { option (stead.consume) = { event_log: "log", group: "g" }; }
    }
"#;
const GROUP: &str = "log/g";
const SOON: Duration = Duration::from_secs(20);

/// Notes the events that it is called with, but for those that are to fail.
#[derive(Default)]
struct Noting {
    consumed: Mutex<Vec<(String, u64)>>,
    failing: Mutex<HashSet<(String, u64)>>,
}

impl Caller for Noting {
    fn call(&self, call: OutCall) -> BoxFuture<'static, Result<Bytes, Status>> {
        let value = |name: &str| {
            let entry = call.metadata.iter().find(|entry| entry.0 == name);
            entry.map(|entry| entry.1.clone()).expect("an attribute")
        };
        let event = (value("ce-subject"), value("ce-sequence").parse().expect("a number"));
        let result = match self.failing.lock().contains(&event) {
            true => Err(Status::failed_precondition("poison")),
            false => {
                self.consumed.lock().push(event);
                Ok(Bytes::new())
            }
        };
        Box::pin(async { result })
    }
}

struct Setup {
    registry: Registry,
    journal: Journal,
    calls: Arc<Noting>,
    seqs: BTreeMap<String, u64>,
}

impl Setup {
    async fn new() -> Self {
        let store = AnyStore::Memory(MemoryStore::default());
        let journal = Journal::start(store, Holdings::alone(), Metrics::default());
        let registry = Registry::open(engine(), journal.clone()).await.expect("opens");
        let mut description = describe(CONSUMER, &[("t.C", "t.C")]);
        description.entity_types[0].kind = Kind::Action.name().into();
        let module = describing(Guest::acting(), &description);
        let module = registry.upload("c.wasm", module).await.expect("valid").record.digest;
        let note = "test".to_owned();
        let request = DeployRequest {
            modules: vec![module],
            plan: false,
            force: false,
            note,
            allow: Vec::new(),
        };
        registry.deploy(request).await.expect("deploys");
        Self { registry, journal, calls: Arc::default(), seqs: BTreeMap::new() }
    }

    fn start(&self) -> Consumers {
        let (calls, views) = (self.calls.clone(), Views::new(self.journal.clone()));
        Consumers::start(&self.registry, &self.journal, calls, views, Metrics::default())
    }

    async fn append(&mut self, id: &str, event_type: &str) {
        let seq = self.seqs.entry(id.to_owned()).or_default();
        let fence = Fence { shard: Shard(0), epoch: Epoch(1) };
        let events = vec![Message::new(event_type, "")];
        let write = Write { events, ..Write::new(Address::new("log", id), fence, Seq(*seq), 1) };
        self.journal.append(write).wait().await.expect("stored");
        *seq += 1;
    }

    fn consumed(&self) -> Vec<(String, u64)> {
        self.calls.consumed.lock().clone()
    }

    fn fail(&self, id: &str, seq: u64) {
        self.calls.failing.lock().insert((id.to_owned(), seq));
    }

    async fn becomes(&self, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(id, seq)| ((*id).to_owned(), *seq)).collect();
        let until = clock::now() + SOON;
        loop {
            let mut found = self.consumed();
            if found.len() >= expected.len() || clock::now() > until {
                // Of several entities the order is nobody's business.
                found.sort_by(|a, b| a.0.cmp(&b.0));
                assert_eq!(found, expected);
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn lags(&self, consumers: &Consumers, id: &str, seq: u64) {
        let until = clock::now() + SOON;
        loop {
            let status = consumers.status().await.expect("readable");
            let group = status.iter().find(|status| *status.group == *GROUP).expect("the group");
            let lags = |laggard: &crate::journal::Laggard| {
                laggard.address.id.as_str() == id && laggard.next == Seq(seq)
            };
            if group.laggards.iter().any(lags) {
                return;
            }
            assert!(clock::now() < until, "{group:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_each_entity_come_in_their_order_from_the_first_on() {
    let mut setup = Setup::new().await;
    for id in ["a", "b", "a", "c", "a", "b"] {
        setup.append(id, "t.E").await;
    }
    let _consumers = setup.start();
    setup.becomes(&[("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("c", 1)]).await;
    setup.append("c", "t.E").await;
    setup.becomes(&[("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_no_method_takes_are_passed_over() {
    let mut setup = Setup::new().await;
    setup.append("a", "t.Other").await;
    setup.append("a", "t.E").await;
    let _consumers = setup.start();
    setup.becomes(&[("a", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_holds_up_its_own_entity_and_comes_again() {
    let mut setup = Setup::new().await;
    setup.fail("a", 1);
    for id in ["a", "a", "b", "b"] {
        setup.append(id, "t.E").await;
    }
    let consumers = setup.start();
    setup.becomes(&[("b", 1), ("b", 2)]).await;
    setup.lags(&consumers, "a", 1).await;
    setup.append("a", "t.E").await;
    setup.append("b", "t.E").await;
    setup.becomes(&[("b", 1), ("b", 2), ("b", 3)]).await;
    setup.calls.failing.lock().clear();
    setup.becomes(&[("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)]).await;
    // In step with the feed again, nothing comes twice.
    setup.append("a", "t.E").await;
    setup.becomes(&[("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 1), ("b", 2), ("b", 3)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_is_skipped_only_by_name() {
    let mut setup = Setup::new().await;
    setup.fail("a", 2);
    for _ in 0..3 {
        setup.append("a", "t.E").await;
    }
    let consumers = setup.start();
    setup.becomes(&[("a", 1)]).await;
    setup.lags(&consumers, "a", 2).await;
    let address = Address::new("log", "a");
    let refused = consumers.skip(GROUP, address.clone(), Seq(3)).await.expect_err("refused");
    assert_eq!(refused.code, Code::FailedPrecondition);
    assert!(refused.message.contains("fails is 2, not 3"), "{refused:?}");
    consumers.skip(GROUP, address, Seq(2)).await.expect("skipped");
    setup.becomes(&[("a", 1), ("a", 3)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_it_was_with_what_lagged_behind() {
    let mut setup = Setup::new().await;
    setup.fail("a", 1);
    setup.append("a", "t.E").await;
    setup.append("b", "t.E").await;
    let consumers = setup.start();
    setup.becomes(&[("b", 1)]).await;
    setup.lags(&consumers, "a", 1).await;
    consumers.stop();
    setup.calls.failing.lock().clear();
    setup.append("b", "t.E").await;
    let _again = setup.start();
    setup.becomes(&[("a", 1), ("b", 1), ("b", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_reset_begins_again_or_leaves_out_what_was() {
    let mut setup = Setup::new().await;
    setup.append("a", "t.E").await;
    let consumers = setup.start();
    setup.becomes(&[("a", 1)]).await;
    let all = consumers.reset(GROUP, Start::Beginning, Vec::new()).await.expect("reset");
    assert_eq!(all, [Partition(0)]);
    setup.becomes(&[("a", 1), ("a", 1)]).await;
    setup.fail("a", 2);
    setup.append("a", "t.E").await;
    setup.lags(&consumers, "a", 2).await;
    let other = consumers.reset(GROUP, Start::Beginning, vec![Partition(1)]).await;
    assert_eq!(other.expect("none of them is read here"), []);
    consumers.reset(GROUP, Start::Now, vec![Partition(0)]).await.expect("reset");
    setup.append("a", "t.E").await;
    setup.becomes(&[("a", 1), ("a", 1), ("a", 3)]).await;
    let refused = consumers.reset("no/such", Start::Now, Vec::new()).await.expect_err("refused");
    assert_eq!(refused.code, Code::NotFound);
}
