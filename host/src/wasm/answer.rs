//! Checks what a guest answered, and turns it into the host's words. Nothing of a guest is trusted:
//! what is over a limit is refused as a whole.

use bytes::Bytes;

use crate::wasm::action::Conclusion;
use crate::wasm::bindings::stead::function::{calls, types};
use crate::wasm::bindings::{action, discovery, entity};
use crate::wasm::component::Interfaces;
use crate::wasm::failure::{Failure, printable};
use crate::wasm::instance::{
    Answer, Call, Description, Due, Effect, EntityType, Outcome, Rejection, Setting, StateChange,
    Timer, TimerChange,
};
use crate::words::{Code, Message, limits};

pub fn description(
    answer: discovery::Description,
    interfaces: Interfaces,
) -> Result<Description, Failure> {
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
        interfaces,
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
    at_most("timers", answer.timers.len(), limits::TIMERS_PER_COMMAND_MAX)?;
    let events = answer
        .events
        .into_iter()
        .map(|event| message("event", event, limits::EVENT_BYTES_MAX))
        .collect::<Result<Vec<_>, _>>()?;
    let events_bytes: usize = events.iter().map(Message::size).sum();
    at_most("bytes in its events", events_bytes, limits::EVENTS_BYTES_PER_COMMAND_MAX)?;
    Ok(Outcome {
        answer: self::answer(answer.answer)?,
        effects: effects(answer.effects)?,
        events,
        state_change: state_change(answer.state_change)?,
        timers: answer.timers.into_iter().map(timer_change).collect::<Result<_, _>>()?,
    })
}

/// How a call of an action ended.
pub fn conclusion(answer: action::Conclusion) -> Result<Conclusion, Failure> {
    let effects = effects(answer.effects)?;
    let answer = match answer.answer {
        Ok(answer) => Ok(self::answer(answer)?),
        Err(rejection) => Err(self::rejection(rejection)?),
    };
    Ok(Conclusion { answer, effects })
}

/// A message of a streamed answer.
pub fn response(response: calls::Response) -> Result<(Answer, Vec<Effect>), Failure> {
    Ok((answer(response.answer)?, effects(response.effects)?))
}

fn answer(answer: types::Answer) -> Result<Answer, Failure> {
    Ok(match answer {
        types::Answer::Reply(reply) => {
            at_most("bytes in its reply", reply.len(), limits::REPLY_BYTES_MAX)?;
            Answer::Reply(Bytes::from(reply))
        }
        types::Answer::Forward(forward) => Answer::Forward(call(forward)?),
        types::Answer::None => Answer::None,
    })
}

fn effects(effects: Vec<types::Effect>) -> Result<Vec<Effect>, Failure> {
    at_most("effects", effects.len(), limits::EFFECTS_PER_COMMAND_MAX)?;
    effects
        .into_iter()
        .map(|effect| Ok(Effect { call: call(effect.call)?, synchronous: effect.synchronous }))
        .collect()
}

pub fn state_change(change: types::StateChange) -> Result<StateChange, Failure> {
    Ok(match change {
        types::StateChange::None => StateChange::None,
        types::StateChange::Update(state) => {
            StateChange::Update(message("state", state, limits::EVENT_BYTES_MAX)?)
        }
        types::StateChange::Delete => StateChange::Delete,
    })
}

