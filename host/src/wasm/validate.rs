//! What a module must be before anything is spent on it: a component of one of our worlds that
//! imports nothing but `calls` and the closed WASI, valid, and not built to exhaust the compiler.
//!
//! The counts are taken in a first pass that allocates little; only then the validator runs. Neither
//! recurses into what the bytes nest.

use wasmparser::{
    ComponentType, Encoding, Error, FunctionBody, Operator, Parser, Payload, Validator,
    WasmFeatures,
};

use crate::wasm::component::Interfaces;
use crate::wasm::failure::{Refusal, printable};
use crate::wasm::{http, wasi};
use crate::words::limits;

const DISCOVERY: &str = "stead:function/discovery@";
const ENTITY: &str = "stead:function/entity@";
const ACTION: &str = "stead:function/action@";
const VIEW: &str = "stead:function/view@";
const TYPES: &str = "stead:function/types@";
const CALLS: &str = "stead:function/calls@";
const VERSION: &str = "0.1.0";
const ACCEPTED: &str = "0.1.";

/// What the host needs to know of a valid component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub interfaces: Interfaces,
    pub imports_wasi: bool,
    /// Whether it can ask the host for something while it runs.
    pub imports_calls: bool,
    /// Whether it can send requests, if they are granted.
    pub imports_http: bool,
}

pub fn check(module: &[u8]) -> Result<Checked, Refusal> {
    check_header(module)?;
    let names = count(module)?;
    let checked = check_world(&names)?;
    Validator::new_with_features(features()).validate_all(module).map_err(invalid)?;
    Ok(checked)
}

/// The same proposals as in the engine's configuration.
fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::COMPONENT_MODEL
}

fn check_header(module: &[u8]) -> Result<(), Refusal> {
    if module.is_empty() {
        return Err(Refusal::Empty);
    }
    if module.len() > limits::MODULE_BYTES_MAX {
        return Err(Refusal::TooLarge { bytes: module.len(), max: limits::MODULE_BYTES_MAX });
    }
    if module.starts_with(b"\x7fELF") {
        return Err(Refusal::Precompiled);
    }
    if !module.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm { reason: "it does not begin with \\0asm".into() });
    }
    match module.get(4..8) {
        None => Err(Refusal::NotWasm { reason: "it ends within the first 8 bytes".into() }),
        Some([_, _, 1, 0]) => Ok(()),
        Some([1, 0, 0, 0]) => Err(Refusal::CoreModule),
        Some(version) => Err(Refusal::NotWasm {
            reason: format!("its version field is {version:02x?}, of no known kind"),
        }),
    }
}

/// The names at the component's surface.
#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

#[derive(Default)]
struct Counts {
    depth: usize,
    component_items: usize,
    core_modules: usize,
    core_functions: usize,
    core_types: usize,
    core_items: usize,
}

fn count(module: &[u8]) -> Result<Names, Refusal> {
    let mut names = Names::default();
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(module) {
        counts.add(module, payload.map_err(invalid)?, &mut names)?;
    }
    Ok(names)
}

