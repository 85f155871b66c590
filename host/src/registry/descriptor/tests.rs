use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
    MethodDescriptorProto, ServiceDescriptorProto,
};

use super::*;
use crate::registry::testing::compile;
use crate::words::limits::DESCRIPTOR_FILES_MAX;

fn file(name: &str) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

fn importing(name: &str, imports: &[&str], public: bool) -> FileDescriptorProto {
    FileDescriptorProto {
        dependency: imports.iter().map(|&import| import.to_owned()).collect(),
        public_dependency: if public { (0..imports.len() as i32).collect() } else { vec![] },
        ..file(name)
    }
}

fn field(name: &str, number: i32, label: Label, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label as i32),
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

fn refusal(files: Vec<FileDescriptorProto>) -> String {
    read(&FileDescriptorSet { file: files }.encode_to_vec()).expect_err("the set is refused")
}

#[test]
fn the_key_option_is_found_even_if_the_set_leaves_out_its_definition() {
    let set = compile(
        r#"
        syntax = "proto3";
        import "stead/options.proto";
        message M { string id = 1 [(stead.entity_key) = true]; string other = 2; }
        "#,
    );
    let known = read(&set).unwrap();
    assert!(known.get_extension_by_name("stead.entity_key").is_some());

    // The same file without its import: the option is an unknown field now.
    let mut rest = Vec::new();
    for field in wire::fields(&set).flatten() {
        let wire::Value::Bytes(bytes) = field.value else { panic!("a file") };
        if FileDescriptorProto::decode(bytes).unwrap().name() != "test.proto" {
            continue;
        }
        let kept: Vec<u8> = wire::fields(bytes)
            .flatten()
            .filter(|field| field.number != 3)
            .flat_map(|field| field.raw.to_vec())
            .collect();
        prost::encoding::bytes::encode(1, &kept, &mut rest);
    }
    let unknown = read(&rest).unwrap();
    assert!(unknown.get_extension_by_name("stead.entity_key").is_none());

    for pool in [known, unknown] {
        let message = pool.get_message_by_name("M").unwrap();
        assert!(is_entity_key(&message.get_field(1).unwrap()));
        assert!(!is_entity_key(&message.get_field(2).unwrap()));
    }
}

#[test]
fn comments_are_left_out() {
    let set = compile("syntax = \"proto3\";\n// A message.\nmessage M {}\n");
    let given = FileDescriptorSet::decode(set.as_slice()).unwrap();
    assert!(given.file.iter().any(|file| file.source_code_info.is_some()));
    let pool = read(&set).unwrap();
    assert!(pool.file_descriptor_protos().all(|file| file.source_code_info.is_none()));
}

#[test]
fn garbage_and_oversize_are_refused() {
    assert_eq!(
        read(b"\x0a\x7f").unwrap_err(),
        "the file descriptor set is invalid: failed to decode Protobuf message: buffer underflow"
    );
    assert_eq!(
        read(&vec![0; DESCRIPTOR_SET_BYTES_MAX + 1]).unwrap_err(),
        "the file descriptor set has 4194305 bytes; the limit is 4194304"
    );
    let files = (0..=DESCRIPTOR_FILES_MAX).map(|n| file(&n.to_string())).collect();
    assert_eq!(refusal(files), "the file descriptor set is invalid: it has more than 2000 files");
}

#[test]
fn imports_that_are_missing_or_circular_are_refused() {
    assert_eq!(
        refusal(vec![importing("a", &["b"], false)]),
        "the file descriptor set is invalid: a imports b, which is missing; include the imports \
         (--include_imports)"
    );
    assert_eq!(
        refusal(vec![file("c"), importing("a", &["b", "c"], true), importing("b", &["a"], true)]),
        "the file descriptor set is invalid: a imports itself, directly or not"
    );
    assert_eq!(
        refusal(vec![importing("a", &["a"], true)]),
        "the file descriptor set is invalid: a imports itself, directly or not"
    );
}

#[test]
fn imports_with_endless_ways_through_them_are_refused() {
    let mut files = vec![file("0"), importing("1", &["0"], true)];
    for n in 2..64 {
        files.push(importing(&n.to_string(), &[&(n - 1).to_string(), &(n - 2).to_string()], true));
    }
    assert_eq!(
        refusal(files),
        "the file descriptor set is invalid: its public imports are too entangled"
    );
}

#[test]
fn a_syntax_that_the_library_does_not_know_is_refused() {
    let editions = FileDescriptorProto {
        syntax: Some("editions".to_owned()),
        message_type: vec![DescriptorProto { name: Some("M".to_owned()), ..Default::default() }],
        ..file("a")
    };
    assert_eq!(
        refusal(vec![editions]),
        "the file descriptor set is invalid: a has the syntax editions; this host reads proto2 and \
         proto3"
    );
}

#[test]
fn a_map_entry_that_would_panic_when_decoded_is_refused() {
    let entry = DescriptorProto {
        name: Some("E".to_owned()),
        options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
        field: vec![field("key", 1, Label::Optional, Type::Bytes)],
        ..Default::default()
    };
    let file = FileDescriptorProto { message_type: vec![entry], ..file("a") };
    assert_eq!(
        refusal(vec![file]),
        "the file descriptor set is invalid: E is not a valid map entry"
    );
}

#[test]
fn well_known_types_must_be_themselves() {
    let timestamp = DescriptorProto {
        name: Some("Timestamp".to_owned()),
        field: vec![field("seconds", 1, Label::Repeated, Type::String)],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        package: Some("google.protobuf".to_owned()),
        message_type: vec![timestamp],
        ..file("a")
    };
    assert_eq!(
        refusal(vec![file]),
        "the file descriptor set is invalid: google.protobuf.Timestamp is not the well-known type"
    );
    assert!(
        read(&compile(
            r#"
            syntax = "proto3";
            import "google/protobuf/any.proto";
            import "google/protobuf/struct.proto";
            import "google/protobuf/timestamp.proto";
            import "google/protobuf/wrappers.proto";
            import "google/protobuf/field_mask.proto";
            import "google/protobuf/duration.proto";
            import "google/protobuf/empty.proto";
            message M { map<string, google.protobuf.Value> m = 1; }
            "#
        ))
        .is_ok()
    );
}

#[test]
fn names_that_are_no_identifiers_are_refused() {
    let message = DescriptorProto { name: Some("M".to_owned()), ..Default::default() };
    let method = MethodDescriptorProto {
        name: Some("a\nb".to_owned()),
        input_type: Some(".M".to_owned()),
        output_type: Some(".M".to_owned()),
        ..Default::default()
    };
    let service = ServiceDescriptorProto {
        name: Some("S".to_owned()),
        method: vec![method],
        ..Default::default()
    };
    let file =
        FileDescriptorProto { message_type: vec![message], service: vec![service], ..file("a") };
    assert_eq!(
        refusal(vec![file]),
        "the file descriptor set is invalid: \"a\\nb\" is not a name for a service or a method"
    );
}

proptest::proptest! {
    #[test]
    fn a_set_with_flipped_bits_is_accepted_or_refused(flips: [(u16, u8); 3]) {
        let mut set = compile("syntax = \"proto3\"; message M { map<string, M> m = 1; }");
        for (at, bits) in flips {
            let at = at as usize % set.len();
            set[at] ^= bits;
        }
        let _ = read(&set);
    }
}
