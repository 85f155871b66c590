//! What a module says of its services: its descriptors, and the options on them.

mod sound;

use std::panic::{AssertUnwindSafe, catch_unwind};

use prost::{DecodeError, Message};
use prost_reflect::{DescriptorPool, FieldDescriptor, MethodDescriptor};
use stead_proto::google::api::HttpRule;

use crate::registry::wire;
use crate::words::limits::{DESCRIPTOR_SET_BYTES_MAX, FAULT_BYTES_MAX};

/// `(stead.entity_key)`, `(cloudstate.entity_key)` and `(cloudstate.legacy_entity_key)`.
const ENTITY_KEY_OPTIONS: [u32; 3] = [50800, 1080, 50002];
/// `(google.api.http)`
const HTTP_OPTION: u32 = 72_295_728;

/// Reads a serialized `FileDescriptorSet`. What it accepts is safe to decode messages with, and its
/// options are safe to read. Comments are left out.
pub fn read(file_descriptor_set: &[u8]) -> Result<DescriptorPool, String> {
    let bytes = file_descriptor_set.len();
    if bytes > DESCRIPTOR_SET_BYTES_MAX {
        return Err(format!(
            "the file descriptor set has {bytes} bytes; the limit is {DESCRIPTOR_SET_BYTES_MAX}"
        ));
    }
    let files = sound::check_files(file_descriptor_set)
        .map_err(|reason| format!("the file descriptor set is invalid: {}", shorten(reason)))?;
    // The library was written for the output of compilers and panics on some of what they never write.
    let pool = catch_unwind(AssertUnwindSafe(|| {
        let pool = DescriptorPool::decode(files.as_slice()).map_err(|error| error.to_string())?;
        sound::check_pool(&pool)?;
        Ok(pool)
    }))
    .unwrap_or_else(|_| Err("no protobuf compiler writes this".to_owned()));
    pool.map_err(|reason| format!("the file descriptor set is invalid: {}", shorten(reason)))
}

/// Names from a module are of any length.
pub(super) fn shorten(mut sentence: String) -> String {
    if sentence.len() > FAULT_BYTES_MAX {
        sentence.truncate(sentence.floor_char_boundary(FAULT_BYTES_MAX));
        sentence.push_str("..");
    }
    sentence
}

/// Whether the field is (part of) the entity's key, whether or not the descriptor set knows the option.
pub fn is_entity_key(field: &FieldDescriptor) -> bool {
    let options = field.options().encode_to_vec();
    wire::fields(&options).flatten().any(|option| {
        ENTITY_KEY_OPTIONS.contains(&option.number)
            && matches!(option.value, wire::Value::Varint(value) if value != 0)
    })
}

/// The method's `google.api.http`, if it has one that can be read.
pub fn http_rule(method: &MethodDescriptor) -> Option<HttpRule> {
    try_http_rule(method).ok().flatten()
}

pub(super) fn try_http_rule(method: &MethodDescriptor) -> Result<Option<HttpRule>, DecodeError> {
    let options = method.options().encode_to_vec();
    let mut rule = None;
    for option in wire::fields(&options).flatten() {
        if let wire::Value::Bytes(bytes) = option.value
            && option.number == HTTP_OPTION
        {
            rule.get_or_insert_with(HttpRule::default).merge(bytes)?;
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests;
