//! What must hold of a file descriptor set beyond what prost-reflect checks, so that neither reading
//! it nor decoding messages with it can panic, overflow the stack or run for ever.

use std::collections::HashMap;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{Cardinality, DescriptorPool, Kind, MessageDescriptor};

use crate::registry::wire;
use crate::words::limits::{DESCRIPTOR_FILES_MAX, DESCRIPTOR_IMPORT_PATHS_MAX};

/// `FileDescriptorProto.source_code_info`
const SOURCE_CODE_INFO: u32 = 9;

/// What the checks need of a `FileDescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
    #[prost(int32, repeated, packed = "false", tag = "10")]
    public_dependency: Vec<i32>,
    #[prost(string, tag = "12")]
    syntax: String,
}

/// Checks a serialized `FileDescriptorSet` and returns it without its source code info, which costs
/// memory and, in faulty sets, time that grows with the square of its size.
pub(super) fn check_files(set: &[u8]) -> Result<Vec<u8>, String> {
    let mut files = Vec::new();
    let mut stripped = Vec::with_capacity(set.len());
    for field in wire::fields(set) {
        let field = field.map_err(|error| error.to_string())?;
        let (1, wire::Value::Bytes(bytes)) = (field.number, field.value) else { continue };
        if files.len() == DESCRIPTOR_FILES_MAX {
            return Err(format!("it has more than {DESCRIPTOR_FILES_MAX} files"));
        }
        let file = File::decode(bytes).map_err(|error| error.to_string())?;
        if !matches!(file.syntax.as_str(), "" | "proto2" | "proto3") {
            let (name, syntax) = (&file.name, &file.syntax);
            return Err(format!(
                "{name} has the syntax {syntax}; this host reads proto2 and proto3"
            ));
        }
        if file.dependency.len().max(file.public_dependency.len()) > DESCRIPTOR_FILES_MAX {
            return Err(format!("{} has more than {DESCRIPTOR_FILES_MAX} imports", file.name));
        }
        files.push(file);
        append_without_source(bytes, &mut stripped)?;
    }
    check_imports(&files)?;
    Ok(stripped)
}

fn append_without_source(file: &[u8], set: &mut Vec<u8>) -> Result<(), String> {
    let mut kept = Vec::with_capacity(file.len());
    for field in wire::fields(file) {
        let field = field.map_err(|error| error.to_string())?;
        if field.number != SOURCE_CODE_INFO {
            kept.extend_from_slice(field.raw);
        }
    }
    encode_key(1, WireType::LengthDelimited, set);
    encode_varint(kept.len() as u64, set);
    set.extend_from_slice(&kept);
    Ok(())
}

/// The library walks every way through the public imports, recursively.
fn check_imports(files: &[File]) -> Result<(), String> {
    let index_of: HashMap<_, _> =
        files.iter().enumerate().map(|(index, file)| (file.name.as_str(), index)).collect();
    let mut imports = Vec::with_capacity(files.len());
    for file in files {
        let mut found = Vec::with_capacity(file.dependency.len());
        for (position, name) in file.dependency.iter().enumerate() {
            let Some(&index) = index_of.get(name.as_str()) else {
                return Err(format!(
                    "{} imports {name}, which is missing; include the imports (--include_imports)",
                    file.name
                ));
            };
            found.push((index, file.public_dependency.contains(&(position as i32))));
        }
        imports.push(found);
    }

    // Peels off files whose imports are all done, so each is seen once and cycles are left over.
    let mut importers = vec![Vec::new(); files.len()];
    let mut waiting: Vec<usize> = imports.iter().map(Vec::len).collect();
    for (importer, found) in imports.iter().enumerate() {
        for &(index, _) in found {
            importers[index].push(importer);
        }
    }
    let mut ready: Vec<usize> = (0..files.len()).filter(|&index| waiting[index] == 0).collect();
    let mut public_paths = vec![0_u64; files.len()];
    let (mut done, mut paths) = (0, 0_u64);
    while let Some(index) = ready.pop() {
        done += 1;
        let mut through = 1_u64;
        for &(import, public) in &imports[index] {
            paths = paths.saturating_add(public_paths[import]);
            if public {
                through = through.saturating_add(public_paths[import]);
            }
        }
        public_paths[index] = through;
        for &importer in &importers[index] {
            waiting[importer] -= 1;
            if waiting[importer] == 0 {
                ready.push(importer);
            }
        }
    }
    if done < files.len() {
        let caught = waiting.iter().position(|&left| left > 0).unwrap_or(0);
        return Err(format!("{} imports itself, directly or not", files[caught].name));
    }
    if paths > DESCRIPTOR_IMPORT_PATHS_MAX {
        return Err("its public imports are too entangled".to_owned());
    }
    Ok(())
}

/// Also reads all options that the host will ever read, so that whoever calls this knows that they can
/// be read.
pub(super) fn check_pool(pool: &DescriptorPool) -> Result<(), String> {
    let known = DescriptorPool::global();
    for message in pool.all_messages() {
        if message.is_map_entry() && !is_sound_map_entry(&message) {
            return Err(format!("{} is not a valid map entry", message.full_name()));
        }
        if has_json_form_of_its_own(message.full_name())
            && let Some(known) = known.get_message_by_name(message.full_name())
            && shape(&known) != shape(&message)
        {
            return Err(format!("{} is not the well-known type", message.full_name()));
        }
        for field in message.fields() {
            field.options();
        }
    }
    for service in pool.services() {
        check_name(service.full_name())?;
        for method in service.methods() {
            check_name(method.name())?;
            method.options();
        }
    }
    Ok(())
}

fn is_sound_map_entry(entry: &MessageDescriptor) -> bool {
    let (Some(key), Some(value)) = (entry.get_field(1), entry.get_field(2)) else { return false };
    let key_may_be = !matches!(
        key.kind(),
        Kind::Float | Kind::Double | Kind::Bytes | Kind::Message(_) | Kind::Enum(_)
    );
    key_may_be
        && key.cardinality() != Cardinality::Repeated
        && value.cardinality() != Cardinality::Repeated
        && entry.fields().len() == 2
}

fn has_json_form_of_its_own(name: &str) -> bool {
    let Some(short) = name.strip_prefix("google.protobuf.") else { return false };
    matches!(
        short,
        "Any" | "Timestamp" | "Duration" | "Struct" | "Value" | "ListValue" | "FieldMask" | "Empty"
    ) || short.ends_with("Value")
}

fn shape(message: &MessageDescriptor) -> Vec<(u32, String, String, Cardinality)> {
    let field = |field: prost_reflect::FieldDescriptor| {
        let kind = match field.kind() {
            Kind::Message(message) => format!("message {}", message.full_name()),
            Kind::Enum(kind) => format!("enum {}", kind.full_name()),
            scalar => format!("{scalar:?}"),
        };
        (field.number(), field.name().to_owned(), kind, field.cardinality())
    };
    let mut fields: Vec<_> = message.fields().map(field).collect();
    fields.sort_by_key(|field| field.0);
    fields
}

/// Names of services and methods become paths, metric labels and log fields.
fn check_name(name: &str) -> Result<(), String> {
    let is_identifier = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !name.split('.').all(is_identifier) {
        return Err(format!("{name:?} is not a name for a service or a method"));
    }
    Ok(())
}
