//! Write stateful functions for Stead in Rust.
//!
//! An entity is a .proto, a struct, an implementation of the service's trait, and one line of macro.
//! See `examples/shopping-cart` for all of it, and README.md beside this crate for the contract.
//!
//! The rule is in the types: a command handler takes `&self`, so it cannot change the state. It
//! [emits](Context::emit) events; they are stored; and only [`EventSourced::apply`] changes the
//! state, now as at every later replay.

// What the macros make says `::stead_sdk`, in this crate's own tests too.
#[cfg(test)]
extern crate self as stead_sdk;

mod context;
#[cfg(any(target_arch = "wasm32", test))]
mod descriptors;
mod entity;
mod event;
mod module;
mod rejection;
pub mod service;
pub mod testing;

#[cfg(target_arch = "wasm32")]
mod guest;

pub use context::{Context, Metadata, Outcome, Reply};
pub use entity::EventSourced;
pub use event::{EncodedMessage, Events, NoEvents};
pub use module::EntityType;
pub use rejection::{Code, Rejection};
pub use stead_sdk_macros::Events;

pub use prost;
pub use prost_types;

/// Includes what `stead_build::compile` made of a protobuf package.
///
/// ```ignore
/// mod shop {
///     stead_sdk::include_proto!("shop.v1");
/// }
/// ```
///
/// A package that refers to types of a package inside it expects that one in a module of its own:
/// `a.b` finds the types of `a.b.c` in `mod c`.
#[macro_export]
macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// Refuses the command: returns a [`Rejection`] with a [`Code`] and a text, as in `format!`.
///
/// ```
/// # use stead_sdk::{Rejection, reject};
/// fn positive(quantity: i32) -> Result<(), Rejection> {
///     if quantity <= 0 {
///         reject!(InvalidArgument, "quantity is {quantity}, and must be positive");
///     }
///     Ok(())
/// }
/// assert_eq!(positive(-1).unwrap_err().code, stead_sdk::Code::InvalidArgument);
/// ```
#[macro_export]
macro_rules! reject {
    ($code:ident, $($text:tt)+) => {
        return ::core::result::Result::Err($crate::Rejection::new(
            $crate::Code::$code,
            ::std::format!($($text)+),
        ))
    };
}

/// Makes this crate a module of stateful functions. Once in a crate, with one line for each entity
/// type: the struct, the service that it implements, and the name under which its entities are
/// stored, which must stay the same for the life of the data.
///
/// ```ignore
/// stead_sdk::export! {
///     Cart: ShoppingCart, journal = "shopping-cart";
///     Account: Ledger, journal = "account", snapshot_every = 50, memory_max_mib = 16;
/// }
/// ```
///
/// What may follow the journal's name are the methods of [`EntityType`].
#[macro_export]
macro_rules! export {
    ($($entity:ty : $($service:ident)::+, journal = $journal:expr $(, $key:ident = $value:expr)* $(,)?);+ $(;)?) => {
        const _: () = {
            struct Module;

            impl $crate::__private::Module for Module {
                fn entity_types() -> ::std::vec::Vec<$crate::EntityType> {
                    ::std::vec![$(
                        $crate::EntityType::new($($service)::+::<$entity>(), $journal)$(.$key($value))*
                    ),+]
                }
            }

            $crate::__export_module!(Module);
        };
    };
}

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_module {
    ($module:ident) => {
        $crate::__private::bindings::__export_function!($module with_types_in $crate::__private::bindings);
    };
}

/// Off WebAssembly there is nobody to export to: this only keeps the declaration checked.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __export_module {
    ($module:ident) => {
        const _: fn() -> ::std::vec::Vec<$crate::EntityType> =
            <$module as $crate::__private::Module>::entity_types;
    };
}

#[doc(hidden)]
pub mod __private {
    pub use crate::event::{decode, unknown_event};
    #[cfg(target_arch = "wasm32")]
    pub use crate::guest::bindings;
    pub use crate::module::Module;
}
