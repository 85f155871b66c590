use prost::Message as _;

use super::*;
use crate::registry::{descriptor, testing};

/// Without imports of the option, which is set by its bytes.
const ITEMS: &str = r#"syntax = "proto3"; package t; import "stead/options.proto";
    message Item { string id = 1; int64 count = 2 [(stead.indexed) = true]; string name = 3 [(stead.indexed) = true]; }
    message GetItem { string id = 1 [(stead.entity_key) = true]; }
    message ListItems { int32 page_size = 1; string page_token = 2; string order_by = 3; string name = 4; }
    message Items { repeated Item items = 1; string next_page_token = 2; }
    service S { rpc Get(GetItem) returns (Item); rpc List(ListItems) returns (Items); }"#;

fn view(source: &'static str) -> Result<View, Vec<String>> {
    let pool = descriptor::read(&testing::compile(source)).expect("valid");
    let service = pool.services().next().expect("a service");
    View::of(&service, "items".into(), 1)
}

fn list(view: &View) -> &List {
    match &view.methods["List"] {
        ViewMethod::List(list) => list,
        ViewMethod::Get => panic!("a list is expected"),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListItems {
    #[prost(int32, tag = "1")]
    page_size: i32,
    #[prost(string, tag = "2")]
    page_token: String,
    #[prost(string, tag = "3")]
    order_by: String,
    #[prost(string, tag = "4")]
    name: String,
}

fn asked(request: &ListItems) -> Result<Asked, String> {
    let view = view(ITEMS).expect("valid");
    list(&view).asked(&view, &request.encode_to_vec())
}

#[test]
fn a_service_with_get_and_list_is_a_view() {
    let view = view(ITEMS).expect("valid");
    assert_eq!(view.row.full_name(), "t.Item");
    assert!(matches!(view.methods["Get"], ViewMethod::Get));
    assert_eq!((list(&view).rows, list(&view).next_page_token), (1, Some(2)));
    let names: Vec<&str> = view.indexes.iter().map(|index| &*index.name).collect();
    assert_eq!(names, ["count", "name"]);
}

#[test]
fn a_request_says_what_to_list() {
    assert_eq!(asked(&ListItems::default()), Ok(Asked::default()));
    let request = ListItems {
        page_size: 5,
        page_token: "x".into(),
        order_by: "count desc".into(),
        name: "tea".into(),
    };
    let expected = Asked {
        page_size: 5,
        page_token: "x".into(),
        order: Some((0, true)),
        filters: vec![(1, b"tea".to_vec())],
    };
    assert_eq!(asked(&request), Ok(expected));
}

#[test]
fn an_order_by_what_is_not_indexed_is_refused_with_what_is() {
    for order_by in ["id", "count down", "count desc desc", "nothing"] {
        let request = ListItems { order_by: order_by.into(), ..ListItems::default() };
        let fault = asked(&request).expect_err("refused");
        assert!(fault.contains("one of count, name"), "{fault}");
    }
}

#[test]
fn what_cannot_be_a_view_is_refused_with_every_fault() {
    let faults = view(
        r#"syntax = "proto3"; import "stead/options.proto";
        message Row { repeated string tags = 1 [(stead.indexed) = true]; }
        message Get { string id = 1 [(stead.entity_key) = true]; }
        message Find { string color = 1; }
        message Found { repeated Row rows = 1; }
        service S {
            rpc Get(Get) returns (Row);
            rpc Watch(Get) returns (stream Row);
            rpc Find(Find) returns (Found);
            rpc Other(Get) returns (Get);
        }"#,
    )
    .expect_err("refused");
    for part in ["Row.tags", "S.Watch: it streams", "the field color", "one type of row"] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:?}");
    }
}

#[test]
fn ordered_bytes_have_the_order_of_their_values() {
    let ascending = |values: &[Value]| {
        let bytes: Vec<_> = values.iter().map(|value| ordered(value).expect("ordered")).collect();
        assert!(bytes.is_sorted() && bytes.windows(2).all(|pair| pair[0] != pair[1]), "{values:?}");
    };
    ascending(&[Value::I64(i64::MIN), Value::I64(-1), Value::I64(0), Value::I64(i64::MAX)]);
    ascending(&[Value::I32(i32::MIN), Value::I32(-7), Value::I32(7)]);
    ascending(&[Value::U64(0), Value::U64(255), Value::U64(256), Value::U64(u64::MAX)]);
    let floats = [f64::NEG_INFINITY, -1.5, -0.5, 0.0, 0.25, 1e300, f64::INFINITY];
    ascending(&floats.map(Value::F64));
    ascending(&["", "a", "aa", "b", "ä"].map(|text| Value::String(text.into())));
    ascending(&[Value::Bool(false), Value::Bool(true)]);
}

#[test]
fn a_row_gives_its_index_values_and_what_is_no_row_gives_none() {
    let view = view(ITEMS).expect("valid");
    // count = 3
    let values = view.index_values(&[0x10, 3]).expect("a row");
    assert_eq!(values[0], ("count".into(), (3u64 ^ 1 << 63).to_be_bytes().to_vec()));
    assert_eq!(values[1], ("name".into(), Vec::new()));
    assert!(view.index_values(&[0x10]).expect_err("refused").contains("t.Item"));
}
