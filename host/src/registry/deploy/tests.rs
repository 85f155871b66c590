use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use super::*;
use crate::journal::memory::MemoryStore;
use crate::journal::sqlite::SqliteStore;
use crate::journal::{AnyStore, Fence, Holdings, Write};
use crate::registry::plan::Action;
use crate::registry::testing::{component, describe, describe_as, describing};
use crate::wasm::EngineConfig;
use crate::wasm::fixtures::{Guest, engine};
use crate::words::telemetry::Metrics;
use crate::words::{Address, Grants, Message as Event, Seq};

const SERVICES: &str = r#"
    syntax = "proto3";
    package t;
    import "stead/options.proto";
    message M { string id = 1 [(stead.entity_key) = true]; }
    service A { rpc Do(M) returns (M); }
    service B { rpc Do(M) returns (M); }
    service C { rpc Do(M) returns (M); }
"#;

struct Host {
    engine: Engine,
    store: MemoryStore,
    journal: Journal,
    registry: Registry,
}

impl Host {
    async fn start() -> Self {
        let store = MemoryStore::default();
        let any = AnyStore::Memory(store.clone());
        let journal = Journal::start(any, Holdings::alone(), Metrics::default());
        let engine = engine();
        let registry = Registry::open(engine.clone(), journal.clone()).await.unwrap();
        Self { engine, store, journal, registry }
    }

    async fn restart(&mut self) {
        let opened = Registry::open(self.engine.clone(), self.journal.clone()).await;
        self.registry = opened.unwrap();
    }

    async fn upload(&self, types: &[(&str, &str)]) -> Digest {
        let module = component(&describe(SERVICES, types));
        self.registry.upload("m.wasm", module).await.unwrap().record.digest
    }

    async fn deploy(&self, module: Digest) -> Result<Plan, DeployError> {
        self.registry.deploy(request(module)).await
    }

    /// Gives a journal its first entity.
    async fn store_an_event(&self, journal: &str) {
        let one = Address::new(journal, "one");
        let write = Write {
            events: vec![Event::new("t.M", b"".as_slice())],
            ..Write::new(one, Fence::default(), Seq::ZERO, 1)
        };
        self.journal.append(write).wait().await.unwrap();
    }

    fn services(&self) -> Vec<String> {
        self.registry.live().services.keys().map(|name| name.to_string()).collect()
    }
}

fn request(module: Digest) -> DeployRequest {
    DeployRequest {
        modules: vec![module],
        plan: false,
        force: false,
        note: "test".to_owned(),
        allow: Vec::new(),
    }
}

