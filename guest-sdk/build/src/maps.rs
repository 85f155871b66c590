//! Messages with maps. What prost's derive macro writes to show one says `::prost`, whatever path it was
//! told: so these are shown by the standard library's, which a guest needs no crate for.

use prost_build::Config;
use prost_types::{DescriptorProto, FileDescriptorSet};

const DERIVE: &str = "#[derive(Debug)]";

pub fn derive_debug(config: &mut Config, descriptors: &FileDescriptorSet) {
    let mut paths = Vec::new();
    for file in &descriptors.file {
        let package = match file.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        for message in file.message_type.iter().filter(|message| has_map(message)) {
            let path = format!("{package}.{}", message.name());
            config.message_attribute(&path, DERIVE);
            oneofs(config, message, &path);
            paths.push(path);
        }
    }
    // Each call forgets what the one before said.
    config.skip_debug(paths);
}

fn has_map(message: &DescriptorProto) -> bool {
    let is_entry = |nested: &DescriptorProto| {
        nested.options.as_ref().is_some_and(|options| options.map_entry())
    };
    message.nested_type.iter().any(|nested| is_entry(nested) || has_map(nested))
}

/// What says how a message is shown says so for all that is within it, but for its oneofs.
fn oneofs(config: &mut Config, message: &DescriptorProto, path: &str) {
    for oneof in &message.oneof_decl {
        config.type_attribute(format!("{path}.{}", oneof.name()), DERIVE);
    }
    for nested in &message.nested_type {
        oneofs(config, nested, &format!("{path}.{}", nested.name()));
    }
}
