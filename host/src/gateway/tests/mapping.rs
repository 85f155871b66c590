use bytes::Bytes;
use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use serde_json::{Value, json};

use crate::gateway::testing::message;
use crate::gateway::transcode;

fn round_trip(value: &Value) -> Value {
    let descriptor = message("edge.All");
    let read = transcode::from_json(&descriptor, value.to_string().as_bytes()).unwrap();
    let bytes = Bytes::from(read.encode_to_vec());
    serde_json::from_slice(&transcode::to_json(&descriptor, bytes).unwrap()).unwrap()
}

#[test]
fn defaults_are_printed_and_what_has_presence_is_not() {
    assert_eq!(
        round_trip(&json!({})),
        json!({
            "id": "", "flag": false, "small": 0, "large": "0", "usmall": 0, "ularge": "0",
            "single": 0, "ratio": 0, "data": "", "color": "RED", "tags": [], "numbers": [],
            "counts": {}, "many": [], "twoWords": "",
        })
    );
}

#[test]
fn every_kind_of_field_round_trips() {
    let value = json!({
        "id": "ada", "flag": true, "small": -1, "large": "-9223372036854775808", "usmall": 1,
        "ularge": "18446744073709551615", "single": 0.5, "ratio": "Infinity", "data": "+/8=",
        "color": "GREEN", "tags": ["a"], "numbers": [1, 2], "counts": { "a": 1 },
        "nested": { "name": "n", "inner": { "name": "" } }, "many": [{ "name": "m" }],
        "at": "2026-11-21T19:00:00.250Z", "wait": "1.500s", "wrapped": "5", "agreed": false,
        "perhaps": "", "text": "", "twoWords": "x",
    });
    assert_eq!(round_trip(&value), value);
}

#[test]
fn names_of_the_proto_and_numbers_for_names_are_understood() {
    let value = round_trip(&json!({ "two_words": "x", "color": 1, "large": 5, "data": "-_8" }));
    assert_eq!(value["twoWords"], "x");
    assert_eq!(value["color"], "GREEN");
    assert_eq!(value["large"], "5");
    assert_eq!(value["data"], "+/8=");
}

#[test]
fn null_is_absence() {
    assert_eq!(
        round_trip(&json!({ "id": null, "nested": null, "tags": null })),
        round_trip(&json!({}))
    );
}

proptest! {
    #[test]
    fn values_round_trip(
        id in ".*", small: i32, large: i64, ularge: u64,
        ratio in prop::num::f64::NORMAL | prop::num::f64::ZERO, flag: bool,
        tags in prop::collection::vec(".*", 0..4), data in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        use base64::Engine as _;
        let data = base64::prelude::BASE64_STANDARD.encode(data);
        let value = json!({
            "id": id, "small": small, "large": large.to_string(), "ularge": ularge.to_string(),
            "ratio": ratio, "flag": flag, "tags": tags, "data": data,
        });
        let back = round_trip(&value);
        for (name, value) in value.as_object().unwrap() {
            // Whole doubles are written like integers.
            let same = back[name] == *value
                || value.is_f64() && back[name].as_f64() == value.as_f64();
            prop_assert!(same, "{name}: {} is not {value}", back[name]);
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in ".{0,60}") {
        let _ = transcode::from_json(&message("edge.All"), text.as_bytes());
    }

    #[test]
    fn no_bytes_make_writing_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = transcode::to_json(&message("edge.All"), bytes.into());
    }
}
