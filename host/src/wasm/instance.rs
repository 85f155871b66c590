//! A hot instance: one entity's state in a WebAssembly instance of its own.
//!
//! Every call is synchronous: a guest cannot wait for anything. A call that outlives a tick of the
//! epoch clock gives its tokio worker away, so that an endless loop stalls nobody else until its
//! deadline ends it. (So instances must not be called from within a `tokio::task::LocalSet`, which does
//! not let go of its worker.)

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::wasm::answer;
use crate::wasm::bindings::entity::{self, GuestInstance};
use crate::wasm::bindings::stead::function::types;
use crate::wasm::component::Interfaces;
use crate::wasm::failure::{self, Failure};
use crate::wasm::limits::Data;
use crate::words::{Code, Message, Status, limits};

/// What `discovery.describe` answered. Unchecked: the registry judges it.
#[derive(Clone, Debug)]
pub struct Description {
    /// What the component itself says, by its exports.
    pub interfaces: Interfaces,
    pub file_descriptor_set: Vec<u8>,
    pub entity_types: Vec<EntityType>,
    pub sdk: String,
}

#[derive(Clone, Debug)]
pub struct EntityType {
    pub service: String,
    pub kind: String,
    pub journal_name: String,
    pub snapshot_every: u32,
    pub passivate_after_ms: u32,
    pub settings: Vec<Setting>,
}

#[derive(Clone, Debug)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Copy, Debug)]
pub struct InstanceLimits {
    pub memory_bytes_max: usize,
    pub deadline: Duration,
}

#[derive(Clone, Debug)]
pub struct Command {
    pub method: Arc<str>,
    pub payload: Bytes,
    pub metadata: Vec<(String, String)>,
    pub id: String,
    pub now_ms: u64,
    pub seed: u64,
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub answer: Answer,
    pub effects: Vec<Effect>,
    pub events: Vec<Message>,
    pub state_change: StateChange,
    pub timers: Vec<TimerChange>,
}

/// What happens to the state of a value entity, or to a row of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    None,
    Update(Message),
    Delete,
}

/// A change to one of the entity's named timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerChange {
    pub name: String,
    /// None cancels it.
    pub timer: Option<Timer>,
}

/// Whether its method exists is for the kind's rules to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    pub due: Due,
    pub every_ms: Option<u64>,
    pub method: String,
    pub payload: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// After the command's `now_ms`.
    AfterMs(u64),
    /// Since 1970.
    AtMs(u64),
}

#[derive(Clone, Debug)]
pub enum Answer {
    Reply(Bytes),
    Forward(Call),
    None,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub service: String,
    pub method: String,
    pub payload: Bytes,
    pub metadata: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Effect {
    pub call: Call,
    pub synchronous: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub code: Code,
    pub message: String,
    pub details: Vec<Message>,
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        let Rejection { code, message, details } = rejection;
        Self { details, ..Self::new(code, message) }
    }
}

/// After any `Err` the instance is spent: drop it.
pub struct Instance {
    store: Store<Data>,
    guest: entity::Guest,
    resource: ResourceAny,
    spent: bool,
}

impl Instance {
    pub(in crate::wasm) fn new(
        store: Store<Data>,
        guest: entity::Guest,
        resource: ResourceAny,
    ) -> Self {
        Self { store, guest, resource, spent: false }
    }

    pub fn restore(&mut self, state: &Message) -> Result<(), Failure> {
        let state = lower(state);
        let answer = self.call(limits::GUEST_HOSTCALL_BYTES_MAX, |guest, resource, store| {
            guest.call_restore(store, resource, state)
        })?;
        self.judge(answer::refusable("state", answer))
    }

    /// Any number of events; the caller batches.
    pub fn apply(&mut self, events: &[Message]) -> Result<(), Failure> {
        let events: Vec<_> = events.iter().map(lower).collect();
        let answer = self.call(limits::GUEST_HOSTCALL_BYTES_MAX, |guest, resource, store| {
            guest.call_apply(store, resource, &events)
        })?;
        self.judge(answer::refusable("events", answer))
    }

