//! Checks what a guest answered, and turns it into the host's words. Nothing of a guest is trusted:
//! what is over a limit is refused as a whole.

use bytes::Bytes;

use crate::wasm::bindings::exports::stead::function::{discovery, entity};
use crate::wasm::bindings::stead::function::types;
use crate::wasm::failure::{Failure, printable};
use crate::wasm::instance::{
    Answer, Call, Description, Effect, EntityType, Outcome, Rejection, Setting,
};
use crate::words::{Code, Message, limits};

pub fn description(answer: discovery::Description) -> Result<Description, Failure> {
    at_most("entity types", answer.entity_types.len(), limits::ENTITY_TYPES_PER_MODULE_MAX)?;
    let entity_types = answer.entity_types.into_iter().map(|entity_type| EntityType {
        service: entity_type.service,
        kind: entity_type.kind,
        journal_name: entity_type.journal_name,
        snapshot_every: entity_type.snapshot_every,
        passivate_after_ms: entity_type.passivate_after_ms,
        settings: entity_type.settings.into_iter().map(setting).collect(),
    });
    Ok(Description {
        file_descriptor_set: answer.file_descriptor_set,
        entity_types: entity_types.collect(),
        sdk: answer.sdk,
    })
}

fn setting(setting: types::Setting) -> Setting {
    Setting { name: setting.name, value: setting.value }
}

/// The answer of `restore` and `apply`.
pub fn refusable(what: &'static str, answer: Result<(), String>) -> Result<(), Failure> {
    answer.map_err(|reason| Failure::Refused {
        what,
        reason: printable(&reason, limits::REJECTION_MESSAGE_BYTES_MAX),
    })
}

pub fn snapshot(answer: Option<entity::MessageResult>) -> Result<Option<Message>, Failure> {
    answer.map(|state| message("snapshot", state, limits::SNAPSHOT_BYTES_MAX)).transpose()
}

pub fn outcome(answer: entity::Outcome) -> Result<Outcome, Failure> {
    at_most("events", answer.events.len(), limits::EVENTS_PER_COMMAND_MAX)?;
    at_most("effects", answer.effects.len(), limits::EFFECTS_PER_COMMAND_MAX)?;
    at_most("timers", answer.timers.len(), limits::TIMERS_PER_COMMAND_MAX)?;
    let events = answer
        .events
        .into_iter()
        .map(|event| message("event", event, limits::EVENT_BYTES_MAX))
        .collect::<Result<Vec<_>, _>>()?;
    let events_bytes: usize = events.iter().map(Message::size).sum();
    at_most("bytes in its events", events_bytes, limits::EVENTS_BYTES_PER_COMMAND_MAX)?;
    let effects = answer
        .effects
        .into_iter()
        .map(|effect| Ok(Effect { call: call(effect.call)?, synchronous: effect.synchronous }))
        .collect::<Result<Vec<_>, Failure>>()?;
    Ok(Outcome {
        answer: match answer.answer {
            types::Answer::Reply(reply) => {
                at_most("bytes in its reply", reply.len(), limits::REPLY_BYTES_MAX)?;
                Answer::Reply(Bytes::from(reply))
            }
            types::Answer::Forward(forward) => Answer::Forward(call(forward)?),
            types::Answer::None => Answer::None,
        },
        effects,
        events,
        state_change: !matches!(answer.state_change, types::StateChange::None),
        timers: answer.timers.len(),
    })
}

pub fn rejection(answer: entity::Rejection) -> Result<Rejection, Failure> {
    let code = Code::from_u32(answer.code).filter(|code| *code != Code::Ok);
    let Some(code) = code else {
        return Err(malformed(format!(
            "the rejection has the code {}; it must be a gRPC status code, 1 to 16",
            answer.code
        )));
    };
    at_most("details in its rejection", answer.details.len(), limits::REJECTION_DETAILS_MAX)?;
    let details = answer
        .details
        .into_iter()
        .map(|detail| message("detail", detail, limits::EVENT_BYTES_MAX))
        .collect::<Result<Vec<_>, _>>()?;
    let mut text = answer.message;
    text.truncate(text.floor_char_boundary(limits::REJECTION_MESSAGE_BYTES_MAX));
    Ok(Rejection { code, message: text, details })
}

fn call(call: types::Call) -> Result<Call, Failure> {
    at_most("bytes in a call", call.payload.len(), limits::REPLY_BYTES_MAX)?;
    at_most("metadata entries in a call", call.metadata.len(), limits::METADATA_ENTRIES_MAX)?;
    Ok(Call {
        service: call.service,
        method: call.method,
        payload: Bytes::from(call.payload),
        metadata: call.metadata.into_iter().map(|entry| (entry.name, entry.value)).collect(),
    })
}

fn message(
    what: &str,
    message: entity::MessageResult,
    bytes_max: usize,
) -> Result<Message, Failure> {
    let name = &message.type_name;
    if !is_type_name(name) {
        return Err(malformed(format!(
            "the {what} has the type name {:?}; it must be the full name of a protobuf message, \
             1 to {} bytes of letters, digits, `_` and `.`, without a leading dot",
            printable(name, 64),
            limits::TYPE_NAME_BYTES_MAX
        )));
    }
    if message.data.len() > bytes_max {
        return Err(malformed(format!(
            "the {what} {name} has {} bytes; the limit is {bytes_max}",
            message.data.len()
        )));
    }
    Ok(Message::new(message.type_name, message.data))
}

fn is_type_name(name: &str) -> bool {
    let part = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && part.bytes().next().is_some_and(|first| !first.is_ascii_digit())
    };
    name.len() <= limits::TYPE_NAME_BYTES_MAX && name.split('.').all(part)
}

fn at_most(what: &str, found: usize, max: usize) -> Result<(), Failure> {
    if found <= max {
        return Ok(());
    }
    Err(malformed(format!("the answer has {found} {what}; the limit is {max}")))
}

fn malformed(reason: String) -> Failure {
    Failure::Malformed { reason }
}
