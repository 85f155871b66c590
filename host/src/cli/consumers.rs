//! `stead consumers ..`: who consumes event logs, and what lags behind.

use serde_json::{Value, json};
use stead_proto::admin::v1 as api;

use crate::cli::admin::Admin;
use crate::cli::args::{
    ConsumeFrom, ConsumersCommand, ConsumersDeleteArgs, ConsumersListArgs, ConsumersResetArgs,
    ConsumersSkipArgs,
};
use crate::cli::confirm::confirm;
use crate::cli::failed::Failed;
use crate::cli::output::{Output, printable};
use crate::cli::render;

const LIST: &str = "see `stead consumers list`";

pub async fn run(command: ConsumersCommand, out: &Output) -> Result<(), Failed> {
    match command {
        ConsumersCommand::List(args) => list(args, out).await,
        ConsumersCommand::Reset(args) => reset(args, out).await,
        ConsumersCommand::Skip(args) => skip(args, out).await,
        ConsumersCommand::Delete(args) => delete(args, out).await,
    }
}

async fn list(args: ConsumersListArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let answer = admin.client.list_consumers(api::ListConsumersRequest {}).await;
    let consumers = answer.map_err(|status| admin.failed(status))?.into_inner().consumers;
    if out.is_json() {
        let consumers: Value = consumers.iter().map(consumer).collect();
        out.json(&json!({ "consumers": consumers }));
        return Ok(());
    }
    if consumers.is_empty() {
        out.say("nothing that is deployed consumes an event log");
        return Ok(());
    }
    let rows = consumers.iter().map(row).collect();
    out.table(["GROUP", "LOG", "SERVICE", "STATE", "BEHIND", "LAGGING"], rows);
    for consumer in &consumers {
        for laggard in &consumer.laggards {
            out.warn(&printable(&format!(
                "{}: event {} of {} failed {} times: {}",
                consumer.group, laggard.seq, laggard.entity_id, laggard.tries, laggard.error
            )));
        }
    }
    Ok(())
}

fn row(consumer: &api::Consumer) -> [String; 6] {
    let state = match (consumer.service.is_empty(), consumer.view, consumer.serving) {
        (true, ..) => "not live",
        (_, true, true) => "served",
        (_, true, false) => "being made",
        (_, false, _) if consumer.behind > 0 => "behind",
        (_, false, _) => "up to date",
    };
    let more = if consumer.more_laggards { "+" } else { "" };
    [
        consumer.group.clone(),
        consumer.event_log.clone(),
        consumer.service.clone(),
        state.into(),
        consumer.behind.to_string(),
        format!("{}{more}", consumer.laggards.len()),
    ]
}

fn consumer(consumer: &api::Consumer) -> Value {
    let laggard = |laggard: &api::ConsumerLaggard| {
        json!({
            "entity_id": laggard.entity_id,
            "seq": laggard.seq,
            "tries": laggard.tries,
            "error": laggard.error,
            "next_try_time": render::time(laggard.next_try_time.as_ref()),
        })
    };
    json!({
        "group": consumer.group,
        "event_log": consumer.event_log,
        "service": consumer.service,
        "view": consumer.view,
        "serving": consumer.serving,
        "behind": consumer.behind,
        "laggards": consumer.laggards.iter().map(laggard).collect::<Value>(),
        "more_laggards": consumer.more_laggards,
    })
}

async fn reset(args: ConsumersResetArgs, out: &Output) -> Result<(), Failed> {
    let from = match args.from {
        ConsumeFrom::Beginning => "beginning",
        ConsumeFrom::Now => "now",
    };
    if !args.yes {
        let what = match args.from {
            ConsumeFrom::Beginning => "consumes every event again",
            ConsumeFrom::Now => "never consumes what it has not consumed yet",
        };
        confirm(&format!("{} then {what}", args.group), LIST)?;
    }
    let mut admin = Admin::connect(&args.port).await?;
    let to = match args.from {
        ConsumeFrom::Beginning => api::reset_consumer_request::To::Beginning,
        ConsumeFrom::Now => api::reset_consumer_request::To::Now,
    };
    let request = api::ResetConsumerRequest {
        group: args.group.clone(),
        to: to.into(),
        partitions: Vec::new(),
    };
    admin.client.reset_consumer(request).await.map_err(|status| admin.failed(status))?;
    match out.is_json() {
        true => out.json(&json!({ "group": args.group, "from": from })),
        false => out.say(&format!("{} begins again from {from}", args.group)),
    }
    Ok(())
}

async fn skip(args: ConsumersSkipArgs, out: &Output) -> Result<(), Failed> {
    let ConsumersSkipArgs { group, entity_id, seq, yes, port } = args;
    if !yes {
        confirm(&format!("{group} then never consumes event {seq} of {entity_id}"), LIST)?;
    }
    let mut admin = Admin::connect(&port).await?;
    let request = api::SkipEventRequest { group: group.clone(), entity_id: entity_id.clone(), seq };
    admin.client.skip_event(request).await.map_err(|status| admin.failed(status))?;
    match out.is_json() {
        true => out.json(&json!({ "group": group, "entity_id": entity_id, "seq": seq })),
        false => out.say(&format!("{group} goes on behind event {seq} of {entity_id}")),
    }
    Ok(())
}

async fn delete(args: ConsumersDeleteArgs, out: &Output) -> Result<(), Failed> {
    let ConsumersDeleteArgs { group, yes, port } = args;
    if !yes {
        confirm(&format!("{group} then begins anew should it ever be deployed again"), LIST)?;
    }
    let mut admin = Admin::connect(&port).await?;
    let request = api::DeleteConsumerRequest { group: group.clone() };
    admin.client.delete_consumer(request).await.map_err(|status| admin.failed(status))?;
    match out.is_json() {
        true => out.json(&json!({ "group": group })),
        false => out.say(&format!("{group} is deleted")),
    }
    Ok(())
}
