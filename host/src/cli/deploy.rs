//! `stead deploy`, `versions` and `rollback`: what is live, and how it came to be.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use stead_proto::admin::v1 as api;
use stead_proto::admin::v1::upload_module_request::Part;

use crate::cli::admin::Admin;
use crate::cli::args::{DeployArgs, RollbackArgs, VersionsArgs};
use crate::cli::confirm::confirm;
use crate::cli::examples;
use crate::cli::failed::Failed;
use crate::cli::module_file::ModuleFile;
use crate::cli::output::Output;
use crate::cli::{render, units};
use crate::words::{Code, Digest, limits};

pub async fn run(args: DeployArgs, out: &Output) -> Result<(), Failed> {
    let files =
        args.files.iter().map(|file| ModuleFile::read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut admin = Admin::connect(&args.port).await?;
    let mut modules = Vec::new();
    for file in &files {
        modules.push(upload(&mut admin, file, out).await?);
    }
    let request = api::DeployRequest {
        modules: modules.iter().map(|module| module.digest.clone()).collect(),
        plan: true,
        force: args.force,
        note: args.note.clone(),
        allow: allowed(&args.allow),
    };
    let mut answer = deploy(&mut admin, request.clone()).await?;
    if !args.plan {
        confirm_removals(&answer.changes, args.yes)?;
        answer = deploy(&mut admin, api::DeployRequest { plan: false, ..request }).await?;
    }
    if out.is_json() {
        let modules: Vec<Value> =
            files.iter().zip(&modules).map(|(file, module)| uploaded(file, module)).collect();
        out.json(&json!({
            "revision": answer.revision,
            "plan": args.plan,
            "modules": modules,
            "changes": render::changes(&answer.changes),
            "grants": render::grants(&answer.grants),
        }));
        return Ok(());
    }
    print_changes(&answer.changes, out);
    print_grants(&answer.grants, out);
    if args.plan {
        out.say(&format!("\nthis would be revision {}; nothing was changed", answer.revision));
        return Ok(());
    }
    out.say(&format!("\nrevision {} is live", answer.revision));
    let live = admin.services().await?.services;
    let changed: Vec<&api::Service> = live
        .iter()
        .filter(|service| answer.changes.iter().any(|change| change.service == service.name))
        .collect();
    if let Some(text) = examples::first_calls(&changed, &args.services.url) {
        out.say(&format!("try:\n{text}"));
    }
    Ok(())
}

fn uploaded(file: &ModuleFile, module: &api::UploadModuleResponse) -> Value {
    json!({
        "file": file.path,
        "name": module.name,
        "digest": module.digest,
        "bytes": module.bytes,
        "sdk": module.sdk,
        "already_present": module.already_present,
    })
}

async fn upload(
    admin: &mut Admin,
    file: &ModuleFile,
    out: &Output,
) -> Result<api::UploadModuleResponse, Failed> {
    let progress = Progress::start(file, out);
    let header = api::UploadModuleHeader {
        name: file.name.clone(),
        digest: Digest::of(&file.bytes).to_string(),
        bytes: file.bytes.len() as u64,
    };
    let mut parts = vec![Part::Header(header)];
    let mut rest = file.bytes.clone();
    while !rest.is_empty() {
        let length = rest.len().min(limits::CLIENT_UPLOAD_CHUNK_BYTES);
        parts.push(Part::Data(rest.split_to(length).into()));
    }
    let bar = progress.bar.clone();
    let stream = tokio_stream::iter(parts.into_iter().map(move |part| {
        if let Part::Data(data) = &part {
            bar.inc(data.len() as u64);
            if bar.position() == bar.length().unwrap_or_default() {
                bar.set_message("compiling");
            }
        }
        api::UploadModuleRequest { part: Some(part) }
    }));
    let answer = admin.client.upload_module(stream).await;
    progress.bar.finish_and_clear();
    let module = answer
        .map_err(|status| {
            let failed = admin.failed(status);
            Failed { message: format!("{}: {}", file.path, failed.message), ..failed }
        })?
        .into_inner();
    let before = if module.already_present { " (was there already)" } else { "" };
    out.say(&format!(
        "uploaded {} as {}, {}{before}",
        file.name,
        short(&module.digest),
        units::size(module.bytes)
    ));
    Ok(module)
}

/// A bar on a terminal, a line elsewhere, nothing in JSON.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn start(file: &ModuleFile, out: &Output) -> Self {
        if out.is_json() || !std::io::stderr().is_terminal() {
            out.say(&format!("uploading {}, then compiling it", file.name));
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::with_draw_target(
            Some(file.bytes.len() as u64),
            ProgressDrawTarget::stderr(),
        );
        let template = "{spinner} {prefix} [{bar:30}] {bytes}/{total_bytes} {msg} {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(file.name.clone());
        bar.set_message("uploading");
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        Self { bar }
    }
}