impl Counts {
    fn add(
        &mut self,
        module: &[u8],
        payload: Payload<'_>,
        names: &mut Names,
    ) -> Result<(), Refusal> {
        let items = limits::COMPONENT_ITEMS_MAX;
        let core_items = limits::CORE_ITEMS_MAX;
        match payload {
            Payload::Version { encoding: Encoding::Component, .. }
            | Payload::Version { encoding: Encoding::Module, .. } => {
                self.depth += 1;
                at_most("nested components", self.depth, limits::COMPONENT_NESTING_MAX)
            }
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::ModuleSection { .. } => {
                add("core modules", &mut self.core_modules, 1u64, limits::CORE_MODULES_MAX)
            }
            Payload::TypeSection(section) => {
                add("core types", &mut self.core_types, section.count(), limits::CORE_TYPES_MAX)
            }
            Payload::FunctionSection(section) => {
                let functions = &mut self.core_functions;
                add("functions", functions, section.count(), limits::CORE_FUNCTIONS_MAX)
            }
            Payload::CodeSectionEntry(body) => check_body(&body),
            Payload::ImportSection(section) => {
                add("core items", &mut self.core_items, section.count(), core_items)
            }
            Payload::ExportSection(section) => {
                add("core items", &mut self.core_items, section.count(), core_items)
            }
            Payload::GlobalSection(section) => {
                add("core items", &mut self.core_items, section.count(), core_items)
            }
            Payload::ElementSection(section) => {
                add("core items", &mut self.core_items, section.count(), core_items)
            }
            Payload::DataSection(section) => {
                add("core items", &mut self.core_items, section.count(), core_items)
            }
            Payload::ComponentImportSection(section) => {
                add("component items", &mut self.component_items, section.count(), items)?;
                if self.depth == 1 {
                    for import in section {
                        names.imports.push(import.map_err(invalid)?.name.name.to_owned());
                    }
                }
                Ok(())
            }
            Payload::ComponentExportSection(section) => {
                add("component items", &mut self.component_items, section.count(), items)?;
                if self.depth == 1 {
                    for export in section {
                        names.exports.push(export.map_err(invalid)?.name.name.to_owned());
                    }
                }
                Ok(())
            }
            Payload::ComponentTypeSection(section) => {
                add("component items", &mut self.component_items, section.count(), items)?;
                let range = section.range();
                let bytes = module.get(range.start as usize..range.end as usize);
                check_type_nesting(bytes.unwrap_or(module))?;
                for ty in section {
                    check_type(&ty.map_err(invalid)?)?;
                }
                Ok(())
            }
            Payload::ComponentInstanceSection(section) => {
                add("component items", &mut self.component_items, section.count(), items)
            }
            Payload::ComponentAliasSection(section) => {
                add("component items", &mut self.component_items, section.count(), items)
            }
            Payload::ComponentCanonicalSection(section) => {
                add("component items", &mut self.component_items, section.count(), items)
            }
            Payload::InstanceSection(section) => {
                add("component items", &mut self.component_items, section.count(), items)
            }
            Payload::CoreTypeSection(section) => {
                add("core types", &mut self.core_types, section.count(), limits::CORE_TYPES_MAX)
            }
            // The rest is small by its nature, or refused by the validator.
            _ => Ok(()),
        }
    }
}

fn check_body(body: &FunctionBody<'_>) -> Result<(), Refusal> {
    let bytes = body.range().end.saturating_sub(body.range().start);
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    at_most("bytes in one function", bytes, limits::CORE_FUNCTION_BYTES_MAX)?;
    // A table of more branches than bytes does not parse: small bodies need no look.
    if bytes <= limits::CORE_BRANCH_TABLE_MAX {
        return Ok(());
    }
    for operator in body.get_operators_reader().map_err(invalid)? {
        if let Operator::BrTable { targets } = operator.map_err(invalid)? {
            let targets = targets.len() as usize;
            at_most("branches in one br_table", targets, limits::CORE_BRANCH_TABLE_MAX)?;
        }
    }
    Ok(())
}

/// The parser recurses into types that declare types, so their depth is bounded before it reads
/// them: every declaration of a component or instance type within another one begins with the bytes
/// 01 41 or 01 42.
fn check_type_nesting(section: &[u8]) -> Result<(), Refusal> {
    let nested = section.windows(2).filter(|pair| matches!(pair, [0x01, 0x41 | 0x42])).count();
    at_most("types within types", nested, limits::COMPONENT_TYPE_NESTING_MAX)
}

fn check_type(ty: &ComponentType<'_>) -> Result<(), Refusal> {
    use wasmparser::ComponentDefinedType as Defined;
    let (what, found) = match ty {
        ComponentType::Defined(Defined::Record(fields)) => ("fields in one record", fields.len()),
        ComponentType::Defined(Defined::Variant(cases)) => ("cases in one variant", cases.len()),
        ComponentType::Defined(Defined::Tuple(fields)) => ("fields in one tuple", fields.len()),
        ComponentType::Defined(Defined::Enum(cases)) => ("cases in one enum", cases.len()),
        _ => return Ok(()),
    };
    at_most(what, found, limits::COMPONENT_TYPE_FIELDS_MAX)
}

fn check_world(names: &Names) -> Result<Checked, Refusal> {
    let missing = |what: String| Err(Refusal::WrongWorld { missing: what });
    if !exports(names, DISCOVERY)? {
        return missing(format!("{DISCOVERY}{VERSION}"));
    }
    let interfaces = Interfaces {
        entity: exports(names, ENTITY)?,
        action: exports(names, ACTION)?,
        view: exports(names, VIEW)?,
    };
    if interfaces == Interfaces::default() {
        return missing(format!("any of {ENTITY}{VERSION}, {ACTION}{VERSION} and {VIEW}{VERSION}"));
    }
    let mut checked =
        Checked { interfaces, imports_wasi: false, imports_calls: false, imports_http: false };
    let is = |import: &str, prefix: &str| {
        import.strip_prefix(prefix).is_some_and(|version| version.starts_with(ACCEPTED))
    };
    for import in &names.imports {
        if wasi::is_granted(import) {
            checked.imports_wasi = true;
        } else if http::is_http(import) {
            checked.imports_wasi = true;
            checked.imports_http = true;
        } else if is(import, CALLS) {
            checked.imports_calls = true;
        } else if !is(import, TYPES) {
            return Err(Refusal::ImportNotGranted { import: printable(import, 256) });
        }
    }
    Ok(checked)
}

