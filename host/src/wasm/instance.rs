//! A hot instance: one entity's state in a WebAssembly instance of its own.
//!
//! Every call is synchronous: a guest cannot wait for anything. A call that outlives a tick of the
//! epoch clock gives its tokio worker away, so that an endless loop stalls nobody else until its
//! deadline ends it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::wasm::answer;
use crate::wasm::bindings::exports::stead::function::entity;
use crate::wasm::bindings::stead::function::types;
use crate::wasm::bindings::{Function, GuestInstance};
use crate::wasm::component::guest;
use crate::wasm::failure::{self, Failure};
use crate::wasm::limits::Data;
use crate::words::{Code, Message, limits};

/// What `discovery.describe` answered. Unchecked: the registry judges it.
#[derive(Clone, Debug)]
pub struct Description {
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
    /// Whether the guest asked for a state change or timers, which only later kinds may.
    pub state_change: bool,
    pub timers: usize,
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

/// After any `Err` the instance is spent: drop it.
pub struct Instance {
    store: Store<Data>,
    exports: Function,
    resource: ResourceAny,
    spent: bool,
}

impl Instance {
    pub(in crate::wasm) fn new(
        store: Store<Data>,
        exports: Function,
        resource: ResourceAny,
    ) -> Self {
        Self { store, exports, resource, spent: false }
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
            return Err(Failure::Trap {
                reason: "the instance failed before and must not be used again".into(),
                backtrace: String::new(),
            });
        }
        let (guest, resource) = (guest(&self.exports), self.resource);
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
    let data = store.data_mut();
    data.turn.begin();
    data.memory.begin();
    store.set_epoch_deadline(1);
    store.set_hostcall_fuel(answer_bytes_max);
    let answer = run(store);
    let data = store.data_mut();
    data.turn.end();
    if let Some(wasi) = &mut data.wasi {
        wasi.end_call();
    }
    answer.map_err(|error| failure::classify(&error, data))
}

fn lower(message: &Message) -> entity::MessageParam<'_> {
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
}
