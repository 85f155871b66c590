use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::*;
use crate::registry::testing::compile;

const KEYS: &str = r#"
    syntax = "proto3";
    package t;
    import "stead/options.proto";
    import "cloudstate/entity_key.proto";

    enum Colour { RED = 0; BLUE = 1; }
    message One { string id = 1 [(stead.entity_key) = true]; One rest = 2; }
    message Legacy { string id = 7 [(cloudstate.legacy_entity_key) = true]; }
    message Pair {
        string last = 2 [(stead.entity_key) = true];
        string first = 1 [(stead.entity_key) = true];
    }
    message Numbers {
        int32 a = 1 [(stead.entity_key) = true];
        sint64 b = 2 [(stead.entity_key) = true];
        fixed32 c = 3 [(stead.entity_key) = true];
        sfixed64 d = 4 [(stead.entity_key) = true];
        bool e = 5 [(stead.entity_key) = true];
        Colour f = 6 [(stead.entity_key) = true];
        uint64 g = 7 [(stead.entity_key) = true];
        sint32 h = 8 [(stead.entity_key) = true];
    }
    message Others {
        int64 a = 1 [(stead.entity_key) = true];
        uint32 b = 2 [(stead.entity_key) = true];
        fixed64 c = 3 [(stead.entity_key) = true];
        sfixed32 d = 4 [(stead.entity_key) = true];
        string e = 5 [(stead.entity_key) = true];
        string f = 9;
    }
"#;

fn message(name: &str) -> MessageDescriptor {
    thread_local! {
        static POOL: DescriptorPool = crate::registry::descriptor::read(&compile(KEYS)).unwrap();
    }
    POOL.with(|pool| pool.get_message_by_name(name).unwrap())
}

fn reader(name: &str) -> KeyReader {
    KeyReader::new(&message(name)).unwrap()
}

fn text(number: u32, value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut bytes);
    encode_varint(value.len() as u64, &mut bytes);
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

fn read(name: &str, payload: &[u8]) -> Result<String, KeyError> {
    reader(name).read(payload).map(|id| id.as_str().to_owned())
}

#[test]
fn a_single_key_is_taken_as_it_is() {
    assert_eq!(read("t.One", &text(1, "a/b~c")).unwrap(), "a/b~c");
    assert_eq!(read("t.Legacy", &text(7, "ada")).unwrap(), "ada");
}

#[test]
fn several_keys_are_joined_in_the_order_of_their_numbers() {
    let payload = [text(2, "x~y"), text(1, "a/b")].concat();
    assert_eq!(read("t.Pair", &payload).unwrap(), "a~1b/x~0y");
}

#[test]
fn the_last_value_wins_over_earlier_ones() {
    let payload = [text(1, "ada"), text(9, "ignored"), text(1, "bob")].concat();
    assert_eq!(read("t.One", &payload).unwrap(), "bob");
}

#[test]
fn numbers_that_are_left_out_are_zero() {
    assert_eq!(read("t.Numbers", &[]).unwrap(), "0/0/0/0/0/0/0/0");
}

#[test]
fn an_empty_string_is_refused_by_name_wherever_it_stands() {
    let empty = |field: &str| KeyError::Empty { field: field.to_owned() };
    assert_eq!(read("t.One", &[]), Err(empty("id")));
    assert_eq!(read("t.One", &[text(1, "ada"), text(1, "")].concat()), Err(empty("id")));
    assert_eq!(read("t.Pair", &text(1, "ada")), Err(empty("last")));
}

#[test]
fn a_key_may_be_as_long_as_the_limit_but_no_longer() {
    let max = ENTITY_ID_BYTES_MAX;
    assert_eq!(read("t.One", &text(1, &"k".repeat(max))).unwrap().len(), max);
    let mib = "k".repeat(1 << 20);
    assert_eq!(read("t.One", &text(1, &mib)), Err(KeyError::TooLong { bytes: 1 << 20, max }));
    let escaped = [text(1, &"/".repeat(max / 2)), text(2, "x")].concat();
    assert_eq!(read("t.Pair", &escaped), Err(KeyError::TooLong { bytes: max + 2, max }));
}

#[test]
fn what_is_not_the_message_is_malformed() {
    for (payload, reason) in [
        (vec![0x0a, 0x05, b'a'], "buffer underflow"),
        (vec![0x0a, 0x01, 0xff], "field id is not UTF-8"),
        (vec![0x08, 0x01], "field id has a value of another type"),
        (vec![0x0c], "unexpected end group tag"),
        (vec![0xff; 11], "invalid varint"),
        (vec![0x00, 0x00], "invalid tag value: 0"),
    ] {
        let expected =
            KeyError::Malformed { message: "t.One".to_owned(), reason: reason.to_owned() };
        assert_eq!(read("t.One", &payload), Err(expected));
    }
}

