//! What a value entity is.

use std::fmt::Display;

use prost::Name;

/// A value entity: of what it was, only the newest state is kept.
///
/// `Default` is the entity before its first state, and after it was deleted. Where the state message
/// itself says everything, it can be the entity:
///
/// ```ignore
/// impl Value for stored::Cart {
///     type State = Self;
/// }
/// ```
pub trait Value: Default + 'static {
    /// The message that is stored, by [`Context::update`](crate::Context::update).
    ///
    /// The entity is made of it by `TryFrom`, or `From`, which MUST depend on nothing but the message, and
    /// MUST accept every state that was ever stored: one that it cannot read makes the entity unusable
    /// until a better module is deployed.
    type State: Name + Default + TryInto<Self, Error: Display>;
}

/// The entity in this state.
pub(crate) fn restored<V: Value>(state: V::State) -> Result<V, String> {
    state.try_into().map_err(|error: <V::State as TryInto<V>>::Error| error.to_string())
}
