//! Between protobuf's JSON mapping and its binary encoding.
//!
//! camelCase names (and the names of the .proto on the way in), 64-bit integers as strings, fields
//! without presence always printed. Unknown fields are refused.

use std::io;

use bytes::Bytes;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
    Value,
};
use serde::de::IgnoredAny;
use serde::ser::{Serialize, SerializeSeq};
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::gateway::json_fault;
use crate::words::{Status, limits};

const READ: DeserializeOptions = DeserializeOptions::new();
const WRITE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// Reads a JSON object; an empty text is the empty message.
pub fn from_json(message: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, Status> {
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(DynamicMessage::new(message.clone()));
    }
    // A reader over a checked string is faster than one that checks each string.
    let text = std::str::from_utf8(json)
        .map_err(|_| Status::invalid_argument("the request's JSON is not UTF-8"))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    DynamicMessage::deserialize_with_options(message.clone(), &mut reader, &READ)
        .and_then(|message| reader.end().map(|()| message))
        .map_err(|error| Status::invalid_argument(json_fault::explain(message, text, &error)))
}

/// Reads the JSON of one field, as `body: "field"` asks for.
pub fn field_from_json(
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    json: &[u8],
) -> Result<DynamicMessage, Status> {
    if json.iter().all(u8::is_ascii_whitespace) {
        return Ok(DynamicMessage::new(message.clone()));
    }
    // It must be one value, or it could end the field and go on with another.
    serde_json::from_slice::<IgnoredAny>(json).map_err(|error| {
        Status::invalid_argument(format!("the request is not valid JSON: {error}"))
    })?;
    let name = field.json_name();
    let mut wrapped = Vec::with_capacity(json.len() + name.len() + 5);
    wrapped.extend_from_slice(b"{\"");
    wrapped.extend_from_slice(name.as_bytes());
    wrapped.extend_from_slice(b"\":");
    wrapped.extend_from_slice(json);
    wrapped.push(b'}');
    from_json(message, &wrapped)
}

pub fn decode(message: &MessageDescriptor, bytes: Bytes) -> Result<DynamicMessage, Status> {
    DynamicMessage::decode(message.clone(), bytes)
        .map_err(|_| Status::internal(format!("the reply is not a valid {}", message.full_name())))
}

pub fn to_json(message: &MessageDescriptor, bytes: Bytes) -> Result<Vec<u8>, Status> {
    let mut out = Vec::with_capacity(bytes.len() * 2 + 64);
    decode(message, bytes)?
        .serialize_with_options(&mut Serializer::with_formatter(&mut out, Whole), &WRITE)
        .map_err(unwritable)?;
    Ok(out)
}

/// The JSON of one field, as `response_body: "field"` asks for.
pub fn field_to_json(
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    bytes: Bytes,
) -> Result<Vec<u8>, Status> {
    let message = decode(message, bytes)?;
    let mut out = Vec::new();
    let mut writer = Serializer::with_formatter(&mut out, Whole);
    let written = match &*message.get_field(field) {
        Value::Message(inner) => inner.serialize_with_options(&mut writer, &WRITE),
        Value::List(items) if matches!(field.kind(), Kind::Message(_)) => {
            write_messages(&mut writer, items)
        }
        // Scalars, enums and maps have no serializer of their own: take them out of the whole.
        _ => message.serialize_with_options(serde_json::value::Serializer, &WRITE).and_then(
            |whole| match whole.get(field.json_name()) {
                Some(value) => value.serialize(&mut writer),
                None => ().serialize(&mut writer),
            },
        ),
    };
    written.map_err(unwritable)?;
    Ok(out)
}

fn write_messages<S: serde::Serializer>(writer: S, items: &[Value]) -> Result<S::Ok, S::Error> {
    struct Item<'a>(&'a DynamicMessage);
    impl serde::Serialize for Item<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.serialize_with_options(serializer, &WRITE)
        }
    }
    let mut list = writer.serialize_seq(Some(items.len()))?;
    for message in items.iter().filter_map(Value::as_message) {
        list.serialize_element(&Item(message))?;
    }
    list.end()
}

/// Whole numbers without `.0`, as protobuf's own libraries write them: those in a
/// `google.protobuf.Value` are doubles that were mostly integers before.
struct Whole;

impl Formatter for Whole {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        /// Up to here every integer has its own f64.
        const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
        let negative_zero = value == 0.0 && value.is_sign_negative();
        if value.fract() == 0.0 && value.abs() <= WHOLE_MAX && !negative_zero {
            CompactFormatter.write_i64(writer, value as i64)
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }

    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        if value.fract() == 0.0 {
            self.write_f64(writer, f64::from(value))
        } else {
            CompactFormatter.write_f32(writer, value)
        }
    }
}