    pub fn handle(&mut self, command: &Command) -> Result<Result<Outcome, Rejection>, Failure> {
        if let Some(wasi) = &mut self.store.data_mut().wasi {
            wasi.set_command(command.now_ms, command.seed);
        }
        let metadata: Vec<_> = command
            .metadata
            .iter()
            .map(|(name, value)| types::MetadataEntryParam { name, value })
            .collect();
        let command = entity::Command {
            method: &command.method,
            payload: &command.payload,
            metadata: &metadata,
            id: &command.id,
            now_ms: command.now_ms,
            seed: command.seed,
        };
        let answer = self.call(limits::ANSWER_BYTES_MAX, |guest, resource, store| {
            guest.call_handle(store, resource, command)
        })?;
        if let Some(wasi) = &mut self.store.data_mut().wasi {
            wasi.set_replay();
        }
        self.judge(match answer {
            Ok(outcome) => answer::outcome(outcome).map(Ok),
            Err(rejection) => answer::rejection(rejection).map(Err),
        })
    }

    pub fn snapshot(&mut self) -> Result<Option<Message>, Failure> {
        let answer = self
            .call(limits::SNAPSHOT_BYTES_MAX + limits::KIB, |guest, resource, store| {
                guest.call_snapshot(store, resource)
            })?;
        self.judge(answer::snapshot(answer))
    }

    /// Linear memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory.bytes
    }

    fn call<R>(
        &mut self,
        answer_bytes_max: usize,
        run: impl FnOnce(GuestInstance<'_>, ResourceAny, &mut Store<Data>) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        if self.spent {
            return Err(spent());
        }
        let (guest, resource) = (self.guest.instance(), self.resource);
        let answer = call(&mut self.store, answer_bytes_max, |store| run(guest, resource, store));
        self.judge(answer)
    }

    fn judge<R>(&mut self, answer: Result<R, Failure>) -> Result<R, Failure> {
        self.spent |= answer.is_err();
        answer
    }
}

/// One call into a store: with its limits set, and what goes wrong as a type.
pub(in crate::wasm) fn call<R>(
    store: &mut Store<Data>,
    answer_bytes_max: usize,
    run: impl FnOnce(&mut Store<Data>) -> wasmtime::Result<R>,
) -> Result<R, Failure> {
    begin(store, answer_bytes_max);
    let answer = run(store);
    end(store, answer)
}

/// Must come before a call into a store, and [`end`] after it.
pub(in crate::wasm) fn begin(store: &mut Store<Data>, answer_bytes_max: usize) {
    let data = store.data_mut();
    data.turn.begin();
    data.memory.begin();
    store.set_epoch_deadline(1);
    store.set_hostcall_fuel(answer_bytes_max);
}

pub(in crate::wasm) fn end<R>(
    store: &mut Store<Data>,
    answer: wasmtime::Result<R>,
) -> Result<R, Failure> {
    let data = store.data_mut();
    data.turn.end();
    if let Some(wasi) = &mut data.wasi {
        wasi.end_call();
    }
    answer.map_err(|error| failure::classify(&error, data))
}

/// What a call to an instance gives that failed before.
pub(in crate::wasm) fn spent() -> Failure {
    Failure::Trap {
        reason: "the instance failed before and must not be used again".into(),
        backtrace: String::new(),
    }
}

