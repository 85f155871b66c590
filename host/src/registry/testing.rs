//! Hand-made descriptors and modules for tests.

use std::path::Path;

use protox::Compiler;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};

use crate::wasm::fixtures::Guest;
use crate::wasm::{Description, EntityType, Interfaces};

struct InMemory<'a>(&'a str);

impl FileResolver for InMemory<'_> {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "test.proto" => File::from_source(name, self.0),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The serialized descriptor set of a source, imports included. It may import Stead's own files.
pub fn compile(source: &'static str) -> Vec<u8> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut resolver = ChainFileResolver::new();
    resolver.add(InMemory(source));
    resolver.add(GoogleFileResolver::new());
    resolver.add(IncludeFileResolver::new(own));
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("test.proto").expect("the test's proto compiles");
    compiler.encode_file_descriptor_set()
}

pub fn describe(source: &'static str, types: &[(&str, &str)]) -> Description {
    describe_as("event-sourced", source, types)
}

/// With all types of that kind.
pub fn describe_as(kind: &str, source: &'static str, types: &[(&str, &str)]) -> Description {
    let entity_type = |&(service, journal): &(&str, &str)| EntityType {
        service: service.to_owned(),
        kind: kind.to_owned(),
        journal_name: journal.to_owned(),
        snapshot_every: 0,
        passivate_after_ms: 0,
        settings: Vec::new(),
    };
    Description {
        interfaces: Interfaces { entity: true, action: true, view: true },
        file_descriptor_set: compile(source),
        entity_types: types.iter().map(entity_type).collect(),
        sdk: "test".to_owned(),
    }
}

/// A component that describes itself so and does nothing else of use.
pub fn component(description: &Description) -> bytes::Bytes {
    describing(Guest::new(), description)
}

/// The same of a guest that does something.
pub fn describing(guest: Guest, description: &Description) -> bytes::Bytes {
    const BASE: usize = 8192;
    let types = &description.entity_types;
    // The description at BASE, the entity types after it, then what they point to.
    let heap = BASE + 24 + types.len() * 40;
    let mut pointed = Vec::new();
    let mut place = |bytes: &[u8]| {
        let at = (heap + pointed.len()) as u32;
        pointed.extend_from_slice(bytes);
        [at, bytes.len() as u32]
    };
    let mut words: Vec<u32> = Vec::new();
    words.extend(place(&description.file_descriptor_set));
    words.extend([BASE as u32 + 24, types.len() as u32]);
    words.extend(place(description.sdk.as_bytes()));
    for entity_type in types {
        assert!(entity_type.settings.is_empty(), "settings are not supported here");
        words.extend(place(entity_type.service.as_bytes()));
        words.extend(place(entity_type.kind.as_bytes()));
        words.extend(place(entity_type.journal_name.as_bytes()));
        words.extend([entity_type.snapshot_every, entity_type.passivate_after_ms, 0, 0]);
    }
    let data = words.iter().flat_map(|word| word.to_le_bytes()).chain(pointed);
    let escaped: String = data.map(|byte| format!("\\{byte:02x}")).collect();
    guest
        .with("describe", &format!("(i32.const {BASE})"))
        .with_items(&format!("(data (i32.const {BASE}) \"{escaped}\")"))
        .component()
        .into()
}
