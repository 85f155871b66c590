//! What `describe` answers: right, unless a feature makes it wrong.

use std::hint::black_box;

use crate::bindings::stead::function::types::{Description, EntityType, Setting};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/misbehaving.bin"));
const DESCRIPTORS_NO_KEY: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/no-key/misbehaving.bin"));

pub fn describe() -> Description {
    if cfg!(feature = "describe-traps") {
        panic!("as asked");
    }
    while cfg!(feature = "describe-loops") {
        black_box(());
    }
    Description {
        file_descriptor_set: descriptors(),
        entity_types: entity_types(),
        sdk: "none".into(),
    }
}

fn descriptors() -> Vec<u8> {
    if cfg!(feature = "garbage-descriptor") {
        vec![0xff; 64]
    } else if cfg!(feature = "no-key") {
        DESCRIPTORS_NO_KEY.into()
    } else {
        DESCRIPTORS.into()
    }
}

fn entity_types() -> Vec<EntityType> {
    if cfg!(feature = "no-types") {
        return Vec::new();
    }
    let mut entity_type = EntityType {
        service: "misbehaving.v1.Misbehaving".into(),
        kind: "event-sourced".into(),
        journal_name: "misbehaving".into(),
        snapshot_every: 3,
        passivate_after_ms: 0,
        settings: Vec::new(),
    };
    if cfg!(feature = "no-service") {
        entity_type.service = "misbehaving.v1.Absent".into();
    }
    if cfg!(feature = "unknown-kind") {
        entity_type.kind = "oracle".into();
    }
    if cfg!(feature = "no-handler") {
        entity_type.kind = "action".into();
    }
    if cfg!(feature = "bad-journal-name") {
        entity_type.journal_name = "../mis behaving".into();
    }
    if cfg!(feature = "unknown-setting") {
        entity_type.settings.push(Setting { name: "colour".into(), value: "red".into() });
    }
    let mut entity_types = vec![entity_type.clone()];
    if cfg!(feature = "duplicate-journal") {
        entity_types.push(entity_type);
    }
    entity_types
}
