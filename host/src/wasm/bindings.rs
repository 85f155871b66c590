//! What wasmtime makes of `wit/function.wit`. Nothing outside this floor sees these types.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "functions",
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub use exports::stead::function::{action, discovery, entity, view};