/// What protobuf says that the key is, by decoding all of the message.
fn by_decoding(descriptor: &MessageDescriptor, payload: &[u8]) -> Option<Vec<String>> {
    let message = DynamicMessage::decode(descriptor.clone(), payload).ok()?;
    let part = |field: FieldDescriptor| match message.get_field(&field).as_ref() {
        Value::String(text) => text.clone(),
        Value::Bool(value) => u8::from(*value).to_string(),
        Value::I32(value) | Value::EnumNumber(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        other => panic!("{other:?} is not a key"),
    };
    Some(descriptor.fields().filter(is_entity_key).map(part).collect())
}

/// Well-formed fields, the numbers and wire types of which may or may not suit a message.
fn some_fields() -> impl Strategy<Value = Vec<u8>> {
    let field =
        (1..10_u32, 0..4_u8, any::<u64>(), "[a/~]{0,3}").prop_map(|(number, form, value, word)| {
            let mut bytes = Vec::new();
            match form {
                0 => {
                    encode_key(number, WireType::Varint, &mut bytes);
                    encode_varint(value, &mut bytes);
                }
                1 => {
                    encode_key(number, WireType::ThirtyTwoBit, &mut bytes);
                    bytes.extend_from_slice(&(value as u32).to_le_bytes());
                }
                2 => {
                    encode_key(number, WireType::SixtyFourBit, &mut bytes);
                    bytes.extend_from_slice(&value.to_le_bytes());
                }
                _ => bytes = text(number, &word),
            }
            bytes
        });
    prop::collection::vec(field, 0..6).prop_map(|fields| fields.concat())
}

/// All fields of `Others`.
fn fitting_fields() -> impl Strategy<Value = Vec<u8>> {
    (any::<[u64; 5]>(), "[a/~]{1,4}").prop_map(|(values, word)| {
        let mut bytes = Vec::new();
        for (number, value) in [(1, values[0]), (2, values[1])] {
            encode_key(number, WireType::Varint, &mut bytes);
            encode_varint(value, &mut bytes);
        }
        encode_key(3, WireType::SixtyFourBit, &mut bytes);
        bytes.extend_from_slice(&values[2].to_le_bytes());
        encode_key(4, WireType::ThirtyTwoBit, &mut bytes);
        bytes.extend_from_slice(&(values[3] as u32).to_le_bytes());
        bytes.extend(text(5, &word));
        bytes
    })
}

fn agrees(name: &str, payload: &[u8]) -> Result<(), TestCaseError> {
    let expected = by_decoding(&message(name), payload);
    match (read(name, payload), expected) {
        (Err(KeyError::Malformed { .. }), None) => {}
        // Decoding fails on what lies outside of the key, too.
        (_, None) => {}
        (Err(KeyError::Empty { .. }), Some(parts)) => {
            prop_assert!(parts.iter().any(String::is_empty));
        }
        (Ok(id), Some(parts)) => {
            let escaped: Vec<_> =
                parts.iter().map(|part| part.replace('~', "~0").replace('/', "~1")).collect();
            prop_assert_eq!(id, escaped.join("/"));
        }
        (Err(error), Some(parts)) => prop_assert!(false, "{} for {:?}", error, parts),
    }
    Ok(())
}

proptest! {
    #[test]
    fn reading_agrees_with_decoding(payload in some_fields()) {
        agrees("t.Numbers", &payload)?;
        agrees("t.Others", &payload)?;
        agrees("t.Pair", &payload)?;
    }

    #[test]
    fn reading_agrees_with_decoding_where_all_fits(payload in fitting_fields()) {
        prop_assert!(by_decoding(&message("t.Others"), &payload).is_some());
        agrees("t.Others", &payload)?;
    }

    #[test]
    fn reading_garbage_never_panics(payload in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = read("t.Numbers", &payload);
        let _ = read("t.Pair", &payload);
    }

    #[test]
    fn different_keys_give_different_ids(
        one in ("[a/~01]{1,6}", "[a/~01]{1,6}"),
        other in ("[a/~01]{1,6}", "[a/~01]{1,6}"),
    ) {
        let id = |pair: &(String, String)| {
            read("t.Pair", &[text(1, &pair.0), text(2, &pair.1)].concat()).unwrap()
        };
        prop_assert_eq!(one == other, id(&one) == id(&other));
    }
}
