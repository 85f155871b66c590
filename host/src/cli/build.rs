//! `stead build`: from a cargo package to a component that can be deployed.
//!
//! The package is compiled for wasm32-unknown-unknown, so that it imports nothing, and encoded into
//! a component here: its author needs cargo, the target, and no other tool.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;
use wit_component::{ComponentEncoder, DecodedWasm};

const TARGET: &str = "wasm32-unknown-unknown";

/// The interfaces that a module has to export, up to the patch version.
const EXPORTS: [&str; 2] = ["stead:function/discovery@0.1.", "stead:function/entity@0.1."];

/// How a guest is compiled, whatever its manifest says of release builds. Names of functions stay in
/// the module: without them the report of a trap is a list of numbers.
const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
];

/// Rust's own default is 1 MiB, which every hot entity would reserve.
const STACK_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The folder of the package.
    pub dir: PathBuf,
    /// The file to write; none is `<target folder>/stead/<package>.wasm`.
    pub out: Option<PathBuf>,
    /// Features of the package, passed on to cargo.
    pub features: Vec<String>,
}

/// Builds the component and returns where it is. Runs for seconds to minutes; cargo's own messages
/// go to stderr, the steps to `progress`.
///
/// # Errors
///
/// A sentence that says what is missing or wrong. The file of an earlier build is left as it was.
pub fn build(options: &BuildOptions, progress: &mut dyn FnMut(&str)) -> anyhow::Result<PathBuf> {
    let dir = fs::canonicalize(&options.dir)
        .with_context(|| format!("there is no folder {}", options.dir.display()))?;
    let package = Package::read(&dir)?;
    require_target(&dir)?;

    progress(&format!("compiling {} for {TARGET}", package.name));
    let module = compile(&package, &options.features)?;
    progress("encoding the component");
    let bytes =
        fs::read(&module).with_context(|| format!("{} cannot be read", module.display()))?;
    let component = encode(&bytes)?;

    let out = options.out.clone().unwrap_or_else(|| package.default_out());
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
    }
    fs::write(&out, &component).with_context(|| format!("{} cannot be written", out.display()))?;
    progress(&format!("{} ({} KiB)", out.display(), component.len().div_ceil(1024)));
    Ok(out)
}

/// What cargo says of the package in a folder.
struct Package {
    name: String,
    manifest: PathBuf,
    target_dir: PathBuf,
}

impl Package {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let manifest = dir.join("Cargo.toml");
        if !manifest.is_file() {
            bail!("{} has no Cargo.toml; name the folder of a cargo package", dir.display());
        }
        let mut cargo = tool(dir, "cargo");
        cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
        let metadata: Value = serde_json::from_str(&output(&mut cargo)?)
            .context("cargo metadata answered something that is not JSON")?;
        let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(package) = packages.iter().find(|package| is_path(package, &manifest)) else {
            bail!(
                "{} is a workspace and not a package; name the folder of one of its members",
                dir.display()
            );
        };
        let name = text(package, "name")?;
        let targets = package["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !targets.iter().any(is_library) {
            bail!("the package {name} has no library; the functions of a guest are in src/lib.rs");
        }
        let target_dir = text(&metadata, "target_directory")?.into();
        Ok(Self { name, manifest, target_dir })
    }

    fn dir(&self) -> &Path {
        self.manifest.parent().unwrap_or(Path::new("."))
    }

    fn default_out(&self) -> PathBuf {
        self.target_dir.join("stead").join(format!("{}.wasm", self.name))
    }
}

fn is_path(package: &Value, manifest: &Path) -> bool {
    package["manifest_path"].as_str().map(Path::new) == Some(manifest)
}

fn is_library(target: &Value) -> bool {
    let is = |kind: &Value| matches!(kind.as_str(), Some("lib" | "rlib" | "cdylib" | "dylib"));
    target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(is))
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    let found = value[field].as_str();
    Ok(found.with_context(|| format!("cargo metadata names no {field}"))?.to_owned())
}

/// Says how to get the target before cargo says that it cannot find `core`.
fn require_target(dir: &Path) -> anyhow::Result<()> {
    let mut rustc = tool(dir, "rustc");
    let libraries = output(rustc.args(["--print", "target-libdir", "--target", TARGET]))?;
    if !Path::new(libraries.trim()).is_dir() {
        bail!("Rust cannot compile for {TARGET} yet; run `rustup target add {TARGET}`");
    }
    Ok(())
}

