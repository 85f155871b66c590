//! What wasmtime makes of `wit/function.wit`. Nothing outside this floor sees these types.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "function",
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub use exports::stead::function::entity::GuestInstance;
