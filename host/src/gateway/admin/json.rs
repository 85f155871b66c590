//! Stored messages as `google.protobuf.Value`, for people.

use bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use crate::gateway::transcode;
use crate::words::{Message, Status};

const WRITE: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

/// A message in protobuf's JSON mapping, or why it cannot be written so. `pool` holds the types of
/// the module that is live for the entity, if one is.
pub fn decode(pool: Option<&DescriptorPool>, message: &Message) -> Result<Value, String> {
    let Some(pool) = pool else {
        return Err("no live module knows this journal; deploy one to see its data decoded".into());
    };
    let name = &*message.type_name;
    let Some(descriptor) = pool.get_message_by_name(name) else {
        return Err(format!("the live module does not know the type {name}"));
    };
    let message = DynamicMessage::decode(descriptor, Bytes::clone(&message.data))
        .map_err(|error| format!("the bytes are not a valid {name}: {error}"))?;
    let json = message
        .serialize_with_options(serde_json::value::Serializer, &WRITE)
        .map_err(|error| format!("this {name} has no JSON form: {error}"))?;
    Ok(from_json(json))
}

pub fn from_json(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(value) => Kind::StringValue(value),
        serde_json::Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(from_json).collect() })
        }
        serde_json::Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, from_json(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// The way back, for clients of the admin API. Whole numbers are written without a point.
pub fn to_json(value: &Value) -> serde_json::Value {
    /// Up to here every whole number has its own f64.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() <= WHOLE_MAX => {
            (*value as i64).into()
        }
        Some(Kind::NumberValue(value)) => (*value).into(),
        Some(Kind::StringValue(value)) => value.as_str().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_json).collect(),
        Some(Kind::StructValue(object)) => serde_json::Value::Object(
            object.fields.iter().map(|(name, value)| (name.clone(), to_json(value))).collect(),
        ),
    }
}

/// A message of the admin API as protobuf's JSON.
pub(super) fn message(
    pool: &DescriptorPool,
    name: &str,
    message: &impl prost::Message,
) -> Result<Vec<u8>, Status> {
    let descriptor = pool
        .get_message_by_name(&format!("stead.admin.v1.{name}"))
        .ok_or_else(|| Status::internal("the admin API does not know its own answer"))?;
    transcode::to_json(&descriptor, message.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use stead_proto::admin::v1::Module;

    use super::*;
    use crate::gateway::transcode;

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(stead_proto::DESCRIPTORS).unwrap()
    }

    #[test]
    fn a_known_type_is_decoded_with_its_descriptor() {
        let module = Module { name: "cart.wasm".into(), bytes: 7, ..Module::default() };
        let message = Message::new("stead.admin.v1.Module", module.encode_to_vec());
        let json = to_json(&decode(Some(&pool()), &message).unwrap());
        assert_eq!(json["name"], "cart.wasm");
        assert_eq!(json["bytes"], "7");
    }

    #[test]
    fn says_why_something_cannot_be_decoded() {
        let unknown = Message::new("shop.ItemAdded", vec![]);
        assert!(decode(Some(&pool()), &unknown).unwrap_err().contains("shop.ItemAdded"));
        assert!(decode(None, &unknown).unwrap_err().contains("no live module"));
        let garbage = Message::new("stead.admin.v1.Module", vec![0xff; 3]);
        assert!(decode(Some(&pool()), &garbage).unwrap_err().contains("not a valid"));
    }

    #[test]
    fn whole_numbers_are_served_without_a_point() {
        let json = serde_json::json!({"quantity": 2, "price": 2.5});
        let event =
            stead_proto::admin::v1::Event { json: Some(from_json(json)), ..Default::default() };
        let descriptor = pool().get_message_by_name("stead.admin.v1.Event").unwrap();
        let text = transcode::to_json(&descriptor, event.encode_to_vec().into()).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(r#""json":{"price":2.5,"quantity":2}"#), "{text}");
    }

    #[test]
    fn json_survives_the_way_there_and_back() {
        let json = serde_json::json!({
            "none": null, "yes": true, "count": 3, "price": 9.5, "name": "kettle",
            "items": [{"id": "a"}, {"id": "b"}], "empty": {},
        });
        assert_eq!(to_json(&from_json(json.clone())), json);
    }
}