async fn deploy(
    admin: &mut Admin,
    request: api::DeployRequest,
) -> Result<api::DeployResponse, Failed> {
    let answer = admin.client.deploy(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| admin.failed(status))
}

/// A service that disappears is worth a question.
fn confirm_removals(changes: &[api::Change], yes: bool) -> Result<(), Failed> {
    let removed: Vec<&str> = changes
        .iter()
        .filter(|change| render::action(change) == "removed")
        .map(|change| change.service.as_str())
        .collect();
    if removed.is_empty() || yes {
        return Ok(());
    }
    let removed = removed.join(", ");
    confirm(&format!("this removes {removed}"), "see --plan")
}

/// `http=https://a.test,https://b.test` has been split at its commas.
fn allowed(given: &[String]) -> Vec<String> {
    let mut what = "";
    let whole = given.iter().map(|part| match part.split_once('=') {
        Some((kind, _)) if !kind.contains(':') => {
            what = kind;
            part.clone()
        }
        _ => format!("{what}={part}"),
    });
    whole.collect()
}

fn print_grants(grants: &[api::Grant], out: &Output) {
    for grant in grants {
        out.say(&format!("{} may reach {}", short(&grant.module_digest), grant.allow));
    }
}

fn print_changes(changes: &[api::Change], out: &Output) {
    let rows = changes
        .iter()
        .map(|change| {
            [
                render::action(change).to_string(),
                change.service.clone(),
                change.kind.clone(),
                change.journal.clone(),
                short(&change.module_digest),
            ]
        })
        .collect();
    out.table(["CHANGE", "SERVICE", "KIND", "JOURNAL", "MODULE"], rows);
}

/// The first 12 digits of a digest: enough for people.
pub fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

pub async fn versions(args: VersionsArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let mut revisions = Vec::new();
    let mut page_token = String::new();
    let limit = args.limit as usize;
    loop {
        let page_size = (limit - revisions.len()).min(limits::LIST_PAGE_MAX) as i32;
        let request = api::ListRevisionsRequest { page_size, page_token };
        let answer = admin.client.list_revisions(request).await;
        let page = answer.map_err(|status| admin.failed(status))?.into_inner();
        revisions.extend(page.revisions);
        page_token = page.next_page_token;
        if page_token.is_empty() || revisions.len() >= limit {
            break;
        }
    }
    if out.is_json() {
        let revisions: Value = revisions.iter().map(render::revision).collect();
        out.json(&json!({ "revisions": revisions }));
        return Ok(());
    }
    if revisions.is_empty() {
        out.say("nothing was deployed yet; deploy a module with `stead deploy FILE`");
        return Ok(());
    }
    let rows = revisions.iter().map(version_row).collect();
    out.table(["REVISION", "", "CREATED", "MODULES", "NOTE"], rows);
    Ok(())
}

fn version_row(revision: &api::Revision) -> [String; 5] {
    let module = |module: &api::Module| {
        let size = units::size(module.bytes);
        let mut text = format!("{} {} ({size})", module.name, short(&module.digest));
        for grant in revision.grants.iter().filter(|grant| grant.module_digest == module.digest) {
            text.push_str(&format!(" +{}", grant.allow));
        }
        text
    };
    let modules: Vec<String> = revision.modules.iter().map(module).collect();
    let live = if revision.live { "live" } else { "" };
    [
        revision.revision.to_string(),
        live.into(),
        render::time(revision.create_time.as_ref()).unwrap_or_default(),
        modules.join(", "),
        revision.note.clone(),
    ]
}

pub async fn roll_back(args: RollbackArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let request =
        api::RollBackRequest { revision: args.revision.unwrap_or_default(), force: args.force };
    let answer = admin.client.roll_back(request).await.map_err(|status| {
        if args.revision.is_none() && status.code() == tonic::Code::NotFound {
            return Failed::status(Code::NotFound, "there is no earlier revision to go back to");
        }
        admin.failed(status)
    });
    let answer = answer?.into_inner();
    if out.is_json() {
        out.json(&json!({
            "revision": answer.revision,
            "changes": render::changes(&answer.changes),
        }));
        return Ok(());
    }
    print_changes(&answer.changes, out);
    out.say(&format!("\nrevision {} is live", answer.revision));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(action: api::change::Action) -> api::Change {
        api::Change { action: action.into(), service: "shop.Cart".into(), ..Default::default() }
    }

    #[test]
    fn the_live_revision_is_marked_in_plain_text() {
        let row = version_row(&api::Revision { revision: 2, live: true, ..Default::default() });
        assert_eq!(row[..2], ["2", "live"]);
    }

    #[test]
    fn only_removals_need_a_yes() {
        let harmless = [change(api::change::Action::Added), change(api::change::Action::Replaced)];
        assert_eq!(confirm_removals(&harmless, false), Ok(()));
        assert_eq!(confirm_removals(&[change(api::change::Action::Removed)], true), Ok(()));
    }
}
