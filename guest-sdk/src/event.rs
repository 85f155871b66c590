//! Messages with their type names, and the enum of an entity's events.

use prost::{Message, Name};

use crate::rejection::{Code, Rejection};

/// A protobuf message in its binary encoding, and the full name of its type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedMessage {
    pub type_name: String,
    pub data: Vec<u8>,
}

impl EncodedMessage {
    pub fn of<M: Name>(message: &M) -> Self {
        Self { type_name: M::full_name(), data: message.encode_to_vec() }
    }

    /// # Errors
    ///
    /// A sentence, if this is another type or its bytes are not such a message.
    pub fn decode<M: Name + Default>(&self) -> Result<M, String> {
        let expected = M::full_name();
        if self.type_name != expected {
            return Err(format!("expected a {expected}, found a {}", self.type_name));
        }
        decode(&self.type_name, &self.data)
    }
}

/// The events of an entity: an enum with one variant for each message type. Derive it:
///
/// ```ignore
/// #[derive(stead_sdk::Events)]
/// enum Event {
///     Added(ItemAdded),
///     Removed(ItemRemoved),
/// }
/// ```
pub trait Events: Sized {
    fn encode(&self) -> EncodedMessage;

    /// # Errors
    ///
    /// A sentence, if no variant has a message of this type or its bytes are not such a message.
    fn decode(type_name: &str, data: &[u8]) -> Result<Self, String>;

    /// The event in a `google.protobuf.Any`, as a consumer of every type is given it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT, if no variant has a message of this type or its bytes are not such a message.
    fn from_any(any: &prost_types::Any) -> Result<Self, Rejection> {
        let type_name = any.type_url.rsplit('/').next().unwrap_or_default();
        Self::decode(type_name, &any.value)
            .map_err(|error| Rejection::new(Code::InvalidArgument, error))
    }
}

/// For entities that never emit one.
pub enum NoEvents {}

impl Events for NoEvents {
    fn encode(&self) -> EncodedMessage {
        match *self {}
    }

    fn decode(type_name: &str, _data: &[u8]) -> Result<Self, String> {
        Err(unknown_event(type_name))
    }
}

#[doc(hidden)]
pub fn unknown_event(type_name: &str) -> String {
    format!("no event of this entity is of type {type_name}")
}

#[doc(hidden)]
pub fn decode<M: Message + Default>(type_name: &str, data: &[u8]) -> Result<M, String> {
    M::decode(data).map_err(|error| format!("not a valid {type_name}: {error}"))
}