/// Whether an interface of the contract is exported, in a version that is accepted.
fn exports(names: &Names, prefix: &str) -> Result<bool, Refusal> {
    match names.exports.iter().find_map(|name| name.strip_prefix(prefix)) {
        Some(version) if version.starts_with(ACCEPTED) => Ok(true),
        Some(version) => Err(Refusal::WrongVersion { found: printable(version, 64) }),
        None => Ok(false),
    }
}

fn add(what: &str, total: &mut usize, found: impl Into<u64>, max: usize) -> Result<(), Refusal> {
    let found = usize::try_from(found.into()).unwrap_or(usize::MAX);
    *total = total.saturating_add(found);
    at_most(what, *total, max)
}

fn at_most(what: &str, found: usize, max: usize) -> Result<(), Refusal> {
    if found <= max {
        return Ok(());
    }
    Err(Refusal::TooCostly { what: format!("{found} {what}"), max: max.to_string() })
}

fn invalid(error: Error) -> Refusal {
    Refusal::Invalid { reason: printable(&error.to_string(), 512) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::fixtures::Guest;

    fn refusal(module: &[u8]) -> Refusal {
        check(module).expect_err("refused")
    }

    fn parse(wat: &str) -> Vec<u8> {
        wat::parse_str(wat).expect("parses")
    }

    /// How much there is of what is too much.
    fn too_costly(module: &[u8]) -> String {
        match refusal(module) {
            Refusal::TooCostly { what, .. } => what,
            other => panic!("too costly is expected: {other}"),
        }
    }

    const ENTITIES: Checked = Checked {
        interfaces: Interfaces { entity: true, action: false, view: false },
        imports_wasi: false,
        imports_calls: false,
        imports_http: false,
    };

    #[test]
    fn accepts_a_component_of_our_world() {
        assert_eq!(check(&Guest::new().component()), Ok(ENTITIES));
    }

    #[test]
    fn accepts_later_versions_of_the_same_world() {
        let module = Guest::new().replacing("@0.1.0", "@0.1.7").component();
        assert_eq!(check(&module), Ok(ENTITIES));
    }

    #[test]
    fn accepts_a_component_of_actions_that_imports_calls() {
        let interfaces = Interfaces { entity: false, action: true, view: false };
        let checked = Checked { interfaces, imports_calls: true, ..ENTITIES };
        assert_eq!(check(&Guest::acting().component()), Ok(checked));
    }

    #[test]
    fn refuses_a_component_without_a_function() {
        let module = parse(
            r#"(component (instance $empty)
                (export "stead:function/discovery@0.1.0" (instance $empty)))"#,
        );
        let refusal = refusal(&module).to_string();
        assert!(refusal.contains("stead:function/action@0.1.0"), "{refusal}");
    }

    #[test]
    fn refuses_other_versions_of_the_world_by_name() {
        let module = Guest::new().replacing("@0.1.0", "@0.2.0").component();
        assert_eq!(refusal(&module), Refusal::WrongVersion { found: "0.2.0".into() });
    }

    #[test]
    fn refuses_another_world_and_says_what_is_missing() {
        let missing = "stead:function/discovery@0.1.0".to_owned();
        assert_eq!(refusal(&parse("(component)")), Refusal::WrongWorld { missing });
    }

    #[test]
    fn refuses_nothing_and_too_much() {
        assert_eq!(refusal(b""), Refusal::Empty);
        let large = vec![0; limits::MODULE_BYTES_MAX + 1];
        let max = limits::MODULE_BYTES_MAX;
        assert_eq!(refusal(&large), Refusal::TooLarge { bytes: max + 1, max });
    }

    #[test]
    fn refuses_what_is_not_wasm() {
        for bytes in [&b"hello, world"[..], b"\0", b"\0asm", b"\0asm\x01\0", b"\0asm\x09\0\x07\0"] {
            let refusal = refusal(bytes);
            assert!(matches!(refusal, Refusal::NotWasm { .. }), "{refusal}");
        }
    }

    #[test]
    fn refuses_a_core_module_and_says_how_to_encode_it() {
        assert_eq!(refusal(&Guest::new().core()), Refusal::CoreModule);
    }

    #[test]
    fn refuses_a_precompiled_module() {
        let engine = wasmtime::Engine::new(&crate::wasm::engine::configuration()).expect("engine");
        let compiled = engine.precompile_component(&Guest::new().component()).expect("compiles");
        assert_eq!(refusal(&compiled), Refusal::Precompiled);
    }

    #[test]
    fn refuses_an_upload_that_was_cut_short_anywhere() {
        let module = Guest::new().component();
        let exports = Parser::new(0).parse_all(&module).filter_map(|payload| match payload {
            Ok(Payload::ComponentExportSection(section)) => Some(section.range().end as usize),
            _ => None,
        });
        // What follows the last export are notes for people.
        let needed = exports.last().expect("exports");
        for end in (8..needed).step_by(7) {
            let refusal = refusal(&module[..end]);
            assert!(
                matches!(refusal, Refusal::Invalid { .. } | Refusal::WrongWorld { .. }),
                "{refusal}"
            );
        }
    }

    #[test]
    fn refuses_bytes_that_were_changed_or_accepts_them_as_valid() {
        let module = Guest::new().component();
        for at in (8..module.len()).step_by(3) {
            let mut module = module.clone();
            module[at] ^= 0x55;
            let _ = check(&module);
        }
    }

    #[test]
    fn refuses_a_component_that_does_not_validate() {
        let module = Guest::new().component();
        // The body of the function that pushes a constant and returns it.
        let at = module.windows(4).rposition(|code| code == [0x41, 0x10, 0x0b, 0x0b]);
        let mut module = module.clone();
        match at {
            Some(at) => module[at] = 0x42,
            None => {
                let at = module.windows(3).rposition(|code| code == [0x41, 0x10, 0x0b]);
                module[at.expect("a constant")] = 0x42;
            }
        }
        let refusal = refusal(&module);
        assert!(matches!(refusal, Refusal::Invalid { .. }), "{refusal}");
    }

    #[test]
    fn grants_the_closed_wasi_and_nothing_else() {
        let import = r#"(import "wasi:random/random@0.2.3" "get-random-u64" (func (result i64)))"#;
        let module = Guest::new().with_wasi().with_imports(import).component();
        assert_eq!(check(&module), Ok(Checked { imports_wasi: true, ..ENTITIES }));

        let import = r#"(import "wasi:sockets/network@0.2.3" "name" (func (result i32)))"#;
        let module = Guest::new().with_wasi().with_imports(import).component();
        let import = "wasi:sockets/network@0.2.3".to_owned();
        assert_eq!(refusal(&module), Refusal::ImportNotGranted { import });
    }

    #[test]
    fn refuses_too_many_functions() {
        let functions = "(func)".repeat(limits::CORE_FUNCTIONS_MAX + 1);
        let module = parse(&format!("(component (core module {functions}))"));
        assert_eq!(too_costly(&module), "200001 functions");
    }

    #[test]
    fn refuses_one_enormous_function() {
        let body = "nop ".repeat(limits::CORE_FUNCTION_BYTES_MAX);
        let module = parse(&format!("(component (core module (func {body})))"));
        assert!(too_costly(&module).contains("bytes in one function"));
    }

    #[test]
    fn refuses_an_enormous_branch_table() {
        let targets = "0 ".repeat(limits::CORE_BRANCH_TABLE_MAX + 2);
        let module =
            parse(&format!("(component (core module (func (br_table {targets} (i32.const 0)))))"));
        assert_eq!(too_costly(&module), "20001 branches in one br_table");
    }

    #[test]
    fn refuses_enormous_records() {
        let fields: String = (0..=limits::COMPONENT_TYPE_FIELDS_MAX)
            .map(|number| format!(r#"(field "f{number}" u8)"#))
            .collect();
        let module = parse(&format!("(component (type (record {fields})))"));
        assert_eq!(too_costly(&module), "2001 fields in one record");
    }

    #[test]
    fn refuses_deeply_nested_components() {
        let module = parse(&format!("{}{}", "(component ".repeat(100), ")".repeat(100)));
        assert!(too_costly(&module).contains("nested components"));
    }

    #[test]
    fn refuses_types_nested_without_end_before_it_reads_them() {
        const DEPTH: usize = 1_000_000;
        // Instance types of one declaration each, which is the next one.
        let mut section = vec![1];
        for _ in 0..DEPTH {
            section.extend([0x42, 1, 1]);
        }
        section.extend([0x42, 0]);
        let mut module = b"\0asm\x0d\0\x01\0\x07".to_vec();
        let mut length = section.len();
        while length > 0x7f {
            module.push(length as u8 | 0x80);
            length >>= 7;
        }
        module.push(length as u8);
        module.extend(section);
        assert!(too_costly(&module).contains("types within types"));
    }
}
