//! `stead entity ..`: a look at entities, and into their past.

use serde_json::{Value, json};
use stead_proto::admin::v1 as api;

use crate::cli::admin::Admin;
use crate::cli::args::{
    EntityArgs, EntityCommand, EntityEventsArgs, EntityListArgs, EntityName, EntityStateArgs,
};
use crate::cli::failed::Failed;
use crate::cli::output::{Output, Tone, printable};
use crate::cli::{render, units};
use crate::gateway::admin::json::to_json;
use crate::words::limits;

pub async fn run(command: EntityCommand, out: &Output) -> Result<(), Failed> {
    match command {
        EntityCommand::List(args) => list(args, out).await,
        EntityCommand::Get(args) => get(args, out).await,
        EntityCommand::Events(args) => events(args, out).await,
        EntityCommand::State(args) => state(args, out).await,
        EntityCommand::Passivate(args) => passivate(args, out).await,
    }
}

async fn list(args: EntityListArgs, out: &Output) -> Result<(), Failed> {
    use api::list_entities_request::Temperature;
    let mut admin = Admin::connect(&args.port).await?;
    let entity_type = match &args.entity_type {
        Some(typed) => admin.entity_type(typed).await?,
        None => String::new(),
    };
    let temperature = match (args.hot, args.cold) {
        (true, _) => Temperature::Hot,
        (_, true) => Temperature::Cold,
        (false, false) => Temperature::Any,
    };
    let limit = args.limit as usize;
    let mut entities = Vec::new();
    let mut page_token = args.page_token;
    loop {
        let request = api::ListEntitiesRequest {
            entity_type: entity_type.clone(),
            id_prefix: args.prefix.clone(),
            temperature: temperature.into(),
            page_size: (limit - entities.len()).min(limits::LIST_PAGE_MAX) as i32,
            page_token,
        };
        let answer = admin.client.list_entities(request).await;
        let page = answer.map_err(|status| admin.failed(status))?.into_inner();
        entities.extend(page.entities);
        page_token = page.next_page_token;
        if page_token.is_empty() || entities.len() >= limit {
            break;
        }
    }
    if out.is_json() {
        let entities: Value = entities.iter().map(render::entity_summary).collect();
        out.json(&json!({ "entities": entities, "next_page_token": page_token }));
        return Ok(());
    }
    if entities.is_empty() {
        out.say("there are no such entities");
        return Ok(());
    }
    let rows = entities.iter().map(summary_row).collect();
    out.table(["JOURNAL", "ID", "EVENTS", "HOT", "MEMORY", "IDLE"], rows);
    if !page_token.is_empty() {
        out.say(&format!("there are more: go on with --page-token {page_token}"));
    }
    Ok(())
}

fn summary_row(entity: &api::EntitySummary) -> [String; 6] {
    let journal = match entity.service.is_empty() {
        true => format!("{} (not live)", entity.journal),
        false => entity.journal.clone(),
    };
    let (hot, memory, idle) = match entity.hot {
        true => ("yes", units::size(entity.memory_bytes), idle(entity.idle.as_ref())),
        false => ("no", String::new(), String::new()),
    };
    [journal, entity.id.clone(), entity.seq.to_string(), hot.into(), memory, idle]
}

fn idle(duration: Option<&prost_types::Duration>) -> String {
    render::millis(duration).map(|ms| format!("{:.1}s", ms as f64 / 1_000.0)).unwrap_or_default()
}

async fn get(args: EntityArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let (entity_type, id) = address(&mut admin, args.name).await?;
    let answer = admin.client.get_entity(api::GetEntityRequest { entity_type, id }).await;
    let entity = answer.map_err(|status| admin.failed(status))?.into_inner();
    if out.is_json() {
        out.json(&render::entity(&entity));
        return Ok(());
    }
    out.text(&described(&entity, out));
    Ok(())
}