fn told(plan: &Plan) -> Vec<String> {
    let tell = |change: &crate::registry::plan::Change| {
        let name = &change.entity_type;
        format!("{:?} {} {} {}", change.action, name.service, name.kind, name.journal)
    };
    plan.changes.iter().map(tell).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_says_what_it_contains_and_changes_nothing() {
    let host = Host::start().await;
    let module = component(&describe(SERVICES, &[("t.A", "a"), ("t.B", "b")]));
    let first = host.registry.upload("first.wasm", module.clone()).await.unwrap();
    assert_eq!(first.record.digest, Digest::of(&module));
    assert_eq!(first.record.bytes, module.len() as u64);
    assert_eq!(first.sdk, "test");
    assert_eq!(first.entity_types.len(), 2);
    assert_eq!(first.entity_types[1].journal.as_str(), "b");
    assert!(!first.already_present);

    let again = host.registry.upload("again.wasm", module).await.unwrap();
    assert!(again.already_present);
    assert_eq!(again.record, first.record);
    assert_eq!(host.registry.live().revision, Revision(0));
    assert!(host.services().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn faulty_uploads_are_refused_and_not_stored() {
    let host = Host::start().await;
    let upload = async |bytes: Bytes| host.registry.upload("m.wasm", bytes).await.unwrap_err();

    assert!(matches!(
        upload(Bytes::from_static(b"not wasm")).await,
        DeployError::Refused(Refusal::NotWasm { .. })
    ));
    let faulty = component(&describe(SERVICES, &[("t.A", "a"), ("t.Gone", "g")]));
    assert_eq!(
        upload(faulty).await.to_string(),
        "t.Gone: no such service in the file descriptor set"
    );
    let trapping = Guest::new().with("describe", "unreachable").component();
    assert!(matches!(upload(trapping.into()).await, DeployError::Describe(Failure::Trap { .. })));
    let long = "n".repeat(MODULE_NAME_BYTES_MAX + 1);
    let named = host.registry.upload(&long, Bytes::new()).await;
    assert!(matches!(named, Err(DeployError::Invalid(_))));
    assert!(host.journal.modules().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_durable_then_live_then_announced() {
    let mut host = Host::start().await;
    let mut watch = host.registry.watch();
    let module = host.upload(&[("t.A", "a")]).await;
    let plan = host.deploy(module).await.unwrap();
    assert_eq!(plan.revision, Revision(1));
    assert_eq!(told(&plan), ["Added t.A event-sourced a"]);
    assert_eq!(plan.changes[0].module, module);
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), Revision(1));
    assert!(!host.registry.watch().has_changed().unwrap(), "it tells of what is to come");
    assert_eq!(host.services(), ["t.A"]);
    assert_eq!(host.registry.revisions().await.unwrap()[0].modules, [module]);

    host.restart().await;
    assert_eq!(host.registry.live().revision, Revision(1));
    assert_eq!(host.services(), ["t.A"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_deployment_again_makes_no_revision() {
    let host = Host::start().await;
    let module = host.upload(&[("t.A", "a")]).await;
    host.deploy(module).await.unwrap();
    let again = host.deploy(module).await.unwrap();
    assert_eq!(again.revision, Revision(1));
    assert_eq!(told(&again), ["Unchanged t.A event-sourced a"]);
    assert_eq!(host.registry.revisions().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing() {
    let host = Host::start().await;
    let module = host.upload(&[("t.A", "a")]).await;
    let plan = host.registry.deploy(DeployRequest { plan: true, ..request(module) }).await.unwrap();
    assert_eq!(plan.revision, Revision(1));
    assert_eq!(plan.changes[0].action, Action::Added);
    assert!(host.services().is_empty());
    assert!(host.registry.revisions().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_stay_are_the_very_same() {
    let host = Host::start().await;
    host.deploy(host.upload(&[("t.A", "a")]).await).await.unwrap();
    let before = host.registry.live();
    let plan = host.deploy(host.upload(&[("t.B", "b")]).await).await.unwrap();
    assert_eq!(told(&plan), ["Unchanged t.A event-sourced a", "Added t.B event-sourced b"]);
    let after = host.registry.live();
    assert!(Arc::ptr_eq(&before.services["t.A"], &after.services["t.A"]));
    assert_eq!(after.modules.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_would_orphan_entities_needs_force() {
    let host = Host::start().await;
    host.deploy(host.upload(&[("t.A", "a"), ("t.B", "b")]).await).await.unwrap();
    let successor = host.upload(&[("t.A", "a")]).await;

    host.store_an_event("b").await;
    for plan in [false, true] {
        let refused = host.registry.deploy(DeployRequest { plan, ..request(successor) }).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            "b has entities, and this deployment removes its service t.B; pass --force if you mean it"
        );
    }
    assert_eq!(host.services(), ["t.A", "t.B"]);

    let forced = DeployRequest { force: true, ..request(successor) };
    let plan = host.registry.deploy(forced).await.unwrap();
    assert_eq!(told(&plan), ["Replaced t.A event-sourced a", "Removed t.B event-sourced b"]);
    assert_eq!(host.services(), ["t.A"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_may_be_renamed_and_an_unused_one_removed() {
    let host = Host::start().await;
    host.deploy(host.upload(&[("t.A", "a"), ("t.B", "b")]).await).await.unwrap();
    host.store_an_event("a").await;
    let plan = host.deploy(host.upload(&[("t.C", "a")]).await).await.unwrap();
    assert_eq!(
        told(&plan),
        ["Removed t.A event-sourced a", "Removed t.B event-sourced b", "Added t.C event-sourced a"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn new_modules_that_clash_are_invalid() {
    let host = Host::start().await;
    let modules = vec![host.upload(&[("t.A", "a")]).await, host.upload(&[("t.B", "a")]).await];
    let clash = host.registry.deploy(DeployRequest { modules, ..request(Digest::of(b"")) }).await;
    assert!(matches!(clash, Err(DeployError::Invalid(faults)) if faults.len() == 1));
    let none =
        host.registry.deploy(DeployRequest { modules: vec![], ..request(Digest::of(b"")) }).await;
    assert!(matches!(none, Err(DeployError::Invalid(_))));
}

const CONSUMERS: &str = r#"
    syntax = "proto3";
    package t;
    import "stead/options.proto";
    message M {}
    service A {
        rpc On(M) returns (M) { option (stead.consume) = { event_log: "cart", group: "hot" }; }
        rpc Too(M) returns (M) { option (stead.consume) = { event_log: "cart", group: "hot" }; }
    }
    service B {
        rpc On(M) returns (M) { option (stead.consume) = { event_log: "cart", group: "hot" }; }
    }
    service C {
        rpc On(M) returns (M) { option (stead.consume) = { event_log: "stock", group: "hot" }; }
    }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_two_services_claim_is_refused_and_both_are_named() {
    let host = Host::start().await;
    let upload = async |services: &[&str]| {
        let types: Vec<_> = services.iter().map(|service| (*service, *service)).collect();
        let module = describing(Guest::acting(), &describe_as("action", CONSUMERS, &types));
        let uploaded = host.registry.upload("m.wasm", module).await;
        uploaded.map(|upload| upload.record.digest)
    };
    let assert_refused = |error: DeployError| {
        let told = error.to_string();
        assert!(told.starts_with("t.A and t.B both consume as the group cart/hot, "), "{told}");
    };
    assert_refused(upload(&["t.A", "t.B"]).await.unwrap_err());
    let (a, b) = (upload(&["t.A", "t.C"]).await.unwrap(), upload(&["t.B"]).await.unwrap());
    host.deploy(b).await.unwrap();
    for (plan, force) in [(true, false), (false, false), (false, true)] {
        let refused = host.registry.deploy(DeployRequest { plan, force, ..request(a) }).await;
        assert_refused(refused.unwrap_err());
    }
    let both = DeployRequest { modules: vec![a, b], ..request(a) };
    assert_refused(host.registry.deploy(both).await.unwrap_err());
    assert_eq!(host.services(), ["t.B"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_uploaded_cannot_be_deployed() {
    let host = Host::start().await;
    let digest = Digest::of(b"never");
    let refused = host.deploy(digest).await;
    assert!(matches!(refused, Err(DeployError::UnknownModule(unknown)) if unknown == digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_back_is_a_new_revision_with_the_modules_of_an_old_one() {
    let host = Host::start().await;
    let unknown = host.registry.roll_back(None, false).await;
    assert!(matches!(unknown, Err(DeployError::NoEarlierRevision)));

    host.deploy(host.upload(&[("t.A", "a")]).await).await.unwrap();
    host.deploy(host.upload(&[("t.B", "b")]).await).await.unwrap();
    host.deploy(host.upload(&[("t.C", "c")]).await).await.unwrap();

    let plan = host.registry.roll_back(None, false).await.unwrap();
    assert_eq!(plan.revision, Revision(4));
    assert_eq!(host.services(), ["t.A", "t.B"]);
    let record = host.registry.revisions().await.unwrap().pop().unwrap();
    assert_eq!(record.note, "roll back to 2");

    host.store_an_event("b").await;
    let refused = host.registry.roll_back(Some(Revision(1)), false).await;
    assert!(matches!(refused, Err(DeployError::WouldOrphan { .. })));
    host.registry.roll_back(Some(Revision(1)), true).await.unwrap();
    assert_eq!(host.services(), ["t.A"]);
    let unknown = host.registry.roll_back(Some(Revision(9)), false).await;
    assert!(matches!(unknown, Err(DeployError::UnknownRevision(Revision(9)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_cannot_be_loaded_is_left_out_and_told() {
    let mut host = Host::start().await;
    let good = host.upload(&[("t.A", "a")]).await;
    let bad = Digest::of(b"rotten");
    let bytes = Bytes::from_static(b"rotten");
    let record = ModuleRecord { digest: bad, name: "bad".into(), bytes: 6, uploaded_at_ms: 0 };
    host.journal.put_module(&record, &bytes).await.unwrap();
    let record = DeploymentRecord {
        revision: Revision(1),
        modules: vec![bad, good],
        created_at_ms: 0,
        note: String::new(),
        grants: Grants::default(),
    };
    host.journal.put_deployment(&record).await.unwrap();

    host.restart().await;
    assert_eq!(host.services(), ["t.A"]);
    let live = host.registry.live();
    assert_eq!(live.broken.len(), 1);
    assert_eq!(live.broken[0].0, bad);
    assert!(!live.broken[0].1.contains("tried again"), "{}", live.broken[0].1);

    // It stays in the revision until it is replaced.
    host.deploy(host.upload(&[("t.B", "b")]).await).await.unwrap();
    assert_eq!(host.registry.live().broken[0].0, bad);
    assert_eq!(host.registry.revisions().await.unwrap()[1].modules.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_damaged_in_the_journal_is_left_out_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = AnyStore::Sqlite(SqliteStore::open(dir.path()).await.unwrap());
    let journal = Journal::start(store, Holdings::alone(), Metrics::default());
    let digest = Digest::of(b"as it was written");
    let record = ModuleRecord { digest, name: "bad".into(), bytes: 6, uploaded_at_ms: 0 };
    journal.put_module(&record, &Bytes::from_static(b"rotten")).await.unwrap();
    let record = DeploymentRecord {
        revision: Revision(1),
        modules: vec![digest],
        created_at_ms: 0,
        note: String::new(),
        grants: Grants::default(),
    };
    journal.put_deployment(&record).await.unwrap();
    let registry = Registry::open(engine(), journal).await.unwrap();
    assert_eq!(registry.live().broken[0].0, digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_modules_of_a_revision_that_clash_the_later_is_live() {
    let mut host = Host::start().await;
    let modules =
        vec![host.upload(&[("t.A", "a"), ("t.B", "b")]).await, host.upload(&[("t.A", "a")]).await];
    let (revision, later) = (Revision(1), modules[1]);
    let (note, grants) = (String::new(), Grants::default());
    let record = DeploymentRecord { revision, modules, created_at_ms: 0, note, grants };
    host.journal.put_deployment(&record).await.unwrap();
    host.restart().await;
    assert_eq!(host.services(), ["t.A"]);
    let live = host.registry.live();
    assert_eq!(live.services["t.A"].module.digest, later);
    assert_eq!(live.broken.len(), 1);
}

/// Keeps compiled modules in a directory. What is not there it cannot compile if its compiler is not there either.
fn engine_of(dir: &Path, compiler: Option<&str>) -> Engine {
    let cache_dir = Some(dir.to_owned());
    let compiler = compiler.map(Into::into);
    Engine::new(EngineConfig { cache_dir, compiler, instances_max: 100 }).unwrap()
}

async fn compile(engine: &Engine, journal: &Journal, module: Digest) {
    let (_, bytes) = journal.module(&module).await.unwrap().unwrap();
    engine.load(module, bytes).await.unwrap();
}

async fn changed(live: &mut watch::Receiver<Revision>) {
    let changed = tokio::time::timeout(Duration::from_secs(30), live.changed()).await;
    changed.expect("within 30 s").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_could_not_be_compiled_is_tried_again_and_comes_in() {
    let host = Host::start().await;
    let module = host.upload(&[("t.A", "a")]).await;
    host.deploy(module).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let able = engine_of(dir.path(), None);
    let unable = engine_of(dir.path(), Some("/nowhere/stead"));
    let late = Registry::open(unable, host.journal.clone()).await.unwrap();
    let mut watch = late.watch();
    let before = late.live();
    assert!(before.services.is_empty());
    let (broken, reason) = &before.broken[0];
    assert_eq!(*broken, module);
    assert!(reason.contains("/nowhere/stead") && reason.ends_with("(it is tried again)"));

    compile(&able, &host.journal, module).await;
    changed(&mut watch).await;
    let after = late.live();
    assert!(after.services.contains_key("t.A"));
    assert!(after.broken.is_empty());
    assert_eq!(after.revision, before.revision);
    assert!(after.generation > before.generation, "nobody would look for its services");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_comes_in_late_wins_over_those_before_it_in_the_revision() {
    let host = Host::start().await;
    let modules =
        vec![host.upload(&[("t.A", "a"), ("t.B", "b")]).await, host.upload(&[("t.A", "a")]).await];
    let (earlier, later) = (modules[0], modules[1]);
    let (revision, note, grants) = (Revision(1), String::new(), Grants::default());
    let record = DeploymentRecord { revision, modules, created_at_ms: 0, note, grants };
    host.journal.put_deployment(&record).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let able = engine_of(dir.path(), None);
    compile(&able, &host.journal, earlier).await;
    let unable = engine_of(dir.path(), Some("/nowhere/stead"));
    let late = Registry::open(unable, host.journal.clone()).await.unwrap();
    let mut watch = late.watch();
    assert_eq!(late.live().services.len(), 2);
    assert_eq!(late.live().broken[0].0, later);

    compile(&able, &host.journal, later).await;
    changed(&mut watch).await;
    let live = late.live();
    assert_eq!(live.services.len(), 1);
    assert_eq!(live.module_of("t.A"), Some(later));
    assert_eq!(live.broken[0].0, earlier);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_share_a_store_follow_each_other() {
    let one = Host::start().await;
    let two = Registry::open(one.engine.clone(), one.journal.clone()).await.unwrap();
    let a = one.upload(&[("t.A", "a")]).await;
    one.deploy(a).await.unwrap();
    assert_eq!(two.live().revision, Revision(0));
    assert_eq!(two.follow().await.unwrap(), Revision(1));
    assert_eq!(two.live().services.len(), 1);
    assert!(two.live().by_journal(&"a".into()).is_some());
    // Nothing newer.
    assert_eq!(two.follow().await.unwrap(), Revision(1));
}

#[tokio::test]
async fn who_follows_at_once_shares_one_look_at_the_store() {
    let host = Host::start().await;
    let before = host.store.newest_read();
    let followed = join_all((0..20).map(|_| host.registry.follow())).await;
    assert!(followed.iter().all(|live| matches!(live, Ok(Revision(0)))));
    assert_eq!(host.store.newest_read() - before, 1);
    host.registry.follow().await.unwrap();
    assert_eq!(host.store.newest_read() - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_live_is_not_looked_for() {
    let host = Host::start().await;
    host.deploy(host.upload(&[("t.A", "a")]).await).await.unwrap();
    let before = host.store.newest_read();
    assert_eq!(host.registry.reach(Revision(1)).await.unwrap(), Revision(1));
    assert_eq!(host.store.newest_read(), before);
    // The store has lost it.
    assert_eq!(host.registry.reach(Revision(2)).await.unwrap(), Revision(1));
    assert_eq!(host.store.newest_read() - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_deploy_at_once_do_not_lose_each_others_modules() {
    let one = Host::start().await;
    let two = Registry::open(one.engine.clone(), one.journal.clone()).await.unwrap();
    let (a, b) = (one.upload(&[("t.A", "a")]).await, one.upload(&[("t.B", "b")]).await);
    let (first, second) = tokio::join!(one.deploy(a), two.deploy(request(b)));
    let mut revisions = [first.unwrap().revision, second.unwrap().revision];
    revisions.sort();
    assert_eq!(revisions, [Revision(1), Revision(2)]);
    one.registry.follow().await.unwrap();
    two.follow().await.unwrap();
    assert_eq!(one.services(), ["t.A", "t.B"]);
    assert_eq!(two.live().services.len(), 2);
}
