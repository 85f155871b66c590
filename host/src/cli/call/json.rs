//! JSON to a message of a type known at run time, and back. A fault names the field.

use bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde_json::{Map, Value};

use crate::cli::call::resolve;
use crate::cli::failed::Failed;

/// Reads a request. An empty text is an empty message.
pub fn encode(descriptor: &MessageDescriptor, text: &str) -> Result<Bytes, Failed> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Failed::usage(format!(
            "the request is not valid JSON: {error}; quote it for the shell, as in '{{\"userId\":\"ada\"}}'"
        ))
    })?;
    let message = read(descriptor, &value)
        .map_err(|reason| Failed::usage(fault(descriptor, &value, "", reason)))?;
    Ok(message.encode_to_vec().into())
}

/// A reply, with every field that has a value or a default.
pub fn decode(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<Value, Failed> {
    let wrong = |reason: String| {
        Failed::local(format!("the reply is not a valid {}: {reason}", descriptor.full_name()))
    };
    let message = DynamicMessage::decode(descriptor.clone(), bytes)
        .map_err(|error| wrong(error.to_string()))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| wrong(error.to_string()))
}

fn read(descriptor: &MessageDescriptor, value: &Value) -> Result<DynamicMessage, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor.clone(), value, &options)
        .map_err(|error| error.to_string())
}

/// Which field it was: each is tried alone, and the one that fails is looked into.
fn fault(descriptor: &MessageDescriptor, value: &Value, path: &str, reason: String) -> String {
    let whole = if path.is_empty() { "the request".to_string() } else { format!("field {path}") };
    // Well-known types have JSON forms of their own.
    if descriptor.package_name() == "google.protobuf" {
        return format!("{whole} is not a valid {}: {reason}", descriptor.full_name());
    }
    let Value::Object(fields) = value else {
        return format!(
            "{whole} must be a JSON object ({}), but is {}",
            descriptor.full_name(),
            shown(value)
        );
    };
    for (name, value) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(field) = field_named(descriptor, name) else {
            let names: Vec<String> =
                descriptor.fields().map(|field| field.json_name().to_string()).collect();
            let what = format!("{} has no field {path}", descriptor.full_name());
            return match names.is_empty() {
                true => format!("{what}; it has no fields at all"),
                false => resolve::unknown(&what, "it has", name, &names).message,
            };
        };
        let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        if let Err(reason) = read(descriptor, &alone) {
            return field_fault(&field, value, &path, reason);
        }
    }
    format!("{whole} is not a valid {}: {reason}", descriptor.full_name())
}

fn field_fault(field: &FieldDescriptor, value: &Value, path: &str, reason: String) -> String {
    match value {
        Value::Array(items) if field.is_list() => {
            for (at, item) in items.iter().enumerate() {
                let alone = Map::from_iter([(
                    field.json_name().to_string(),
                    Value::Array(vec![item.clone()]),
                )]);
                if let Err(reason) = read(field.parent_message(), &Value::Object(alone)) {
                    return value_fault(field.kind(), item, &format!("{path}[{at}]"), reason);
                }
            }
            format!("field {path} is not valid: {reason}")
        }
        Value::Object(_) if field.is_map() => format!("field {path} is not valid: {reason}"),
        _ if field.is_list() => {
            format!("field {path} must be a list, but is {}", shown(value))
        }
        _ if field.is_map() => {
            format!("field {path} must be a JSON object, but is {}", shown(value))
        }
        _ => value_fault(field.kind(), value, path, reason),
    }
}

fn value_fault(kind: Kind, value: &Value, path: &str, reason: String) -> String {
    let wanted = match kind {
        Kind::Message(message) => return fault(&message, value, path, reason),
        Kind::Enum(of) => {
            let names: Vec<String> = of.values().map(|value| value.name().to_string()).collect();
            format!("one of {}", names.join(", "))
        }
        Kind::String => "a string".into(),
        Kind::Bytes => "bytes in base64".into(),
        Kind::Bool => "true or false".into(),
        Kind::Float | Kind::Double => "a number".into(),
        Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => {
            format!("a whole number from 0 on ({kind:?})").to_lowercase()
        }
        Kind::Int32
        | Kind::Int64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Sfixed32
        | Kind::Sfixed64 => format!("a whole number ({kind:?})").to_lowercase(),
    };
    format!("field {path} must be {wanted}, but is {}", shown(value))
}

fn field_named(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name))
}