fn unwritable(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("the reply has no JSON form: {error}"))
}

/// The fields along a dotted path. The last one is not a plain message.
pub fn resolve(message: &MessageDescriptor, path: &str) -> Result<Vec<FieldDescriptor>, String> {
    let mut message = message.clone();
    let mut fields: Vec<FieldDescriptor> = Vec::new();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        if fields.len() == limits::FIELD_PATH_DEPTH_MAX {
            return Err(format!("{path} is nested too deeply"));
        }
        let field = message
            .get_field_by_name(name)
            .or_else(|| message.get_field_by_json_name(name))
            .ok_or_else(|| format!("{} has no field {name}", message.full_name()))?;
        let inner = match field.kind() {
            Kind::Message(inner) if !field.is_list() && !field.is_map() => Some(inner),
            _ => None,
        };
        match (names.peek(), inner) {
            (Some(_), Some(inner)) => message = inner,
            (Some(_), None) => return Err(format!("{name} in {path} is not a message")),
            (None, Some(inner)) if !is_text_type(&inner) => {
                return Err(format!("{path} is a message; name one of its fields"));
            }
            (None, _) if field.is_map() => return Err(format!("{path} is a map")),
            (None, _) => {}
        }
        fields.push(field);
    }
    Ok(fields)
}

/// Messages whose JSON form is a string or another scalar.
fn is_text_type(message: &MessageDescriptor) -> bool {
    message.full_name().strip_prefix("google.protobuf.").is_some_and(|name| {
        matches!(name, "Timestamp" | "Duration" | "FieldMask")
            || name.ends_with("Value") && !matches!(name, "Value" | "ListValue")
    })
}

/// Sets the field at the end of a path from text in a URL; repeated fields get one more item.
pub fn set_from_text(
    message: &mut DynamicMessage,
    path: &[FieldDescriptor],
    text: &str,
) -> Result<(), String> {
    let Some((field, parents)) = path.split_last() else { return Ok(()) };
    let mut message = message;
    for parent in parents {
        message = match message.get_field_mut(parent) {
            Value::Message(inner) => inner,
            _ => return Err(format!("{} is not a message", parent.name())),
        };
    }
    let value = scalar(&field.kind(), text)?;
    match field.is_list() {
        true => match message.get_field_mut(field) {
            Value::List(items) => items.push(value),
            _ => return Err(format!("{} is not a list", field.name())),
        },
        false => message.set_field(field, value),
    }
    Ok(())
}

fn scalar(kind: &Kind, text: &str) -> Result<Value, String> {
    fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("must be {what}, not {text:?}"))
    }
    Ok(match kind {
        Kind::String => Value::String(text.into()),
        Kind::Bool => Value::Bool(parse(text, "true or false")?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(parse(text, "a 32-bit integer")?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(parse(text, "a 64-bit integer")?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(parse(text, "an unsigned 32-bit integer")?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(parse(text, "an unsigned 64-bit integer")?),
        Kind::Float => Value::F32(parse(text, "a number")?),
        Kind::Double => Value::F64(parse(text, "a number")?),
        Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => return from_json_text(kind, text),
    })
}

/// What has a JSON string as its form is read as that string.
fn from_json_text(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Enum(kind) => kind
            .get_value_by_name(text)
            .map(|value| value.number())
            .or_else(|| text.parse().ok())
            .map(Value::EnumNumber)
            .ok_or_else(|| format!("must be a value of {}, not {text:?}", kind.full_name())),
        Kind::Message(message) => {
            let json = match message.full_name() {
                "google.protobuf.BoolValue" => match text {
                    "true" => serde_json::Value::Bool(true),
                    "false" => serde_json::Value::Bool(false),
                    _ => return Err(format!("must be true or false, not {text:?}")),
                },
                _ => serde_json::Value::String(text.into()),
            };
            DynamicMessage::deserialize_with_options(message.clone(), json, &READ)
                .map(Value::Message)
                .map_err(|_| format!("must be a {}, not {text:?}", message.full_name()))
        }
        _ => {
            use base64::Engine as _;
            let url = text.replace('+', "-").replace('/', "_");
            base64::prelude::BASE64_URL_SAFE_NO_PAD
                .decode(url.trim_end_matches('='))
                .map(|bytes| Value::Bytes(bytes.into()))
                .map_err(|_| format!("must be base64, not {text:?}"))
        }
    }
}
