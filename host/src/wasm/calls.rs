//! `stead:function/calls`: what an action may ask of the host while it runs.
//!
//! A guest that asks waits on a stack of its own (a fiber), so nobody else waits with it. For everything
//! that is no action, to ask is a trap.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use wasmtime::component::Linker;
use wasmtime::{AsContextMut, StoreContextMut};

use crate::wasm::answer;
use crate::wasm::bindings::stead::function::{calls, types};
use crate::wasm::deadline::Ended;
use crate::wasm::instance::{Answer, Call, Effect, Rejection};
use crate::wasm::limits::Data;

/// As every version of the contract that is accepted names it: the linker lets 0.1.x stand for 0.1.0.
const INTERFACE: &str = "stead:function/calls@0.1.0";

const ONLY_ACTIONS: Ended = Ended::Forbidden(
    "the function asked for something while it ran (stead:function/calls), which only an action may; \
     an entity asks with an effect or a forward",
);

/// Why nothing more comes, or can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Cancelled,
    DeadlineExceeded,
}

/// What becomes of what the guest asks for during one call. A future that is dropped before it is
/// ready MUST leave nothing half done that the caller could notice.
pub trait Conversation: Send {
    /// The next message of a streamed request; none at its end.
    fn receive(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Gone>>;

    /// Sends a message of a streamed answer, after its effects. An error is the guest's fault, and ends
    /// the call.
    fn send(
        &mut self,
        answer: Answer,
        effects: Vec<Effect>,
    ) -> BoxFuture<'_, Result<Result<(), Gone>, String>>;

    /// Calls another function.
    fn call(&mut self, call: Call) -> BoxFuture<'_, Result<Bytes, Rejection>>;
}

type Received = (Result<Option<Vec<u8>>, calls::Gone>,);
type Sent = (Result<(), calls::Gone>,);
type Called = (Result<Vec<u8>, types::Rejection>,);

/// For everything that is no action.
pub fn forbid(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut calls = linker.instance(INTERFACE)?;
    calls.func_wrap("receive", |_, (): ()| forbidden::<Received>())?;
    calls.func_wrap("send", |_, (_,): (calls::Response,)| forbidden::<Sent>())?;
    calls.func_wrap("call", |_, (_,): (types::Call,)| forbidden::<Called>())
}

/// For actions.
pub fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut calls = linker.instance(INTERFACE)?;
    calls.func_wrap_async("receive", |store, (): ()| Box::new(receive(store)))?;
    calls.func_wrap_async("send", |store, (response,)| Box::new(send(store, response)))?;
    calls.func_wrap_async("call", |store, (target,)| Box::new(call(store, target)))
}

async fn receive(mut store: StoreContextMut<'_, Data>) -> wasmtime::Result<Received> {
    let received = conversation(&mut store)?.receive().await;
    go_on(&mut store);
    Ok((received.map(|message| message.map(Vec::from)).map_err(gone),))
}

async fn send(
    mut store: StoreContextMut<'_, Data>,
    response: calls::Response,
) -> wasmtime::Result<Sent> {
    let (answer, effects) = answer::response(response).map_err(wasmtime::Error::new)?;
    let sent = conversation(&mut store)?.send(answer, effects).await;
    go_on(&mut store);
    let sent = sent.map_err(|reason| wasmtime::Error::new(Ended::Malformed(reason)))?;
    Ok((sent.map_err(gone),))
}

async fn call(
    mut store: StoreContextMut<'_, Data>,
    target: types::Call,
) -> wasmtime::Result<Called> {
    let call = answer::call(target).map_err(wasmtime::Error::new)?;
    let called = conversation(&mut store)?.call(call).await;
    go_on(&mut store);
    Ok((called.map(Vec::from).map_err(answer::lower_rejection),))
}

fn conversation<'a>(
    store: &'a mut StoreContextMut<'_, Data>,
) -> wasmtime::Result<&'a mut dyn Conversation> {
    match &mut store.data_mut().conversation {
        Some(conversation) => Ok(&mut **conversation),
        None => Err(wasmtime::Error::new(ONLY_ACTIONS)),
    }
}

/// The guest gets its answer: its time counts from here, not from before it waited.
fn go_on(store: &mut StoreContextMut<'_, Data>) {
    store.data_mut().go_on();
    store.as_context_mut().set_epoch_deadline(1);
}

fn gone(gone: Gone) -> calls::Gone {
    match gone {
        Gone::Cancelled => calls::Gone::Cancelled,
        Gone::DeadlineExceeded => calls::Gone::DeadlineExceeded,
    }
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
