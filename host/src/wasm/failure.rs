//! How a guest fails, as types.

use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};

use crate::wasm::arena::NO_ROOM;
use crate::wasm::deadline::Ended;
use crate::wasm::limits::Data;
use crate::words::{Status, limits};

/// Why a module was not accepted. Each is a sentence for the person who uploaded it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the module is empty")]
    Empty,
    #[error("the module has {bytes} bytes; the limit is {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("this is not a WebAssembly file: {reason}")]
    NotWasm { reason: String },
    #[error(
        "this is a core WebAssembly module, not a component; build it with `stead build`, or encode it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error("this is a precompiled module; upload the .wasm file")]
    Precompiled,
    #[error("the component is invalid: {reason}")]
    Invalid { reason: String },
    #[error(
        "the component does not export {missing}; it must implement one of the worlds of stead:function@0.1.0: `function`, `acting`, `viewing` or `functions`"
    )]
    WrongWorld { missing: String },
    #[error("the component exports other types than stead:function@0.1.0 has: {reason}")]
    OtherTypes { reason: String },
    #[error("the component implements stead:function@{found}; this host accepts 0.1.x")]
    WrongVersion { found: String },
    #[error(
        "the component imports {import}, which is not granted: a function may import nothing but stead:function/calls, the closed WASI 0.2 and, with a grant, wasi:http"
    )]
    ImportNotGranted { import: String },
    #[error("the component is too costly: {what} (limit {max})")]
    TooCostly { what: String, max: String },
    #[error("the component could not be compiled within {limit}")]
    CompileLimit { limit: String },
    #[error("the component could not be compiled: {reason}")]
    CompileFailed { reason: String },
    /// Not the module's fault: this machine could not run the compiler, or not use what it made.
    #[error("the compiler could not do its work: {reason}")]
    NoCompiler { reason: String },
}

impl Refusal {
    /// Whether the same module may be accepted another time, when the machine has more to give.
    pub fn may_pass(&self) -> bool {
        matches!(self, Refusal::CompileLimit { .. } | Refusal::NoCompiler { .. })
    }
}

/// Why a call into a guest did not give an answer. The instance must not be used again.
/// The texts are for logs and operators, not for callers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("trap: {reason}")]
    Trap { reason: String, backtrace: String },
    #[error("the call took longer than its deadline of {deadline:?}")]
    Deadline { deadline: Duration },
    #[error("the instance wanted more memory than its limit of {max_bytes} bytes")]
    Memory { max_bytes: usize },
    #[error("malformed answer: {reason}")]
    Malformed { reason: String },
    /// The guest said that it cannot read its state or events.
    #[error("the guest refused its own {what}: {reason}")]
    Refused { what: &'static str, reason: String },
    /// Not the guest's fault: the host had no room for an instance, or no thread for a long turn.
    #[error("no room for the instance: {reason}")]
    NoRoom { reason: String },
}

impl Failure {
    /// The label of the metric and the word in the CLI.
    pub fn label(&self) -> &'static str {
        match self {
            Failure::Trap { .. } => "trap",
            Failure::Deadline { .. } => "deadline",
            Failure::Memory { .. } => "memory",
            Failure::Malformed { .. } => "malformed",
            Failure::Refused { .. } => "refused",
            Failure::NoRoom { .. } => "no_room",
        }
    }

    /// Whether the same call may succeed another time, when the machine has more to give.
    pub fn may_pass(&self) -> bool {
        match self {
            Failure::Deadline { .. } | Failure::NoRoom { .. } => true,
            Failure::Trap { .. }
            | Failure::Memory { .. }
            | Failure::Malformed { .. }
            | Failure::Refused { .. } => false,
        }
    }

    /// What the caller is told: `crashed` where it is the guest's fault.
    pub fn to_status(&self, crashed: impl FnOnce() -> String) -> Status {
        match self {
            Failure::NoRoom { .. } => {
                Status::unavailable("the node has no room for this call; try again later")
            }
            Failure::Trap { .. }
            | Failure::Deadline { .. }
            | Failure::Memory { .. }
            | Failure::Malformed { .. }
            | Failure::Refused { .. } => Status::internal(crashed()),
        }
    }
}

/// What an error of wasmtime says about the guest.
pub(in crate::wasm) fn classify(error: &wasmtime::Error, data: &mut Data) -> Failure {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.clone();
    }
    let ended = error.downcast_ref::<Ended>();
    match ended {
        Some(Ended::Deadline) => return Failure::Deadline { deadline: data.turn.deadline },
        Some(Ended::TooManyLongTurns { .. }) => {
            return Failure::NoRoom { reason: error.root_cause().to_string() };
        }
        Some(Ended::Malformed(reason)) => {
            return Failure::Malformed {
                reason: printable(reason, limits::GUEST_BACKTRACE_BYTES_MAX),
            };
        }
        Some(Ended::Forbidden(_)) | None => {}
    }
    let root = error.root_cause().to_string();
    if root.starts_with(NO_ROOM) {
        return Failure::NoRoom { reason: root };
    }
    if let Some(reason) = data.memory.no_room.take() {
        return Failure::NoRoom { reason };
    }
    if data.memory.denied {
        return Failure::Memory { max_bytes: data.memory.bytes_max };
    }
    // What went wrong after the guest returned, while its answer was read, has neither a trap nor
    // frames of the guest.
    let trap = error.downcast_ref::<Trap>();
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    if trap.is_none() && backtrace.is_none() && ended.is_none() {
        return Failure::Malformed { reason: printable(&root, limits::GUEST_BACKTRACE_BYTES_MAX) };
    }
    let reason = match trap {
        Some(trap) => trap.to_string(),
        None => root,
    };
    Failure::Trap {
        reason: printable(&reason, limits::GUEST_BACKTRACE_BYTES_MAX),
        backtrace: backtrace.map_or_else(String::new, |backtrace| {
            printable(&backtrace.to_string(), limits::GUEST_BACKTRACE_BYTES_MAX)
        }),
    }
}

/// Text in which a guest may have had a hand, for logs and terminals: no control characters but
/// line ends, and not too long.
pub(in crate::wasm) fn printable(text: &str, bytes_max: usize) -> String {
    let text = text.trim();
    let end = text.floor_char_boundary(bytes_max);
    text[..end].chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacked_may_pass_and_what_the_module_does_wrong_may_not() {
        let reason = || "why".to_owned();
        let refusals = [
            (Refusal::CompileLimit { limit: "60 seconds".into() }, true),
            (Refusal::NoCompiler { reason: reason() }, true),
            (Refusal::CompileFailed { reason: reason() }, false),
            (Refusal::Invalid { reason: reason() }, false),
            (Refusal::CoreModule, false),
        ];
        for (refusal, may_pass) in refusals {
            assert_eq!(refusal.may_pass(), may_pass, "{refusal}");
        }
        let failures = [
            (Failure::Deadline { deadline: Duration::from_secs(1) }, true),
            (Failure::NoRoom { reason: reason() }, true),
            (Failure::Trap { reason: reason(), backtrace: String::new() }, false),
            (Failure::Memory { max_bytes: 1 }, false),
            (Failure::Malformed { reason: reason() }, false),
        ];
        for (failure, may_pass) in failures {
            assert_eq!(failure.may_pass(), may_pass, "{failure}");
        }
    }

    #[test]
    fn text_of_guests_cannot_drive_a_terminal() {
        assert_eq!(printable("\x1b[2Jgone\r\n\u{9b}31m\0\ttext ", 100), "[2Jgone\n31mtext");
        assert_eq!(printable("€€", 4), "€");
    }
}
