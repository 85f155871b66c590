//! Finds the entity key in a request without decoding the request.
//!
//! A single key field is taken as it is. Several are joined by `/` in the order of their numbers,
//! with `~` in a part written `~0` and `/` written `~1` (as in RFC 6901), so that no two different
//! keys give the same id.
//!
//! Integers and enums are written in decimal, bools as `0` and `1`. A field that the request leaves
//! out has its default value, as protobuf says: a missing integer is the key `0`, which nobody can
//! tell from a written `0`; a missing string is empty, and an empty string is refused wherever it
//! stands in the key.

use std::fmt::Write as _;
use std::sync::Arc;

use prost::DecodeError;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::registry::descriptor::is_entity_key;
use crate::registry::wire;
use crate::words::EntityId;
use crate::words::limits::{ENTITY_ID_BYTES_MAX, KEY_FIELDS_MAX};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("field {field} is the entity's key and must not be empty")]
    Empty { field: String },
    #[error("the entity's key has {bytes} bytes; the limit is {max}")]
    TooLong { bytes: usize, max: usize },
    #[error("the request is not a valid {message}: {reason}")]
    Malformed { message: String, reason: String },
}

#[derive(Clone, Debug)]
pub struct KeyReader {
    message: Arc<str>,
    /// In the order of their numbers; 1 to [`KEY_FIELDS_MAX`].
    fields: Arc<[KeyField]>,
}

#[derive(Clone, Debug)]
struct KeyField {
    name: Box<str>,
    number: u32,
    form: Form,
    default: Default,
}

/// How a value of the field's type is encoded. Enums are `Int32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    String,
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
}

/// One part of a key, as a request has it.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Text(&'a str),
    Signed(i64),
    Unsigned(u64),
}

/// What a request that leaves the field out means: only proto2 can choose it.
#[derive(Clone, Debug)]
enum Default {
    Text(Box<str>),
    Signed(i64),
    Unsigned(u64),
}

impl KeyReader {
    /// Faults are sentences for the author of the service, without the method's name.
    pub fn new(request: &MessageDescriptor) -> Result<Self, Vec<String>> {
        let mut descriptors: Vec<_> = request.fields().filter(is_entity_key).collect();
        descriptors.sort_by_key(FieldDescriptor::number);
        if descriptors.is_empty() {
            return Err(vec![format!(
                "its request {} has no entity key; mark the field that says which entity it is for \
                 with [(stead.entity_key) = true]",
                request.full_name()
            )]);
        }
        if descriptors.len() > KEY_FIELDS_MAX {
            return Err(vec![format!(
                "its request {} has {} entity key fields; the limit is {KEY_FIELDS_MAX}",
                request.full_name(),
                descriptors.len()
            )]);
        }
        let mut fields = Vec::with_capacity(descriptors.len());
        let mut faults = Vec::new();
        for descriptor in &descriptors {
            match KeyField::new(descriptor) {
                Ok(field) => fields.push(field),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { message: request.full_name().into(), fields: fields.into() })
    }

    /// Walks the top level of the message only, so a fault deeper inside goes unseen here.
    pub fn read(&self, payload: &[u8]) -> Result<EntityId, KeyError> {
        let mut parts = [Part::Text(""); KEY_FIELDS_MAX];
        for (part, field) in parts.iter_mut().zip(self.fields.iter()) {
            *part = field.default.part();
        }
        for field in wire::fields(payload) {
            let wire::Field { number, value, .. } = field.map_err(|error| self.malformed(error))?;
            if let Some(index) = self.fields.iter().position(|field| field.number == number) {
                parts[index] = self.part(&self.fields[index], value)?;
            }
        }
        self.join(&parts)
    }
}

impl KeyReader {
    fn part<'a>(&self, field: &KeyField, value: wire::Value<'a>) -> Result<Part<'a>, KeyError> {
        let part = match (field.form, value) {
            (Form::String, wire::Value::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| self.invalid(format!("field {} is not UTF-8", field.name)))?;
                Part::Text(text)
            }
            (Form::Fixed32, wire::Value::Fixed32(bytes)) => {
                Part::Unsigned(u32::from_le_bytes(bytes).into())
            }
            (Form::Sfixed32, wire::Value::Fixed32(bytes)) => {
                Part::Signed(i32::from_le_bytes(bytes).into())
            }
            (Form::Fixed64, wire::Value::Fixed64(bytes)) => {
                Part::Unsigned(u64::from_le_bytes(bytes))
            }
            (Form::Sfixed64, wire::Value::Fixed64(bytes)) => {
                Part::Signed(i64::from_le_bytes(bytes))
            }
            // Longer varints than the type needs are cut, as every protobuf implementation does.
            (Form::Bool, wire::Value::Varint(value)) => Part::Unsigned((value != 0).into()),
            (Form::Int32, wire::Value::Varint(value)) => Part::Signed((value as i32).into()),
            (Form::Int64, wire::Value::Varint(value)) => Part::Signed(value as i64),
            (Form::Uint32, wire::Value::Varint(value)) => Part::Unsigned((value as u32).into()),
            (Form::Uint64, wire::Value::Varint(value)) => Part::Unsigned(value),
            (Form::Sint32, wire::Value::Varint(value)) => {
                let value = value as u32;
                Part::Signed(((value >> 1) as i32 ^ -((value & 1) as i32)).into())
            }
            (Form::Sint64, wire::Value::Varint(value)) => {
                Part::Signed((value >> 1) as i64 ^ -((value & 1) as i64))
            }
            _ => {
                return Err(
                    self.invalid(format!("field {} has a value of another type", field.name))
                );
            }
        };
        Ok(part)
    }

    fn join(&self, parts: &[Part<'_>; KEY_FIELDS_MAX]) -> Result<EntityId, KeyError> {
        let alone = self.fields.len() == 1;
        let mut id = Id::new();
        for (index, field) in self.fields.iter().enumerate() {
            if index > 0 {
                id.push("/");
            }
            match parts[index] {
                Part::Text("") => return Err(KeyError::Empty { field: field.name.to_string() }),
                Part::Text(text) if alone => id.push(text),
                Part::Text(text) => id.push_escaped(text),
                Part::Signed(number) => id.push_number(number),
                Part::Unsigned(number) => id.push_number(number),
            }
        }
        id.finish()
    }

    fn malformed(&self, error: DecodeError) -> KeyError {
        let text = error.to_string();
        let reason = text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&text);
        self.invalid(reason.to_owned())
    }

    fn invalid(&self, reason: String) -> KeyError {
        KeyError::Malformed { message: self.message.to_string(), reason }
    }
}

