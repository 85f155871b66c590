//! What `Do` does, by the name of its request's `what`.

use std::hint::black_box;

use prost::{Message as _, Name};

use crate::State;
use crate::bindings::stead::function::types::{
    Answer, Call, Due, Effect, Message, Outcome, Rejection, StateChange, Timer, TimerChange,
};
use crate::proto::{Happened, Request, Response};

pub fn run(state: &mut State, request: &Request) -> Result<Outcome, Rejection> {
    let amount = usize::try_from(request.amount).unwrap_or(usize::MAX);
    match request.what.as_str() {
        "count" => Ok(reply(state)),
        "ok" | "poison" | "snapshot-trap" | "huge-snapshot" => Ok(emit(state, &[&request.what])),
        "reject" => Err(rejection(9, "as asked".into())),

        // Never comes back.
        "trap" => panic!("as asked"),
        "loop" => loop {
            black_box(());
        },
        "spin" => {
            for turn in 0..amount {
                black_box(turn);
            }
            Ok(reply(state))
        }
        "grow" => loop {
            black_box(vec![1_u8; 1024 * 1024].leak());
        },
        "recurse" => Ok(Outcome { answer: Answer::Reply(vec![recurse(0)]), ..reply(state) }),

        // Comes back with nonsense.
        "huge-reply" => Ok(Outcome { answer: Answer::Reply(vec![0; amount]), ..reply(state) }),
        "garbage-reply" => Ok(Outcome { answer: Answer::Reply(vec![0xff; 16]), ..reply(state) }),
        "no-reply" => Ok(Outcome { answer: Answer::None, ..reply(state) }),
        "forward" => Ok(Outcome { answer: Answer::Forward(call()), ..reply(state) }),
        "effect" => {
            let effect = Effect { call: call(), synchronous: false };
            Ok(Outcome { effects: vec![effect], ..reply(state) })
        }
        "state-change" => Ok(Outcome { state_change: StateChange::Delete, ..reply(state) }),
        // With an amount, its command names another entity.
        "timer" => Ok(Outcome { timers: vec![timer(amount)], ..reply(state) }),
        "many-events" => Ok(emit(state, &vec!["many"; amount])),
        "big-event" => Ok(emit(state, &[&"x".repeat(amount)])),
        "garbage-event" => Ok(event_of(state, Happened::full_name(), vec![0xff; 16])),
        // Without an amount a type that is nowhere described, otherwise a name of that length.
        "bad-event-name" if amount == 0 => {
            Ok(event_of(state, "misbehaving.v1.Unheard".into(), Vec::new()))
        }
        "bad-event-name" => Ok(event_of(state, "x".repeat(amount), Vec::new())),
        "bad-rejection-code" => Err(rejection(amount as u32, "as asked".into())),
        "long-rejection" => Err(rejection(9, "x".repeat(amount))),
        "many-details" => {
            let detail = Message { type_name: Happened::full_name(), data: Vec::new() };
            Err(Rejection { details: vec![detail; amount], ..rejection(9, "as asked".into()) })
        }
        other => Err(rejection(3, format!("there is no misbehaviour {other}"))),
    }
}

fn reply(state: &State) -> Outcome {
    Outcome {
        answer: Answer::Reply(Response { count: state.count }.encode_to_vec()),
        effects: Vec::new(),
        events: Vec::new(),
        state_change: StateChange::None,
        timers: Vec::new(),
    }
}

fn emit(state: &mut State, what: &[&str]) -> Outcome {
    let event = |what: &&str| Message {
        type_name: Happened::full_name(),
        data: Happened { what: (*what).into() }.encode_to_vec(),
    };
    let events = what.iter().map(event).collect();
    what.iter().for_each(|what| state.happened(what));
    Outcome { events, ..reply(state) }
}

fn event_of(state: &mut State, type_name: String, data: Vec<u8>) -> Outcome {
    state.happened("");
    Outcome { events: vec![Message { type_name, data }], ..reply(state) }
}

fn rejection(code: u32, message: String) -> Rejection {
    Rejection { code, message, details: Vec::new() }
}

fn call() -> Call {
    Call {
        service: "misbehaving.v1.Misbehaving".into(),
        method: "Do".into(),
        payload: Vec::new(),
        metadata: Vec::new(),
    }
}

fn timer(of_another: usize) -> TimerChange {
    let id = if of_another > 0 { "another" } else { "" };
    let request = Request { id: id.into(), what: "ok".into(), amount: 0 };
    let (due, method) = (Due::AfterMs(1), "Do".into());
    let timer = Timer { due, every_ms: None, method, payload: request.encode_to_vec() };
    TimerChange { name: "alarm".into(), timer: Some(timer) }
}

/// Without end, and not a loop in disguise.
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u8 {
    let frame = black_box([depth; 16]);
    recurse(depth + 1).wrapping_add(black_box(frame)[0] as u8)
}
