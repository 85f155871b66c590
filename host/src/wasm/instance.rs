//! A hot instance: one entity's state in a WebAssembly instance of its own.
//!
//! Every call is synchronous: a guest cannot wait for anything. A call that outlives a tick of the
//! epoch clock gives its tokio worker away, so that an endless loop stalls nobody else until its
//! deadline ends it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::wasm::failure::Failure;
use crate::words::{Code, Message};

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
    _private: (),
}

impl Instance {
    pub fn restore(&mut self, _state: &Message) -> Result<(), Failure> {
        unreachable!()
    }

    pub fn apply(&mut self, _events: &[Message]) -> Result<(), Failure> {
        unreachable!()
    }

    pub fn handle(&mut self, _command: &Command) -> Result<Result<Outcome, Rejection>, Failure> {
        unreachable!()
    }

    pub fn snapshot(&mut self) -> Result<Option<Message>, Failure> {
        unreachable!()
    }

    /// Linear memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        unreachable!()
    }
}