/// A value in a sentence.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => {
            let start: String = text.chars().take(40).collect();
            let rest = if start.len() < text.len() { ".." } else { "" };
            format!("the string {start:?}{rest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failed::Exit;

    /// `google.protobuf.FieldDescriptorProto` and friends: messages, enums, lists and numbers.
    fn message(name: &str) -> MessageDescriptor {
        prost_reflect::DescriptorPool::global()
            .get_message_by_name(name)
            .expect("a well-known type")
    }

    /// A message in a package that is not google's, so that it has no JSON form of its own.
    fn cart() -> MessageDescriptor {
        use prost_types::field_descriptor_proto::{Label, Type};
        use prost_types::*;
        let field = |name: &str, json: &str, number, label: Label, r#type: Type, of: &str| {
            FieldDescriptorProto {
                name: Some(name.into()),
                json_name: Some(json.into()),
                number: Some(number),
                label: Some(label.into()),
                r#type: Some(r#type.into()),
                type_name: (!of.is_empty()).then(|| of.into()),
                ..Default::default()
            }
        };
        let item = DescriptorProto {
            name: Some("Item".into()),
            field: vec![
                field("product_id", "productId", 1, Label::Optional, Type::String, ""),
                field("quantity", "quantity", 2, Label::Optional, Type::Int32, ""),
                field("colour", "colour", 3, Label::Optional, Type::Enum, ".shop.Colour"),
            ],
            ..Default::default()
        };
        let cart = DescriptorProto {
            name: Some("Cart".into()),
            field: vec![
                field("user_id", "userId", 1, Label::Optional, Type::String, ""),
                field("items", "items", 2, Label::Repeated, Type::Message, ".shop.Item"),
                field("total", "total", 3, Label::Optional, Type::Int64, ""),
            ],
            ..Default::default()
        };
        let colour = EnumDescriptorProto {
            name: Some("Colour".into()),
            value: ["NONE", "RED"]
                .iter()
                .enumerate()
                .map(|(number, name)| EnumValueDescriptorProto {
                    name: Some((*name).into()),
                    number: Some(number as i32),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("shop.proto".into()),
            package: Some("shop".into()),
            syntax: Some("proto3".into()),
            message_type: vec![item, cart],
            enum_type: vec![colour],
            ..Default::default()
        };
        let pool = prost_reflect::DescriptorPool::from_file_descriptor_set(FileDescriptorSet {
            file: vec![file],
        })
        .expect("a valid file");
        pool.get_message_by_name("shop.Cart").expect("the message")
    }

    fn refused(text: &str) -> String {
        let failed = encode(&cart(), text).unwrap_err();
        assert_eq!(failed.exit, Exit::Usage);
        failed.message
    }

    #[test]
    fn requests_round_trip_in_both_spellings_of_a_field() {
        for text in [
            r#"{"userId":"ada","items":[{"productId":"kettle","quantity":2}],"total":"7"}"#,
            r#"{"user_id":"ada","items":[{"product_id":"kettle","quantity":2}],"total":7}"#,
        ] {
            let bytes = encode(&cart(), text).unwrap();
            let json = decode(&cart(), &bytes).unwrap();
            assert_eq!(
                json.to_string(),
                r#"{"items":[{"colour":"NONE","productId":"kettle","quantity":2}],"total":"7","userId":"ada"}"#
            );
        }
    }

    #[test]
    fn an_empty_request_is_an_empty_message_and_defaults_are_shown() {
        assert!(encode(&cart(), "").unwrap().is_empty());
        let json = decode(&cart(), &[]).unwrap();
        assert_eq!(json.to_string(), r#"{"items":[],"total":"0","userId":""}"#);
    }

    #[test]
    fn malformed_json_says_where_and_how_to_quote() {
        let message = refused("{userId:ada}");
        assert!(message.contains("line 1 column 2") && message.contains("quote it"), "{message}");
    }

    #[test]
    fn unknown_fields_are_named_with_the_nearest_that_exists() {
        assert_eq!(
            refused(r#"{"userID":"ada"}"#),
            "shop.Cart has no field userID; did you mean userId? it has userId, items, total"
        );
        assert!(
            refused(r#"{"items":[{"productId":"kettle"},{"produktId":"kettle"}]}"#)
                .starts_with("shop.Item has no field items[1].produktId; did you mean productId?")
        );
    }

    #[test]
    fn wrong_types_name_the_field_and_what_it_must_be() {
        assert_eq!(refused(r#"{"userId":7}"#), "field userId must be a string, but is 7");
        assert_eq!(
            refused(r#"{"items":[{"quantity":1},{"quantity":"two"}]}"#),
            "field items[1].quantity must be a whole number (int32), but is the string \"two\""
        );
        assert_eq!(
            refused(r#"{"items":[{"quantity":99999999999}]}"#),
            "field items[0].quantity must be a whole number (int32), but is 99999999999"
        );
        assert_eq!(refused(r#"{"items":{}}"#), "field items must be a list, but is an object");
        assert_eq!(
            refused(r#"{"items":[{"colour":"PUCE"}]}"#),
            "field items[0].colour must be one of NONE, RED, but is the string \"PUCE\""
        );
        assert_eq!(refused("[]"), "the request must be a JSON object (shop.Cart), but is a list");
    }

    #[test]
    fn well_known_types_are_read_in_their_own_form() {
        let duration = message("google.protobuf.Duration");
        assert_eq!(decode(&duration, &encode(&duration, "\"3s\"").unwrap()).unwrap(), "3s");
        let failed = encode(&duration, "{}").unwrap_err();
        assert!(failed.message.contains("google.protobuf.Duration"), "{failed}");
    }

    #[test]
    fn a_garbled_reply_is_an_error_not_a_panic() {
        let failed = decode(&cart(), &[0xff, 0xff]).unwrap_err();
        assert_eq!(failed.exit, Exit::Failed);
        assert!(failed.message.starts_with("the reply is not a valid shop.Cart"), "{failed}");
    }
}
