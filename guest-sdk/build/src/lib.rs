//! Turns a .proto into what a Stead guest is written against, without protoc.
//!
//! Called from a guest's `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), stead_build::Error> {
//!     stead_build::compile(&["shop/cart.proto"], &["proto"])
//! }
//! ```
//!
//! For every package it writes what `stead_sdk::include_proto!("the.package")` includes: the
//! messages, as prost makes them, and for every service `Name`: a trait `Name` that an entity or an
//! action implements, or a workflow if one of the methods has the option `stead.workflow_role`; and
//! `NameClient`, which makes calls. The file descriptor set, with all imports and all options, is
//! embedded beside the services.
//!
//! `stead/options.proto`, `stead/workflow/v1/workflow.proto`, `google/api/*.proto` and `cloudstate/*.proto` can be imported without
//! having a copy of them.

mod bundled;
mod maps;
mod service;
mod workflow;

use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};

/// Compiles `files`, named relative to one of the folders `includes`.
///
/// # Errors
///
/// Says in which file and line the fault is.
pub fn compile(files: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
    let mut config = Config::new();
    for file in files {
        config.file(file);
    }
    for include in includes {
        config.include(include);
    }
    config.compile()
}

/// The same with choices.
pub struct Config {
    files: Vec<PathBuf>,
    includes: Vec<PathBuf>,
    out_dir: Option<PathBuf>,
    messages_only: bool,
    prost: prost_build::Config,
}

impl Config {
    pub fn new() -> Self {
        let mut prost = prost_build::Config::new();
        prost.enable_type_names();
        // A HashMap would encode the same state to different bytes each time.
        prost.btree_map(["."]);
        Self { files: Vec::new(), includes: Vec::new(), out_dir: None, messages_only: false, prost }
    }

    /// A file to compile, relative to one of the include folders.
    pub fn file(&mut self, file: impl AsRef<Path>) -> &mut Self {
        self.files.push(file.as_ref().to_owned());
        self
    }

    /// A folder in which files and imports are looked for.
    pub fn include(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        self.includes.push(folder.as_ref().to_owned());
        self
    }

    /// Where to write to, if not to `OUT_DIR`.
    pub fn out_dir(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        self.out_dir = Some(folder.as_ref().to_owned());
        self
    }

    /// Makes messages that need only the crate `prost`, and no services: for guests that are
    /// written without `stead-sdk`, and for clients.
    pub fn messages_only(&mut self) -> &mut Self {
        self.messages_only = true;
        self
    }

    /// The configuration of the messages, for whatever else prost offers.
    pub fn prost(&mut self) -> &mut prost_build::Config {
        &mut self.prost
    }

    /// Writes the code, and the file descriptor set as `<stem of the first file>.bin`.
    ///
    /// # Errors
    ///
    /// Says in which file and line the fault is.
    pub fn compile(&mut self) -> Result<(), Error> {
        let out_dir = match &self.out_dir {
            Some(folder) => folder.clone(),
            None => env::var_os("OUT_DIR")
                .map(PathBuf::from)
                .ok_or_else(|| Error("OUT_DIR is not set; call this from a build.rs".into()))?,
        };
        let Some(stem) = self.files.first().and_then(|file| file.file_stem()) else {
            return Err(Error("no .proto file was named".into()));
        };
        let descriptor_file = format!("{}.bin", stem.to_string_lossy());

        let mut resolver = ChainFileResolver::new();
        for include in &self.includes {
            resolver.add(IncludeFileResolver::new(include.clone()));
        }
        resolver.add(bundled::Bundled);
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).include_source_info(true);
        compiler.open_files(&self.files).map_err(|error| Error::of_proto(&error))?;
        for path in compiler.files().filter_map(|file| file.path()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }

        // The comments become documentation of the code, but need not travel in the module.
        let descriptors = compiler.file_descriptor_set();
        let encoded = compiler.include_source_info(false).encode_file_descriptor_set();
        write(&out_dir.join(&descriptor_file), &encoded)?;

        if !self.messages_only {
            let workflows = workflow::read(&compiler.descriptor_pool())?;
            // What is embedded is copied into the memory of every hot entity, but read only once, by
            // the host: it travels deflated.
            let descriptor_file = format!("{descriptor_file}.deflate");
            let deflated = miniz_oxide::deflate::compress_to_vec(&encoded, 9);
            write(&out_dir.join(&descriptor_file), &deflated)?;
            maps::derive_debug(&mut self.prost, &descriptors);
            self.prost
                .prost_path("::stead_sdk::prost")
                .prost_types_path("::stead_sdk::prost_types")
                .extern_path(".stead.workflow.v1", "::stead_sdk::workflow::v1")
                .service_generator(Box::new(service::Generator { descriptor_file, workflows }));
        }
        self.prost
            .out_dir(&out_dir)
            .compile_fds(descriptors)
            .map_err(|error| Error(format!("no code could be generated: {error}")))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes)
        .map_err(|error| Error(format!("{} could not be written: {error}", path.display())))
}

/// What is wrong with the .proto files, for people.
///
/// Its `Debug` form is the same text, so that a `build.rs` whose `main` returns it prints a sentence.
pub struct Error(String);

impl Error {
    fn of_proto(error: &protox::Error) -> Self {
        // protox puts file, line and column into the debug form, as protoc prints them.
        Self(format!("{error:?}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
