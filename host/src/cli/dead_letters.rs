//! `stead dead-letters ..`: effects that were given up.

use serde_json::{Value, json};
use stead_proto::admin::v1 as api;

use crate::cli::admin::Admin;
use crate::cli::args::{DeadLetterArgs, DeadLettersCommand, DeadLettersListArgs};
use crate::cli::failed::Failed;
use crate::cli::output::{Output, printable};
use crate::cli::render;
use crate::words::limits;

pub async fn run(command: DeadLettersCommand, out: &Output) -> Result<(), Failed> {
    match command {
        DeadLettersCommand::List(args) => list(args, out).await,
        DeadLettersCommand::Retry(args) => retry(args, out).await,
        DeadLettersCommand::Drop(args) => drop_one(args, out).await,
    }
}

async fn list(args: DeadLettersListArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let limit = args.limit as usize;
    let mut letters = Vec::new();
    let mut page_token = args.page_token;
    loop {
        let page_size = (limit - letters.len()).min(limits::LIST_PAGE_MAX) as i32;
        let request = api::ListDeadLettersRequest { page_size, page_token };
        let answer = admin.client.list_dead_letters(request).await;
        let page = answer.map_err(|status| admin.failed(status))?.into_inner();
        letters.extend(page.dead_letters);
        page_token = page.next_page_token;
        if page_token.is_empty() || letters.len() >= limit {
            break;
        }
    }
    if out.is_json() {
        let letters: Value = letters.iter().map(render::effect).collect();
        out.json(&json!({ "dead_letters": letters, "next_page_token": page_token }));
        return Ok(());
    }
    if letters.is_empty() {
        out.say("there are no dead letters");
        return Ok(());
    }
    let rows = letters.iter().map(row).collect();
    out.table(["ID", "FROM", "TO", "CREATED", "TRIES", "ERROR"], rows);
    if !page_token.is_empty() {
        out.say(&format!("there are more: go on with --page-token {page_token}"));
    }
    Ok(())
}

fn row(letter: &api::Effect) -> [String; 6] {
    [
        letter.id.clone(),
        printable(&format!("{}/{}", letter.journal, letter.entity_id)),
        printable(&format!("{}/{}", letter.service, letter.method)),
        render::time(letter.create_time.as_ref()).unwrap_or_default(),
        letter.tries.to_string(),
        printable(&letter.error),
    ]
}

async fn retry(args: DeadLetterArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let request = api::RetryDeadLetterRequest { id: args.id.clone() };
    admin.client.retry_dead_letter(request).await.map_err(|status| admin.failed(status))?;
    done(&args.id, "is tried again", out);
    Ok(())
}

async fn drop_one(args: DeadLetterArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let request = api::DropDeadLetterRequest { id: args.id.clone() };
    admin.client.drop_dead_letter(request).await.map_err(|status| admin.failed(status))?;
    done(&args.id, "is dropped", out);
    Ok(())
}

fn done(id: &str, what: &str, out: &Output) {
    match out.is_json() {
        true => out.json(&json!({ "id": id })),
        false => out.say(&format!("dead letter {id} {what}")),
    }
}
