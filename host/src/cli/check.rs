//! `stead check`: what a module says of itself, judged as a host would, without one.

use bytes::Bytes;
use serde_json::{Value, json};
use stead_proto::admin::v1 as api;

use crate::cli::args::CheckArgs;
use crate::cli::deploy::short;
use crate::cli::failed::Failed;
use crate::cli::module_file::ModuleFile;
use crate::cli::output::Output;
use crate::cli::{render, services, units};
use crate::gateway::admin::describe_service;
use crate::registry::{DeployError, validate};
use crate::wasm::engine::EngineConfig;
use crate::wasm::{Component, Engine};
use crate::words::Digest;

/// What a module holds, as the admin API would tell it.
struct Contents {
    sdk: String,
    services: Vec<api::Service>,
}

pub async fn run(args: CheckArgs, out: &Output) -> Result<(), Failed> {
    let file = ModuleFile::read(&args.file)?;
    let digest = Digest::of(&file.bytes);
    let refused = |error: DeployError| faults(&file.path, &error);
    let component = compile(digest, file.bytes.clone()).await?.map_err(refused)?;
    let name = file.name.clone();
    // A guest may take as long as its deadline to describe itself.
    let contents = tokio::task::spawn_blocking(move || judge(digest, &name, component))
        .await
        .map_err(|error| Failed::local(format!("cannot judge {}: {error}", file.path)))?
        .map_err(refused)?;
    if out.is_json() {
        out.json(&json!({
            "file": file.path,
            "digest": digest.to_string(),
            "bytes": file.bytes.len(),
            "sdk": contents.sdk,
            "services": contents.services.iter().map(render::service).collect::<Value>(),
        }));
        return Ok(());
    }
    let sdk = if contents.sdk.is_empty() { "no SDK named" } else { &contents.sdk };
    out.say(&format!(
        "{} can be deployed: {}, {}, {sdk}\n",
        file.path,
        short(&digest.to_string()),
        units::size(file.bytes.len() as u64),
    ));
    services::print(&contents.services, out);
    out.text("");
    services::print_methods(&contents.services, out);
    Ok(())
}

/// The outer error is this machine's, the inner one the module's.
async fn compile(digest: Digest, bytes: Bytes) -> Result<Result<Component, DeployError>, Failed> {
    let config =
        EngineConfig { cache_dir: None, compiler: std::env::current_exe().ok(), instances_max: 1 };
    let engine = Engine::new(config)?;
    Ok(engine.load(digest, bytes).await.map_err(DeployError::from))
}

fn judge(digest: Digest, name: &str, component: Component) -> Result<Contents, DeployError> {
    let description = component.describe().map_err(DeployError::Describe)?;
    let checked = validate::check(&description).map_err(DeployError::Invalid)?;
    let (module, services) = validate::assemble(digest, name, component, &description, checked);
    Ok(Contents {
        sdk: module.sdk.clone(),
        services: services.iter().map(|service| describe_service(service)).collect(),
    })
}

/// One fault on the line of the file, several below it.
fn faults(path: &str, error: &DeployError) -> Failed {
    match error {
        DeployError::Invalid(faults) if faults.len() > 1 => Failed::refused(format!(
            "{path} has {} faults:\n  {}",
            faults.len(),
            faults.join("\n  ")
        )),
        other => Failed::refused(format!("{path}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failed::Exit;
    use crate::cli::output::Format;

    async fn checked(bytes: &[u8]) -> Failed {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let args = CheckArgs { file: file.path().into() };
        run(args, &Output::new(Format::Text)).await.unwrap_err()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_no_component_is_refused_with_the_reason() {
        for (bytes, reason) in [
            (&b""[..], "the module is empty"),
            (b"#!/bin/sh", "not a WebAssembly file"),
            (b"\0asm\x01\0\0\0", "core WebAssembly module"),
        ] {
            let failed = checked(bytes).await;
            assert_eq!(failed.exit, Exit::Refused);
            assert!(failed.message.contains(reason), "{failed}");
        }
    }

    #[test]
    fn every_fault_is_told() {
        let error = DeployError::Invalid(vec!["no key in A".into(), "no key in B".into()]);
        let failed = faults("cart.wasm", &error);
        assert_eq!(failed.message, "cart.wasm has 2 faults:\n  no key in A\n  no key in B");
    }
}