impl KeyField {
    fn new(descriptor: &FieldDescriptor) -> Result<Self, String> {
        let refuse = |what: &str| {
            let (name, message) = (descriptor.name(), descriptor.parent_message().full_name());
            Err(format!(
                "the entity key {name} of its request {message} is {what}; a key must be a single \
                 string, integer, bool or enum"
            ))
        };
        if descriptor.is_map() {
            return refuse("a map");
        }
        if descriptor.is_list() {
            return refuse("repeated");
        }
        if descriptor.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) {
            return refuse("in a oneof, so that a request may be without it");
        }
        let form = match descriptor.kind() {
            Kind::String => Form::String,
            Kind::Bool => Form::Bool,
            Kind::Int32 | Kind::Enum(_) => Form::Int32,
            Kind::Int64 => Form::Int64,
            Kind::Uint32 => Form::Uint32,
            Kind::Uint64 => Form::Uint64,
            Kind::Sint32 => Form::Sint32,
            Kind::Sint64 => Form::Sint64,
            Kind::Fixed32 => Form::Fixed32,
            Kind::Fixed64 => Form::Fixed64,
            Kind::Sfixed32 => Form::Sfixed32,
            Kind::Sfixed64 => Form::Sfixed64,
            Kind::Float | Kind::Double => return refuse("a floating-point number"),
            Kind::Bytes => return refuse("bytes"),
            Kind::Message(_) => return refuse("a message"),
        };
        let default = match descriptor.default_value() {
            Value::String(text) => Default::Text(text.into()),
            Value::Bool(value) => Default::Unsigned(value.into()),
            Value::I32(value) | Value::EnumNumber(value) => Default::Signed(value.into()),
            Value::I64(value) => Default::Signed(value),
            Value::U32(value) => Default::Unsigned(value.into()),
            Value::U64(value) => Default::Unsigned(value),
            _ => return refuse("of a type that has no default"),
        };
        Ok(Self { name: descriptor.name().into(), number: descriptor.number(), form, default })
    }
}

impl Default {
    fn part(&self) -> Part<'_> {
        match self {
            Default::Text(text) => Part::Text(text),
            Default::Signed(number) => Part::Signed(*number),
            Default::Unsigned(number) => Part::Unsigned(*number),
        }
    }
}

/// An id in the making, on the stack: ids are made for every command.
struct Id {
    bytes: [u8; ENTITY_ID_BYTES_MAX],
    /// Goes on counting past the end, for the error.
    length: usize,
}

impl Id {
    fn new() -> Self {
        Self { bytes: [0; ENTITY_ID_BYTES_MAX], length: 0 }
    }

    fn push(&mut self, text: &str) {
        let end = self.length.saturating_add(text.len());
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(text.as_bytes());
        }
        self.length = end;
    }

    fn push_escaped(&mut self, text: &str) {
        for piece in text.split_inclusive(['~', '/']) {
            match piece.as_bytes().last() {
                Some(b'~') => {
                    self.push(piece);
                    self.push("0");
                }
                Some(b'/') => {
                    self.push(&piece[..piece.len() - 1]);
                    self.push("~1");
                }
                _ => self.push(piece),
            }
        }
    }

    fn push_number(&mut self, number: impl std::fmt::Display) {
        // `write_str` below never fails.
        let _ = write!(self, "{number}");
    }

    fn finish(&self) -> Result<EntityId, KeyError> {
        let too_long = KeyError::TooLong { bytes: self.length, max: ENTITY_ID_BYTES_MAX };
        let bytes = self.bytes.get(..self.length).ok_or(too_long)?;
        // Made of whole strings, hence always UTF-8.
        Ok(EntityId::from(String::from_utf8_lossy(bytes).as_ref()))
    }
}

impl std::fmt::Write for Id {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
