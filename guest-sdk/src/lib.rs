//! Write stateful functions for Stead in Rust.
//!
//! A function is a .proto, a struct, an implementation of the service's trait, and one line of macro.
//! See `examples/shopping-cart` for all of it, and README.md beside this crate for the contract and the
//! other kinds: [`EventSourced`] and [`Value`] entities, a [`Workflow`], an [`Action`], a [`View`].
//!
//! The rule is in the types: a command handler takes `&self`, so it cannot change the state. It
//! [emits](Context::emit) events; they are stored; and only [`EventSourced::apply`] changes the
//! state, now as at every later replay.

// What the macros make says `::stead_sdk`, in this crate too.
extern crate self as stead_sdk;

mod action;
mod call;
mod context;
#[cfg(any(target_arch = "wasm32", test))]
mod descriptors;
mod entity;
mod event;
mod host;
mod module;
mod rejection;
pub mod service;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod timer;
mod value;
mod view;
pub mod workflow;

#[cfg(target_arch = "wasm32")]
mod guest;

pub use action::{Action, Gone, Requests, Responses};
pub use call::Call;
pub use context::{Context, Metadata, Outcome, Reply};
pub use entity::EventSourced;
pub use event::{EncodedMessage, Events, NoEvents};
pub use module::EntityType;
pub use rejection::{Code, Rejection};
pub use stead_sdk_macros::Events;
pub use timer::TimerSetting;
pub use value::Value;
pub use view::{Change, View};
pub use workflow::{Ctx, Workflow};

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

/// Makes this crate a module of stateful functions. Once in a crate, with one line for each of them:
/// its kind (none is event-sourced), the struct, the service that it implements, and for entities the
/// name under which they are stored, which must stay the same for the life of the data.
///
/// ```ignore
/// stead_sdk::export! {
///     Cart: ShoppingCart, journal = "shopping-cart";
///     Account: Ledger, journal = "account", snapshot_every = 50, memory_max_mib = 16;
///     value Profile: Profiles, journal = "profile", history = 10;
///     workflow Purchase: Checkout, journal = "checkout";
///     action Mailer: Mail;
///     view Popular: PopularItemsRows, source = "item", version = 2;
/// }
/// ```
///
/// What may follow are the methods of [`EntityType`].
#[macro_export]
macro_rules! export {
    ($($declarations:tt)+) => {
        const _: () = {
            struct Module;

            impl $crate::__private::Module for Module {
                fn entity_types() -> ::std::vec::Vec<$crate::EntityType> {
                    let mut types = ::std::vec::Vec::new();
                    $crate::__declare!(types; $($declarations)+);
                    types
                }
            }

            $crate::__export_module!(Module);
        };
    };
}

/// One line of `export!` after the other.
#[doc(hidden)]
#[macro_export]
macro_rules! __declare {
    ($types:ident;) => {};
    ($types:ident; value $entity:ty : $($service:ident)::+, journal = $journal:expr
        $(, $key:ident = $value:expr)* $(,)? $(; $($rest:tt)*)?) => {
        let declared = $crate::EntityType::value($($service)::+::<$entity>(), $journal);
        $types.push(declared$(.$key($value))*);
        $crate::__declare!($types; $($($rest)*)?);
    };
    ($types:ident; workflow $workflow:ty : $($service:ident)::+, journal = $journal:expr
        $(, $key:ident = $value:expr)* $(,)? $(; $($rest:tt)*)?) => {
        let declared = $crate::EntityType::workflow($($service)::+::<$workflow>(), $journal);
        $types.push(declared$(.$key($value))*);
        $crate::__declare!($types; $($($rest)*)?);
    };
    ($types:ident; action $action:ty : $($service:ident)::+
        $(, $key:ident = $value:expr)* $(,)? $(; $($rest:tt)*)?) => {
        let declared = $crate::EntityType::action($($service)::+::<$action>());
        $types.push(declared$(.$key($value))*);
        $crate::__declare!($types; $($($rest)*)?);
    };
    ($types:ident; view $view:ty : $($service:ident)::+, source = $source:expr
        $(, $key:ident = $value:expr)* $(,)? $(; $($rest:tt)*)?) => {
        let declared = $crate::EntityType::view::<$view>($($service)::+(), $source);
        $types.push(declared$(.$key($value))*);
        $crate::__declare!($types; $($($rest)*)?);
    };
    ($types:ident; $entity:ty : $($service:ident)::+, journal = $journal:expr
        $(, $key:ident = $value:expr)* $(,)? $(; $($rest:tt)*)?) => {
        let declared = $crate::EntityType::event_sourced($($service)::+::<$entity>(), $journal);
        $types.push(declared$(.$key($value))*);
        $crate::__declare!($types; $($($rest)*)?);
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
