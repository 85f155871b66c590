//! `stead:function/calls`: what a guest may ask of the host while it runs.

use wasmtime::component::Linker;

use crate::wasm::bindings::stead::function::{calls, types};
use crate::wasm::deadline::Ended;
use crate::wasm::limits::Data;

/// As every version of the contract that is accepted names it: the linker lets 0.1.x stand for 0.1.0.
const INTERFACE: &str = "stead:function/calls@0.1.0";

const ONLY_ACTIONS: Ended = Ended::Forbidden(
    "the function asked for something while it ran (stead:function/calls), which only an action may; \
     an entity asks with an effect or a forward",
);

type Received = (Result<Option<Vec<u8>>, calls::Gone>,);
type Sent = (Result<(), calls::Gone>,);
type Called = (Result<Vec<u8>, types::Rejection>,);

/// For everything that is no action: to ask is a trap.
pub fn forbid(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut calls = linker.instance(INTERFACE)?;
    calls.func_wrap("receive", |_, (): ()| forbidden::<Received>())?;
    calls.func_wrap("send", |_, (_,): (calls::Response,)| forbidden::<Sent>())?;
    calls.func_wrap("call", |_, (_,): (types::Call,)| forbidden::<Called>())
}

fn forbidden<T>() -> wasmtime::Result<T> {
    Err(wasmtime::Error::new(ONLY_ACTIONS))
}

#[cfg(test)]
mod tests {
    use crate::wasm::Failure;
    use crate::wasm::fixtures::{Guest, command};

    /// An entity whose world imports `calls`.
    fn entity(handle: &str) -> Guest {
        let import =
            r#"(import "stead:function/calls@0.1.0" "receive" (func $receive (param i32)))"#;
        Guest::new()
            .replacing("world function {", "world function { import calls;")
            .with_imports(import)
            .with("handle", handle)
    }

    #[test]
    fn an_entity_that_asks_while_it_runs_traps() {
        let mut instance = entity("(call $receive (i32.const 16)) unreachable").instance();
        match instance.handle(&command(b"")) {
            Err(Failure::Trap { reason, .. }) => {
                assert!(reason.contains("only an action may"), "{reason}");
            }
            other => panic!("a trap is expected: {other:?}"),
        }
    }

    #[test]
    fn an_entity_that_could_ask_and_does_not_is_served() {
        let answer = "(i32.store8 (i32.const 20) (i32.const 2)) (i32.const 16)";
        let mut instance = entity(answer).instance();
        instance.handle(&command(b"")).expect("answers").expect("accepts");
    }
}