fn described(entity: &api::Entity, out: &Output) -> String {
    let mut lines = vec![
        ("entity", format!("{}/{}", entity.journal, entity.id)),
        ("service", if_any(&entity.service, "none is live for this journal")),
        ("events", entity.seq.to_string()),
    ];
    if entity.snapshot_seq > 0 {
        lines.push(("snapshot", format!("after event {}", entity.snapshot_seq)));
    }
    let memory = match entity.hot {
        true => format!(
            "hot, {}, idle for {}, {} queued",
            units::size(entity.memory_bytes),
            idle(entity.idle.as_ref()),
            entity.queued
        ),
        false => "cold".into(),
    };
    lines.push(("memory", memory));
    for (place, timer) in entity.timers.iter().enumerate() {
        let name = if place == 0 { "timers" } else { "" };
        lines.push((name, timer_line(timer)));
    }
    for (place, effect) in entity.effects.iter().enumerate() {
        let name = if place == 0 { "effects" } else { "" };
        lines.push((name, effect_line(effect)));
    }
    if let Some(crash) = &entity.last_crash {
        let when = render::time(crash.time.as_ref()).unwrap_or_default();
        lines.push(("last crash", format!("{when} {} during {}", crash.what, crash.during)));
        lines.push(("", crash.reason.clone()));
        if crash.consecutive > 0 {
            lines.push(("", format!("{} since the last success", crash.consecutive)));
        }
        if let Some(retry) = render::time(crash.retry_time.as_ref()) {
            lines.push(("", format!("loaded again at {retry} at the earliest")));
        }
        lines.extend(crash.backtrace.lines().map(|line| ("", line.to_string())));
    }
    let line = |(name, value): (&str, String)| {
        let name = out.paint(Tone::Quiet, &format!("{name:<12}"));
        format!("{name}{}", printable(&value))
    };
    lines.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn timer_line(timer: &api::EntityTimer) -> String {
    let due = render::time(timer.due_time.as_ref()).unwrap_or_default();
    let every = render::millis(timer.every.as_ref()).map(|ms| format!(", every {ms} ms"));
    let failed = match timer.tries {
        0 => String::new(),
        tries => format!("; failed {tries} times: {}", timer.error),
    };
    format!("{} {} at {due}{}{failed}", timer.name, timer.method, every.unwrap_or_default())
}

fn effect_line(effect: &api::Effect) -> String {
    let what = format!("{}/{}", effect.service, effect.method);
    match (effect.tries, effect.dead_letter) {
        (0, _) => format!("{what} is on its way"),
        (tries, false) => {
            let next = render::time(effect.next_try_time.as_ref()).unwrap_or_default();
            format!("{what} failed {tries} times, next at {next}: {}", effect.error)
        }
        (tries, true) => format!("{what} was given up after {tries} tries: {}", effect.error),
    }
}

fn if_any(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.into() } else { text.into() }
}

async fn events(args: EntityEventsArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let (entity_type, id) = address(&mut admin, args.name).await?;
    let limit = args.limit as usize;
    let mut events = Vec::new();
    let mut from = args.from;
    loop {
        let request = api::ListEventsRequest {
            entity_type: entity_type.clone(),
            id: id.clone(),
            from,
            page_size: (limit - events.len()).min(limits::LIST_PAGE_MAX) as i32,
        };
        let answer = admin.client.list_events(request).await;
        let page = answer.map_err(|status| admin.failed(status))?.into_inner();
        let nothing_new = page.events.is_empty();
        events.extend(page.events);
        from = page.next_from;
        if from == 0 || nothing_new || events.len() >= limit {
            break;
        }
    }
    if out.is_json() {
        let events: Value = events.iter().map(render::event).collect();
        out.json(&json!({ "events": events, "next_from": from }));
        return Ok(());
    }
    if events.is_empty() {
        out.say("no events");
        return Ok(());
    }
    out.table(["SEQ", "TIME", "TYPE", "EVENT"], events.iter().map(event_row).collect());
    if from > 0 {
        out.say(&format!("there are more: go on with --from {from}"));
    }
    Ok(())
}

fn event_row(event: &api::Event) -> [String; 4] {
    let content = match &event.json {
        Some(json) => to_json(json).to_string(),
        None => format!("({}, {})", units::size(event.data.len() as u64), event.note),
    };
    [
        event.seq.to_string(),
        render::time(event.time.as_ref()).unwrap_or_default(),
        event.r#type.clone(),
        content,
    ]
}

