//! Where `cargo xtask` put what the tests need.

use std::path::{Path, PathBuf};

fn target_dir() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent");
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

fn there(variable: &str, default: PathBuf) -> PathBuf {
    let path = std::env::var_os(variable).map_or(default, PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`, which builds it",
        path.display()
    );
    path
}

/// The `stead` binary.
pub fn binary() -> PathBuf {
    there("STEAD_TEST_BINARY", target_dir().join("debug/stead"))
}

/// A component that `cargo xtask guests` built.
pub fn guest(name: &str) -> PathBuf {
    let path = there("STEAD_TEST_GUESTS", target_dir().join("guests")).join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `cargo xtask guests`", path.display());
    path
}

/// The same component with a custom section more: another digest, the same behaviour.
pub fn another_version(name: &str, version: u8) -> Vec<u8> {
    let bytes = std::fs::read(guest(name)).expect("the component can be read");
    let section = [&[7][..], b"version", &[version]].concat();
    [&bytes[..], &[0, section.len() as u8], &section].concat()
}

/// The directory with the clients from PyPI and npm.
pub fn clients() -> PathBuf {
    there("STEAD_TEST_CLIENTS", target_dir().join("clients"))
}

/// A file of this repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").join(path)
}