fn timer_change(change: types::TimerChange) -> Result<TimerChange, Failure> {
    let types::TimerChange { name, timer } = change;
    if name.is_empty() || name.len() > limits::TIMER_NAME_BYTES_MAX {
        return Err(malformed(format!(
            "the timer's name {:?} has {} bytes; it must have 1 to {}",
            printable(&name, 64),
            name.len(),
            limits::TIMER_NAME_BYTES_MAX
        )));
    }
    let Some(timer) = timer else { return Ok(TimerChange { name, timer: None }) };
    let named = printable(&name, 64);
    if let Some(every) = timer.every_ms
        && every < limits::TIMER_EVERY_MS_MIN
    {
        return Err(malformed(format!(
            "the timer {named:?} fires every {every} ms; the least is {} ms",
            limits::TIMER_EVERY_MS_MIN
        )));
    }
    if timer.payload.len() > limits::EVENT_BYTES_MAX {
        return Err(malformed(format!(
            "the payload of the timer {named:?} has {} bytes; the limit is {}",
            timer.payload.len(),
            limits::EVENT_BYTES_MAX
        )));
    }
    let due = match timer.due {
        types::Due::AfterMs(ms) => Due::AfterMs(ms),
        types::Due::AtMs(ms) => Due::AtMs(ms),
    };
    let types::Timer { every_ms, method, payload, .. } = timer;
    Ok(TimerChange {
        name,
        timer: Some(Timer { due, every_ms, method, payload: Bytes::from(payload) }),
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

/// For a guest to read.
pub fn lower_rejection(rejection: Rejection) -> types::Rejection {
    let detail = |detail: Message| types::MessageResult {
        type_name: detail.type_name.to_string(),
        data: detail.data.to_vec(),
    };
    types::Rejection {
        code: rejection.code as u32,
        message: rejection.message,
        details: rejection.details.into_iter().map(detail).collect(),
    }
}

pub fn call(call: types::Call) -> Result<Call, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, bytes: usize) -> entity::MessageResult {
        entity::MessageResult { type_name: name.into(), data: vec![0; bytes] }
    }

    fn with_events(events: Vec<entity::MessageResult>) -> entity::Outcome {
        entity::Outcome {
            answer: types::Answer::None,
            effects: Vec::new(),
            events,
            state_change: types::StateChange::None,
            timers: Vec::new(),
        }
    }

    fn reason<T: std::fmt::Debug>(answer: Result<T, Failure>) -> String {
        match answer {
            Err(Failure::Malformed { reason }) => reason,
            other => panic!("malformed is expected: {other:?}"),
        }
    }

    #[test]
    fn events_are_accepted_up_to_their_limits() {
        let events = (0..limits::EVENTS_PER_COMMAND_MAX).map(|_| event("a.B", 1)).collect();
        assert_eq!(outcome(with_events(events)).expect("accepted").events.len(), 1_000);
        let largest = vec![event("a.B", limits::EVENT_BYTES_MAX)];
        outcome(with_events(largest)).expect("accepted");
    }

    #[test]
    fn too_many_or_too_large_events_are_refused_as_a_whole() {
        let many = (0..=limits::EVENTS_PER_COMMAND_MAX).map(|_| event("a.B", 1)).collect();
        assert!(reason(outcome(with_events(many))).contains("1001 events; the limit is 1000"));
        let large = vec![event("a.B", limits::EVENT_BYTES_MAX + 1)];
        assert!(reason(outcome(with_events(large))).contains("the event a.B has 1048577 bytes"));
        let heavy = (0..5).map(|_| event("a.B", 1_000_000)).collect();
        assert!(reason(outcome(with_events(heavy))).contains("bytes in its events"));
    }

    #[test]
    fn timers_have_names_and_intervals_within_their_limits() {
        let change = |name: &str, every_ms: Option<u64>, bytes: usize| types::TimerChange {
            name: name.into(),
            timer: Some(types::Timer {
                due: types::Due::AfterMs(0),
                every_ms,
                method: "Ring".into(),
                payload: vec![0; bytes],
            }),
        };
        let with =
            |change| outcome(entity::Outcome { timers: vec![change], ..with_events(Vec::new()) });
        let longest = "n".repeat(limits::TIMER_NAME_BYTES_MAX);
        let accepted = with(change(&longest, Some(100), 1)).expect("accepted");
        assert_eq!(accepted.timers[0].timer.as_ref().expect("set").every_ms, Some(100));
        let cancel = types::TimerChange { name: "n".into(), timer: None };
        assert_eq!(with(cancel).expect("accepted").timers[0].timer, None);
        assert!(reason(with(change("", None, 1))).contains("has 0 bytes"));
        assert!(reason(with(change(&format!("{longest}n"), None, 1))).contains("has 257 bytes"));
        assert!(reason(with(change("n", Some(99), 1))).contains("every 99 ms"));
        let large = change("n", None, limits::EVENT_BYTES_MAX + 1);
        assert!(reason(with(large)).contains("payload of the timer"));
    }

    #[test]
    fn a_state_is_bounded_like_an_event() {
        let with = |state_change| outcome(entity::Outcome { state_change, ..with_events(vec![]) });
        let state = types::StateChange::Update(event("a.B", limits::EVENT_BYTES_MAX));
        assert!(matches!(with(state).expect("accepted").state_change, StateChange::Update(_)));
        let large = types::StateChange::Update(event("a.B", limits::EVENT_BYTES_MAX + 1));
        assert!(reason(with(large)).contains("the state a.B has 1048577 bytes"));
        let deleted = with(types::StateChange::Delete).expect("accepted");
        assert_eq!(deleted.state_change, StateChange::Delete);
    }

    #[test]
    fn type_names_must_be_names() {
        for name in ["", ".a.B", "a..B", "a.B.", "a b", "a/b", "1a", "a.B\n", "ä", "type.x/a.B"] {
            assert!(reason(outcome(with_events(vec![event(name, 1)]))).contains("type name"));
        }
        let long = "a".repeat(limits::TYPE_NAME_BYTES_MAX + 1);
        assert!(reason(snapshot(Some(event(&long, 1)))).contains("type name"));
        for name in ["a", "_a.B_1", &long[1..]] {
            outcome(with_events(vec![event(name, 1)])).expect("accepted");
        }
    }

    #[test]
    fn replies_and_snapshots_have_limits() {
        let reply = types::Answer::Reply(vec![0; limits::REPLY_BYTES_MAX + 1]);
        let too_large = entity::Outcome { answer: reply, ..with_events(Vec::new()) };
        assert!(reason(outcome(too_large)).contains("bytes in its reply"));
        let too_large = event("a.B", limits::SNAPSHOT_BYTES_MAX + 1);
        assert!(reason(snapshot(Some(too_large))).contains("the snapshot a.B"));
        assert_eq!(snapshot(None), Ok(None));
    }

    fn rejected(code: u32, message: String) -> Result<Rejection, Failure> {
        rejection(entity::Rejection { code, message, details: Vec::new() })
    }

    #[test]
    fn rejections_have_a_code_of_grpc_other_than_ok() {
        for code in [0, 17, u32::MAX] {
            assert!(reason(rejected(code, String::new())).contains("1 to 16"));
        }
        assert_eq!(rejected(5, "gone".into()).expect("accepted").code, Code::NotFound);
        let details = (0..=limits::REJECTION_DETAILS_MAX).map(|_| event("a.B", 1)).collect();
        let many = entity::Rejection { code: 5, message: String::new(), details };
        assert!(reason(rejection(many)).contains("details"));
    }

    #[test]
    fn long_messages_of_rejections_are_cut_between_characters() {
        let message = "€".repeat(limits::REJECTION_MESSAGE_BYTES_MAX);
        let cut = rejected(5, message).expect("accepted").message;
        assert_eq!(cut.len(), limits::REJECTION_MESSAGE_BYTES_MAX / 3 * 3);
        assert!(cut.chars().all(|c| c == '€'));
    }

    #[test]
    fn refusals_of_guests_are_short_and_printable() {
        let Err(Failure::Refused { what: "events", reason }) =
            refusable("events", Err(format!("\x1b[31mred{}", "x".repeat(100_000))))
        else {
            panic!("refused is expected")
        };
        assert!(reason.starts_with("[31mred"));
        assert!(reason.len() <= limits::REJECTION_MESSAGE_BYTES_MAX);
    }
}
