//! Why a JSON text is not a message, in a sentence that names the field.
//!
//! Only asked after the reader has refused the text, so it may take its time: it reads the text
//! again without types and walks it beside the descriptor.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use crate::words::limits;

pub fn explain(message: &MessageDescriptor, text: &str, error: &serde_json::Error) -> String {
    let value = match serde_json::from_str::<Value>(text) {
        Ok(value) => value,
        Err(error) => return format!("the request is not valid JSON: {error}"),
    };
    in_message(message, &value, "")
        .unwrap_or_else(|| format!("the request is not a valid {}: {error}", message.full_name()))
}

fn in_message(message: &MessageDescriptor, value: &Value, path: &str) -> Option<String> {
    if message.full_name().starts_with("google.protobuf.") {
        return in_well_known(message, value, path);
    }
    let Value::Object(members) = value else {
        return Some(format!("{} must be an object, not {}", place(path), kind_of(value)));
    };
    for (name, value) in members {
        let field =
            message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
        let Some(field) = field else {
            let mut names: Vec<_> =
                message.fields().map(|field| field.json_name().to_owned()).collect();
            if names.len() > limits::NAMES_TOLD_MAX {
                names.truncate(limits::NAMES_TOLD_MAX);
                names.push("..".into());
            }
            return Some(format!(
                "{} has no field {name:?}; it has: {}",
                message.full_name(),
                names.join(", ")
            ));
        };
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        if let Some(fault) = in_field(&field, value, &path) {
            return Some(fault);
        }
    }
    None
}

fn in_field(field: &FieldDescriptor, value: &Value, path: &str) -> Option<String> {
    if value.is_null() {
        return None;
    }
    if field.is_list() {
        let Value::Array(items) = value else {
            return Some(format!("{} must be a list, not {}", place(path), kind_of(value)));
        };
        return items
            .iter()
            .enumerate()
            .find_map(|(at, item)| in_kind(&field.kind(), item, &format!("{path}[{at}]")));
    }
    if field.is_map() {
        let (Value::Object(members), Kind::Message(entry)) = (value, field.kind()) else {
            return Some(format!("{} must be an object, not {}", place(path), kind_of(value)));
        };
        let kind = entry.map_entry_value_field().kind();
        return members
            .iter()
            .find_map(|(key, value)| in_kind(&kind, value, &format!("{path}[{key:?}]")));
    }
    in_kind(&field.kind(), value, path)
}

fn in_kind(kind: &Kind, value: &Value, path: &str) -> Option<String> {
    let integer = |least: i128, most: i128| match value {
        Value::Number(number) => match number.as_i128() {
            Some(number) => (least..=most).contains(&number),
            None => number.as_f64().is_some_and(|number| {
                number.fract() == 0.0 && number >= least as f64 && number <= most as f64
            }),
        },
        Value::String(text) => {
            text.parse::<i128>().is_ok_and(|number| (least..=most).contains(&number))
        }
        _ => false,
    };
    let (right, expected) = match kind {
        Kind::Message(message) => return in_message(message, value, path),
        Kind::Enum(kind) => return in_enum(kind, value, path),
        Kind::Bool => (value.is_boolean(), "true or false"),
        Kind::String => (value.is_string(), "a string"),
        Kind::Bytes => (value.is_string() && is_base64(value), "a base64 string"),
        Kind::Float | Kind::Double => (
            value.is_number() || value.as_str().is_some_and(|text| text.parse::<f64>().is_ok()),
            "a number",
        ),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            (integer(i32::MIN.into(), i32::MAX.into()), "a 32-bit integer")
        }
        Kind::Uint32 | Kind::Fixed32 => (integer(0, u32::MAX.into()), "an unsigned 32-bit integer"),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            (integer(i64::MIN.into(), i64::MAX.into()), "a 64-bit integer or a string with one")
        }
        Kind::Uint64 | Kind::Fixed64 => {
            (integer(0, u64::MAX.into()), "an unsigned 64-bit integer or a string with one")
        }
    };
    (!right).then(|| format!("{} must be {expected}, not {}", place(path), kind_of(value)))
}

fn in_enum(kind: &EnumDescriptor, value: &Value, path: &str) -> Option<String> {
    if let Value::String(text) = value {
        if kind.get_value_by_name(text).is_some() {
            return None;
        }
        let names: Vec<_> = kind
            .values()
            .take(limits::NAMES_TOLD_MAX)
            .map(|value| value.name().to_owned())
            .collect();
        let known = names.join(", ");
        return Some(format!("{} must be one of {known}, not {}", place(path), kind_of(value)));
    }
    (!value.is_i64()).then(|| {
        format!("{} must be a name of {}, not {}", place(path), kind.full_name(), kind_of(value))
    })
}

fn in_well_known(message: &MessageDescriptor, value: &Value, path: &str) -> Option<String> {
    prost_reflect::DynamicMessage::deserialize(message.clone(), value)
        .err()
        .map(|error| format!("{} is not a valid {}: {error}", place(path), message.full_name()))
}

fn is_base64(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
        })
    })
}

fn place(path: &str) -> String {
    match path {
        "" => "the request".into(),
        path => format!("field {path}"),
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.chars().count() > limits::VALUE_TOLD_CHARS_MAX => {
            format!(
                "the string {:?}..",
                text.chars().take(limits::VALUE_TOLD_CHARS_MAX).collect::<String>()
            )
        }
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}
