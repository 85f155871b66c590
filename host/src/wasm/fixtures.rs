//! Guests by hand, for the tests of this floor.

use std::time::Duration;

use bytes::Bytes;

use crate::wasm::{Command, Component, Engine, EngineConfig, Instance, InstanceLimits, Refusal};
use crate::words::{Digest, limits};

const FUNCTION: &str = include_str!("fixtures/function.wat");
const ACTING: &str = include_str!("fixtures/acting.wat");
const WASI: &str = include_str!("fixtures/wasi.wit");

/// The core module `function.wat` or `acting.wat` with some of its parts replaced.
pub struct Guest {
    world: &'static str,
    wat: String,
    wit: String,
}

impl Guest {
    pub fn new() -> Self {
        Self::of("function", FUNCTION)
    }

    /// An action.
    pub fn acting() -> Self {
        Self::of("acting", ACTING)
    }

    fn of(world: &'static str, wat: &str) -> Self {
        let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/function.wit");
        let wit = std::fs::read_to_string(wit).expect("the contract");
        Self { world, wat: wat.to_owned(), wit }
    }

    /// Replaces what lies between the marks `(;part;)` and `(;end;)`.
    pub fn with(mut self, part: &str, body: &str) -> Self {
        let mark = format!("(;{part};)");
        let start = self.wat.find(&mark).expect("the mark") + mark.len();
        let end = start + self.wat[start..].find("(;end;)").expect("the end mark");
        self.wat.replace_range(start..end, body);
        self
    }

    /// Adds functions, globals, data or a start function.
    pub fn with_items(self, items: &str) -> Self {
        Self { wat: self.wat.replace("(;items;)", items), ..self }
    }

    pub fn with_imports(self, imports: &str) -> Self {
        Self { wat: self.wat.replace("(;imports;)", imports), ..self }
    }

    pub fn wat(&self) -> &str {
        &self.wat
    }

    /// Replaces text in the module and in the contract alike.
    pub fn replacing(self, from: &str, to: &str) -> Self {
        Self { world: self.world, wat: self.wat.replace(from, to), wit: self.wit.replace(from, to) }
    }

    /// Lets it import the parts of WASI 0.2 that `wasi.wit` has.
    pub fn with_wasi(mut self) -> Self {
        let (world, packages) = WASI.split_once("// packages").expect("the mark");
        let opening = format!("world {} {{", self.world);
        self.wit = self.wit.replace(&opening, &format!("{opening} {world}"));
        self.wit.push_str(packages);
        self
    }

    pub fn core(&self) -> Vec<u8> {
        wat::parse_str(&self.wat).expect("the module parses")
    }

    /// The component, encoded as `stead build` does it.
    pub fn component(&self) -> Vec<u8> {
        let empty = wat::parse_str("(component)").expect("an empty component");
        let decoded = wit_component::decode(&empty).expect("decodes");
        let mut resolve = decoded.resolve().clone();
        let package = resolve.push_str("function.wit", &self.wit).expect("the contract parses");
        let world = resolve.select_world(&[package], Some(self.world)).expect("the world");
        let mut module = self.core();
        wit_component::embed_component_metadata(
            &mut module,
            &resolve,
            world,
            wit_component::StringEncoding::UTF8,
        )
        .expect("embeds");
        wit_component::ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .and_then(|encoder| encoder.encode())
            .expect("encodes")
    }

    pub fn load(&self, engine: &Engine) -> Component {
        load(engine, self.component()).expect("loads")
    }

    /// One instance in an engine of its own.
    pub fn instance(&self) -> Instance {
        self.load(&engine())
            .instantiate("test.v1.Counter", "one", instance_limits())
            .expect("starts")
    }
}

pub fn engine() -> Engine {
    Engine::new(EngineConfig { instances_max: 100, ..EngineConfig::default() }).expect("an engine")
}

/// Loads from a thread that is no runtime's.
pub fn load(engine: &Engine, module: Vec<u8>) -> Result<Component, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let digest = Digest::of(&module);
    runtime.expect("a runtime").block_on(engine.load(digest, Bytes::from(module)))
}

pub fn instance_limits() -> InstanceLimits {
    InstanceLimits {
        memory_bytes_max: limits::GUEST_MEMORY_BYTES_DEFAULT,
        deadline: Duration::from_millis(200),
    }
}

pub fn command(payload: &'static [u8]) -> Command {
    Command {
        method: "Add".into(),
        payload: Bytes::from_static(payload),
        metadata: vec![("name".into(), "value".into())],
        id: "id".into(),
        now_ms: 1_700_000_000_123,
        seed: 7,
    }
}