/// Returns the core module's file.
fn compile(package: &Package, features: &[String]) -> anyhow::Result<PathBuf> {
    let mut cargo = tool(package.dir(), "cargo");
    // `cargo rustc` gives the last arguments to this package only: dependencies are compiled once,
    // whatever the link arguments. As a cdylib alone it can be optimised as a whole.
    cargo.args(["rustc", "--lib", "--crate-type", "cdylib", "--release", "--target", TARGET]);
    cargo.arg("--message-format=json-render-diagnostics");
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
    }
    cargo.args(["--", "-C", &format!("link-arg=-zstack-size={STACK_BYTES}")]);
    cargo.envs(PROFILE);
    let done = cargo.stderr(Stdio::inherit()).output().map_err(|error| absent("cargo", &error))?;
    if !done.status.success() {
        bail!("{} could not be compiled; cargo says why above", package.name);
    }
    String::from_utf8_lossy(&done.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| is_path(message, &package.manifest))
        .filter_map(|message| wasm_file(&message))
        .next_back()
        .with_context(|| format!("cargo compiled {}, but to no .wasm file", package.name))
}

fn wasm_file(artifact: &Value) -> Option<PathBuf> {
    let files = artifact["filenames"].as_array()?;
    let mut paths = files.iter().filter_map(Value::as_str).map(PathBuf::from);
    paths.find(|path| path.extension() == Some(OsStr::new("wasm")))
}

/// Makes a component of a core module that was linked against the world.
fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let component = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(ComponentEncoder::encode)
        .context(
            "the module cannot be made a component; if it wants imports, one of the package's \
             dependencies was written for browsers or for an operating system",
        )?;
    require_world(&component)?;
    Ok(component)
}

fn require_world(component: &[u8]) -> anyhow::Result<()> {
    let exports: Vec<_> = match wit_component::decode(component)? {
        DecodedWasm::Component(resolve, world) => {
            resolve.worlds[world].exports.keys().map(|key| resolve.name_world_key(key)).collect()
        }
        DecodedWasm::WitPackage(..) => Vec::new(),
    };
    for wanted in EXPORTS {
        if !exports.iter().any(|export| export.starts_with(wanted)) {
            bail!(
                "the package does not export {wanted}x; is there a `stead_sdk::export!(..)` in its \
                 src/lib.rs?"
            );
        }
    }
    Ok(())
}

/// A tool of Rust's, run in the package's folder: that is what decides on the toolchain.
fn tool(dir: &Path, name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(dir);
    command
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|error| absent(&name, &error))?;
    if !done.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn absent(name: &str, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("{name} cannot be run ({error}); get Rust from https://rustup.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(dir: &Path) -> String {
        let options = BuildOptions { dir: dir.into(), ..BuildOptions::default() };
        format!("{:#}", build(&options, &mut |_| ()).unwrap_err())
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(built(&dir.path().join("cart")).contains("cart"));
    }

    #[test]
    fn a_folder_without_a_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(built(dir.path()).contains("has no Cargo.toml"));
    }

    #[test]
    fn a_workspace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Cargo.toml"), "[workspace]\nmembers = []\n").unwrap();
        assert!(built(dir.path()).contains("name the folder of one of its members"));
    }

    #[test]
    fn a_package_without_a_library_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "[package]\nname = \"cart\"\nedition = \"2024\"\n[workspace]\n";
        fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::write(dir.path().join("src/main.rs"), "fn main() {}").unwrap();
        assert!(built(dir.path()).contains("the package cart has no library"));
    }

    #[test]
    fn a_module_without_the_world_is_refused() {
        let module = wat::parse_str("(module (memory (export \"memory\") 1))").unwrap();
        let error = format!("{:#}", encode(&module).unwrap_err());
        assert!(error.contains("does not export stead:function/discovery"), "{error}");
    }

    #[test]
    fn a_module_with_an_import_that_nobody_gives_is_refused() {
        let module = wat::parse_str("(module (import \"env\" \"now\" (func)))").unwrap();
        let error = format!("{:#}", encode(&module).unwrap_err());
        assert!(error.contains("wants imports"), "{error}");
    }
}
