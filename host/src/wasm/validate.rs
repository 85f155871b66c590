//! What a module must be before anything is spent on it: a component of our world that imports
//! nothing but the closed WASI, valid, and not built to exhaust the compiler.
//!
//! The counts are taken in a first pass that allocates little; only then the validator runs. Neither
//! recurses into what the bytes nest.

use wasmparser::{
    ComponentType, Encoding, Error, FunctionBody, Operator, Parser, Payload, Validator,
    WasmFeatures,
};

use crate::wasm::failure::{Refusal, printable};
use crate::wasm::wasi;
use crate::words::limits;

const DISCOVERY: &str = "stead:function/discovery@";
const ENTITY: &str = "stead:function/entity@";
const TYPES: &str = "stead:function/types@";
const VERSION: &str = "0.1.0";
const ACCEPTED: &str = "0.1.";

/// What the host needs to know of a valid component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub imports_wasi: bool,
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
    for prefix in [DISCOVERY, ENTITY] {
        let found = names.exports.iter().find_map(|name| name.strip_prefix(prefix));
        match found {
            Some(version) if version.starts_with(ACCEPTED) => {}
            Some(version) => {
                return Err(Refusal::WrongVersion { found: printable(version, 64) });
            }
            None => return Err(Refusal::WrongWorld { missing: format!("{prefix}{VERSION}") }),
        }
    }
    let mut imports_wasi = false;
    for import in &names.imports {
        if wasi::is_granted(import) {
            imports_wasi = true;
        } else if !import.strip_prefix(TYPES).is_some_and(|v| v.starts_with(ACCEPTED)) {
            return Err(Refusal::ImportNotGranted { import: printable(import, 256) });
        }
    }
    Ok(Checked { imports_wasi })
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
