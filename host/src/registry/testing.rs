//! Hand-made descriptors for tests.

use std::path::Path;

use protox::Compiler;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};

use crate::wasm::{Description, EntityType};

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
    let entity_type = |&(service, journal): &(&str, &str)| EntityType {
        service: service.to_owned(),
        kind: "event-sourced".to_owned(),
        journal_name: journal.to_owned(),
        snapshot_every: 0,
        passivate_after_ms: 0,
        settings: Vec::new(),
    };
    Description {
        file_descriptor_set: compile(source),
        entity_types: types.iter().map(entity_type).collect(),
        sdk: "test".to_owned(),
    }
}
