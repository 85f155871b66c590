//! What a value entity is.

use prost::Name;

/// A value entity: of what it was, only the newest state is kept.
///
/// `Default` is the entity before its first state, and after it was deleted. Where the state message
/// itself says everything, it can be the entity:
///
/// ```ignore
/// impl Value for stored::Cart {
///     type State = Self;
///     fn restore(state: Self) -> Result<Self, String> { Ok(state) }
/// }
/// ```
pub trait Value: Default + 'static {
    /// The message that is stored, by [`Context::update`](crate::Context::update).
    type State: Name + Default;

    /// The entity in this state, which may have been stored by an older version of this code.
    ///
    /// MUST depend on nothing but the state, and MUST accept every state that was ever stored.
    ///
    /// # Errors
    ///
    /// Why the state cannot be read. The entity then cannot be used until a better module is deployed.
    fn restore(state: Self::State) -> Result<Self, String>;
}
