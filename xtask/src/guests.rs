//! Builds every example and every test guest into `target/guests/<name>.wasm`, with `stead build`,
//! as a user would.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::{cargo, steps, tools};

const EXAMPLES: &str = "examples";
const MISBEHAVING: &str = "tests/guests/misbehaving";
/// Built once more with functions of every kind, and with another version of its view.
const TCK: &str = "examples/tck-model";
/// Built once more for WASI, as guests of other languages are.
const WASIP2: &str = "shopping-cart";
/// Built for WASI alone, because it imports more of it than every guest may.
const OUTGOING: &str = "http-bridge";

pub fn dir() -> PathBuf {
    tools::target_dir().join("guests")
}

pub fn run() -> anyhow::Result<()> {
    steps::title("Guests of Stead");
    tools::ensure_toolchain()?;
    let stead =
        steps::long("host", "building the stead binary", "stead is built", cargo::build_host)?;
    build_all(&stead)
}

/// All of them, with a binary that is built already.
pub fn build_all(stead: &Path) -> anyhow::Result<()> {
    let mut examples: Vec<_> = std::fs::read_dir(tools::root().join(EXAMPLES))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    examples.sort();
    for example in examples {
        let name = example.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != OUTGOING {
            build(stead, &example, &name, None)?;
        }
    }
    for name in ["every-kind", "next-view"] {
        build(stead, &tools::root().join(TCK), &format!("tck-{name}"), Some(name))?;
    }
    build_wasip2(OUTGOING, OUTGOING)?;
    build_wasip2(WASIP2, &format!("{WASIP2}-wasip2"))?;
    let source = tools::root().join(MISBEHAVING);
    build(stead, &source, "misbehaving", None)?;
    for feature in misbehaviours()? {
        build(stead, &source, &format!("misbehaving-{feature}"), Some(&feature))?;
    }
    Ok(())
}

/// Builds those that loads consist of.
pub fn build_for_loads(stead: &Path) -> anyhow::Result<()> {
    for (example, name, feature) in [
        ("examples/shopping-cart", "shopping-cart", None),
        (TCK, "tck-model", None),
        (TCK, "tck-every-kind", Some("every-kind")),
        ("examples/checkout", "checkout", None),
    ] {
        build(stead, &tools::root().join(example), name, feature)?;
    }
    Ok(())
}

/// Builds one component and says where it is.
pub fn build(
    stead: &Path,
    source: &Path,
    name: &str,
    feature: Option<&str>,
) -> anyhow::Result<PathBuf> {
    let out = dir().join(format!("{name}.wasm"));
    std::fs::create_dir_all(dir())?;
    let mut command = Command::new(stead);
    command.arg("build").arg(source).arg("--out").arg(&out).current_dir(tools::root());
    if let Some(feature) = feature {
        command.args(["--features", feature]);
    }
    let typed = tools::show(&command);
    steps::short(
        "guest",
        |text| {
            tools::output(&mut command)?;
            let bytes = std::fs::metadata(&out)
                .with_context(|| format!("stead build wrote no {}", out.display()))?
                .len();
            *text = format!("target/guests/{name}.wasm, {} KiB", bytes.div_ceil(1024));
            Ok(out)
        },
        &typed,
    )
}

/// Builds a package with cargo alone: the target wasm32-wasip2 gives a component.
fn build_wasip2(package: &str, name: &str) -> anyhow::Result<()> {
    const TARGET: &str = "wasm32-wasip2";
    let mut command = cargo::cargo(&["build", "--release", "--lib", "--target", TARGET]);
    command.args(["--package", package]);
    let typed = tools::show(&command);
    steps::short(
        "guest",
        |text| {
            tools::output(&mut command)?;
            let file = format!("{}.wasm", package.replace('-', "_"));
            let built = tools::target_dir().join(TARGET).join("release").join(file);
            let bytes = std::fs::copy(&built, dir().join(format!("{name}.wasm")))
                .with_context(|| format!("cargo built no {}", built.display()))?;
            *text = format!("target/guests/{name}.wasm, {} KiB", bytes.div_ceil(1024));
            Ok(())
        },
        &typed,
    )
}

/// The test guest does one wrong thing for each of its cargo features.
fn misbehaviours() -> anyhow::Result<Vec<String>> {
    let metadata =
        tools::output(&mut cargo::cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let features = packages
        .iter()
        .find(|package| package["name"] == "misbehaving-guest")
        .and_then(|package| package["features"].as_object())
        .context("the package misbehaving-guest is missing")?;
    Ok(features.keys().filter(|name| *name != "default").cloned().collect())
}