async fn state(args: EntityStateArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let (entity_type, id) = address(&mut admin, args.name).await?;
    let request = api::GetStateRequest { entity_type, id, at: args.at };
    let answer = admin.client.get_state(request).await;
    let state = answer.map_err(|status| admin.failed(status))?.into_inner();
    if out.is_json() {
        out.json(&render::state(&state));
        return Ok(());
    }
    out.say(&format!("after event {}: {}", state.seq, if_any(&state.r#type, "no state")));
    match &state.json {
        Some(json) => out.answer(&to_json(json)),
        None if state.data.is_empty() => out.say(&state.note),
        None => {
            let size = units::size(state.data.len() as u64);
            out.say(&format!("{size} that cannot be shown as JSON: {}", state.note));
        }
    }
    Ok(())
}

async fn passivate(args: EntityArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let (entity_type, id) = address(&mut admin, args.name).await?;
    let answer = admin.client.passivate(api::PassivateRequest { entity_type, id }).await;
    let was_hot = answer.map_err(|status| admin.failed(status))?.into_inner().was_hot;
    if out.is_json() {
        out.json(&json!({ "was_hot": was_hot }));
    } else if was_hot {
        out.say("dropped from memory; its next command loads it again");
    } else {
        out.say("it was not in memory");
    }
    Ok(())
}

/// The type resolved, and the id.
async fn address(admin: &mut Admin, name: EntityName) -> Result<(String, String), Failed> {
    let (typed, id) = split(name)?;
    Ok((admin.entity_type(&typed).await?, id))
}

/// Types hold no slash, ids may.
fn split(name: EntityName) -> Result<(String, String), Failed> {
    match name.id {
        Some(id) => Ok((name.entity_type, id)),
        None => match name.entity_type.split_once('/') {
            Some((of, id)) if !of.is_empty() && !id.is_empty() => Ok((of.into(), id.into())),
            _ => Err(Failed::usage("name the entity as TYPE ID, as in `ShoppingCart ada`")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failed::Exit;
    use crate::cli::output::Format;

    fn name(entity_type: &str, id: Option<&str>) -> EntityName {
        EntityName { entity_type: entity_type.into(), id: id.map(String::from) }
    }

    #[test]
    fn an_entity_is_named_by_two_words_or_one_with_a_slash() {
        let ada = ("cart".to_string(), "ada".to_string());
        assert_eq!(split(name("cart", Some("ada"))), Ok(ada.clone()));
        assert_eq!(split(name("cart/ada", None)), Ok(ada));
        assert_eq!(split(name("cart/a/b", None)).unwrap().1, "a/b");
        assert_eq!(split(name("cart", Some(""))).unwrap().1, "");
        for typed in ["cart", "cart/", "/ada"] {
            assert_eq!(split(name(typed, None)).unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn a_crash_is_described_with_its_reason() {
        let entity = api::Entity {
            journal: "cart".into(),
            id: "ada".into(),
            seq: 7,
            last_crash: Some(api::Crash {
                what: "trap".into(),
                during: "handle AddItem".into(),
                reason: "unreachable".into(),
                consecutive: 2,
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = described(&entity, &Output::new(Format::Text));
        assert!(text.contains("cart/ada") && text.contains("cold"), "{text}");
        assert!(text.contains("trap during handle AddItem"), "{text}");
        assert!(
            text.contains("unreachable") && text.contains("2 since the last success"),
            "{text}"
        );
    }

    #[test]
    fn an_event_that_cannot_be_decoded_says_why() {
        let event = api::Event {
            seq: 1,
            data: vec![1, 2, 3],
            note: "unknown type shop.Gone".into(),
            ..Default::default()
        };
        assert_eq!(event_row(&event)[3], "(3 B, unknown type shop.Gone)");
    }

    #[test]
    fn a_journal_that_nothing_serves_is_marked() {
        let entity =
            api::EntitySummary { journal: "cart".into(), id: "a".into(), ..Default::default() };
        assert_eq!(summary_row(&entity)[0], "cart (not live)");
    }
}