pub(in crate::wasm) fn lower(message: &Message) -> entity::MessageParam<'_> {
    entity::MessageParam { type_name: &message.type_name, data: &message.data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::fixtures::{Guest, command};

    #[test]
    fn carries_values_both_ways() {
        let engine = crate::wasm::fixtures::engine();
        let component = Guest::new().load(&engine);
        let description = component.describe().expect("describes");
        assert_eq!(description.sdk, "by-hand/1");
        assert_eq!(description.file_descriptor_set, b"test");
        let [entity_type] = &description.entity_types[..] else { panic!("one entity type") };
        assert_eq!(entity_type.service, "test.v1.Counter");
        assert_eq!(entity_type.kind, "event-sourced");
        assert_eq!(entity_type.journal_name, "counter");
        assert_eq!((entity_type.snapshot_every, entity_type.passivate_after_ms), (7, 500));

        let limits = crate::wasm::fixtures::instance_limits();
        let mut instance = component.instantiate("test.v1.Counter", "one", limits).expect("starts");
        let event = Message::new("test.v1.Event", &b"x"[..]);
        instance.restore(&Message::new("test.v1.Counter", &[40, 0, 0, 0][..])).expect("restores");
        instance.apply(&[event.clone(), event]).expect("applies");
        let outcome = instance.handle(&command(b"payload")).expect("handles").expect("accepts");
        assert!(matches!(outcome.answer, Answer::Reply(reply) if reply == "payload"));
        assert_eq!(outcome.events, [Message::new("test.v1.Event", &b"payload"[..])]);
        let snapshot = instance.snapshot().expect("answers").expect("has one");
        assert_eq!(snapshot, Message::new("test.v1.Counter", &[43, 0, 0, 0][..]));
        assert_eq!(instance.memory_bytes(), 2 * 64 * 1024);
    }

    fn failure(guest: Guest) -> Failure {
        let mut instance = guest.instance();
        let failure = instance.handle(&command(b"payload")).expect_err("fails");
        let again = instance.handle(&command(b"payload")).expect_err("stays failed");
        assert!(matches!(again, Failure::Trap { .. }), "{again}");
        failure
    }

    #[test]
    fn a_trap_names_its_reason_and_where_it_was() {
        let Failure::Trap { reason, backtrace } =
            failure(Guest::new().with("handle", "unreachable"))
        else {
            panic!("a trap is expected")
        };
        assert!(reason.contains("unreachable"), "{reason}");
        assert!(backtrace.contains("handle"), "{backtrace}");
    }

    #[test]
    fn endless_recursion_traps() {
        let items = "(func $deeper (call $deeper) (call $deeper))";
        let recursive = Guest::new().with_items(items).with("handle", "(call $deeper) unreachable");
        let failure = failure(recursive);
        assert!(
            matches!(&failure, Failure::Trap { reason, .. } if reason.contains("stack")),
            "{failure}"
        );
    }

    const GROW: &str = "(memory.grow (i32.const 2048))";

    #[test]
    fn a_guest_that_fails_for_want_of_memory_is_told_apart() {
        let hungry = format!("(if (i32.eq {GROW} (i32.const -1)) (then unreachable)) unreachable");
        let failure = failure(Guest::new().with("handle", &hungry));
        assert_eq!(failure, Failure::Memory { max_bytes: limits::GUEST_MEMORY_BYTES_DEFAULT });
    }

    #[test]
    fn a_guest_that_bears_the_want_of_memory_lives_on() {
        let mut instance =
            Guest::new().with("handle", &format!("(drop {GROW}) (i32.const 16)")).instance();
        for _ in 0..3 {
            instance.handle(&command(b"payload")).expect("answers").expect("accepts");
        }
        assert_eq!(instance.memory_bytes(), 2 * 64 * limits::KIB);
    }

    #[test]
    fn a_memory_that_starts_over_the_limit_is_refused() {
        let component = Guest::new().with("memory", "2000").load(&crate::wasm::fixtures::engine());
        let refused = component
            .instantiate("t", "i", crate::wasm::fixtures::instance_limits())
            .err()
            .expect("refused");
        assert!(matches!(refused, Failure::Memory { .. }), "{refused}");
    }

    #[test]
    fn a_table_may_not_grow_without_end() {
        let table = "(table $t 1 funcref)";
        let grow =
            "(if (i32.eq (table.grow $t (ref.null func) (i32.const 10000000)) (i32.const -1))
            (then unreachable)) (i32.const 16)";
        let failure = failure(Guest::new().with_items(table).with("handle", grow));
        assert!(matches!(failure, Failure::Trap { .. }), "{failure}");
    }

    #[test]
    fn handles_of_resources_are_bounded() {
        let hoard = "(loop $forever (drop (call $new (i32.const 1))) (br $forever)) unreachable";
        let failure = failure(Guest::new().with("handle", hoard));
        assert!(!matches!(failure, Failure::Deadline { .. }), "{failure}");
    }

    fn malformed(body: &str) -> String {
        match failure(Guest::new().with("memory", "900").with("handle", body)) {
            Failure::Malformed { reason } => reason,
            other => panic!("malformed is expected: {other}"),
        }
    }

    #[test]
    fn a_reply_of_many_bytes_is_refused_before_it_is_copied() {
        let there = "(call $pair (i32.const 24) (i32.const 0) (i32.const 50000000)) (i32.const 16)";
        assert!(malformed(there).contains("too much data"));
        let not_there =
            "(call $pair (i32.const 24) (i32.const 0) (i32.const 100000000)) (i32.const 16)";
        assert!(malformed(not_there).contains("out of bounds"));
    }

    #[test]
    fn a_million_events_are_refused_before_they_are_copied() {
        let events = "(call $pair (i32.const 64) (i32.const 0) (i32.const 1000000)) (i32.const 16)";
        assert!(malformed(events).contains("too much data"));
    }

    #[test]
    fn garbage_is_malformed() {
        let not_utf8 = "(i32.store (i32.const 512) (i32.const -1))
            (call $pair (i32.const 256) (i32.const 512) (i32.const 4))
            (call $pair (i32.const 264) (i32.const 0) (i32.const 0))
            (call $pair (i32.const 64) (i32.const 256) (i32.const 1))
            (i32.const 16)";
        assert!(malformed(not_utf8).contains("utf-8"));
        let no_such_case = "(i32.store8 (i32.const 20) (i32.const 9)) (i32.const 16)";
        assert!(malformed(no_such_case).contains("discriminant"));
        malformed("(i32.const -4)");
    }

    #[test]
    fn a_rejection_is_an_answer() {
        let reject = "(i32.store8 (i32.const 16) (i32.const 1))
            (i32.store (i32.const 20) (i32.const 9))
            (call $pair (i32.const 24) (i32.const 1120) (i32.const 7))
            (i32.const 16)";
        let mut instance = Guest::new().with("handle", reject).instance();
        for _ in 0..2 {
            let rejection = instance.handle(&command(b"")).expect("answers").expect_err("rejects");
            assert_eq!(rejection.code, Code::FailedPrecondition);
            assert_eq!(rejection.message, "counter");
        }
    }

    #[test]
    fn a_guest_may_refuse_its_events_and_its_state() {
        let refuse = "(i32.store8 (i32.const 16) (i32.const 1))
            (call $pair (i32.const 20) (i32.const 1120) (i32.const 7)) (i32.const 16)";
        let message = Message::new("a.B", &b""[..]);
        let refused = |what| Err(Failure::Refused { what, reason: "counter".into() });
        let mut instance = Guest::new().with("apply", refuse).instance();
        assert_eq!(instance.apply(std::slice::from_ref(&message)), refused("events"));
        let mut instance = Guest::new().with("restore", refuse).instance();
        assert_eq!(instance.restore(&message), refused("state"));
    }

    #[test]
    fn many_calls_leave_the_instance_as_small_as_it_was() {
        let mut instance = Guest::new().instance();
        for _ in 0..10_000 {
            instance.handle(&command(b"payload")).expect("answers").expect("accepts");
        }
        assert_eq!(instance.memory_bytes(), 2 * 64 * limits::KIB);
    }
}
