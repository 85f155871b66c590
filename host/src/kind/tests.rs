use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::wasm::{self, Call, Due, StateChange};

fn outcome() -> Outcome {
    Outcome {
        answer: Answer::None,
        effects: Vec::new(),
        events: Vec::new(),
        state_change: StateChange::None,
        timers: Vec::new(),
    }
}

fn events(count: usize) -> Outcome {
    Outcome { events: vec![Message::new("t.Happened", "x"); count], ..outcome() }
}

fn before(kind: Kind, seq: u64) -> Before<'static> {
    Before {
        kind,
        seq: Seq(seq),
        snapshot_every: 5,
        history: 3,
        now_ms: 1_000,
        has_method: &|method| method == "Ring",
    }
}

fn call(metadata: &[(&str, &str)]) -> Call {
    let entry = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Call {
        service: "s".into(),
        method: "m".into(),
        payload: Bytes::new(),
        metadata: metadata.iter().map(entry).collect(),
    }
}

fn effect(metadata: &[(&str, &str)]) -> Outcome {
    let effect = wasm::Effect { call: call(metadata), synchronous: false };
    Outcome { effects: vec![effect], ..outcome() }
}

fn timer(name: &str, due: Due, method: &str) -> wasm::TimerChange {
    let timer = wasm::Timer { due, every_ms: None, method: method.into(), payload: Bytes::new() };
    wasm::TimerChange { name: name.into(), timer: Some(timer) }
}

fn decided(outcome: Outcome, kind: Kind, seq: u64) -> Decision {
    decide(outcome, &before(kind, seq)).expect("no violation")
}

fn violation(outcome: Outcome, kind: Kind) -> Violation {
    decide(outcome, &before(kind, 0)).expect_err("a violation")
}

#[test]
fn a_snapshot_is_due_when_a_multiple_is_reached_or_passed() {
    let due = |seq, count| decided(events(count), Kind::EventSourced, seq).snapshot_due;
    assert!(!due(0, 4));
    assert!(due(0, 5));
    assert!(due(4, 1));
    assert!(due(3, 14));
    assert!(!due(5, 4));
    assert!(!due(5, 0));
}

#[test]
fn events_advance_the_sequence_number() {
    assert_eq!(decided(events(3), Kind::Workflow, 7).seq, Seq(10));
}

#[test]
fn an_update_is_one_event_and_the_journal_forgets_now_and_then() {
    let update =
        || Outcome { state_change: StateChange::Update(Message::new("t.State", "x")), ..outcome() };
    let first = decided(update(), Kind::Value, 0);
    assert_eq!((first.seq, first.forget_before), (Seq(1), None));
    assert_eq!(first.events, [Message::new("t.State", "x")]);
    let sixteenth = decided(update(), Kind::Value, 15);
    assert_eq!((sixteenth.seq, sixteenth.forget_before), (Seq(16), Some(Seq(14))));
    let mut long = before(Kind::Value, 15);
    long.history = 1_000;
    assert_eq!(decide(update(), &long).expect("no violation").forget_before, None);
}

#[test]
fn a_deletion_is_an_event_unless_there_was_never_a_state() {
    let delete = || Outcome { state_change: StateChange::Delete, ..outcome() };
    assert!(!decided(delete(), Kind::Value, 0).changes_something());
    let deleted = decided(delete(), Kind::Value, 4);
    assert_eq!(deleted.seq, Seq(5));
    assert_eq!(value::state(&deleted.events[0]), None);
}

#[test]
fn kinds_keep_to_what_is_theirs() {
    let delete = || Outcome { state_change: StateChange::Delete, ..outcome() };
    assert_eq!(violation(delete(), Kind::EventSourced), Violation::StateChange);
    assert_eq!(violation(delete(), Kind::Workflow), Violation::StateChange);
    assert_eq!(violation(events(1), Kind::Value), Violation::Event);
    let reserved = StateChange::Update(Message::new(value::DELETED, ""));
    let reserved = Outcome { state_change: reserved, ..outcome() };
    assert_eq!(violation(reserved, Kind::Value), Violation::ReservedState);
    let asks = || effect(&[("stead-result-to", "t")]);
    for kind in [Kind::EventSourced, Kind::Value] {
        assert!(matches!(violation(asks(), kind), Violation::OptionNotAllowed { .. }));
    }
    let asked = decided(asks(), Kind::Workflow, 0).effects.remove(0);
    assert_eq!((asked.result_to.as_deref(), asked.key), (Some("t"), None));
}

#[test]
fn options_of_calls_are_read_and_do_not_reach_the_function() {
    let options = [
        ("stead-timeout-ms", "250"),
        ("x", "y"),
        ("stead-result-to", "t"),
        ("stead-idempotency-key", "2"),
    ];
    let effect = decided(effect(&options), Kind::Workflow, 0).effects.remove(0);
    assert_eq!(effect.timeout.as_millis(), 250);
    assert_eq!((effect.key.as_deref(), effect.result_to.as_deref()), (Some("2"), Some("t")));
    assert_eq!(effect.call.metadata, [("x".to_owned(), "y".to_owned())]);
}

#[test]
fn any_effect_and_any_forward_may_have_a_key() {
    let key = [("stead-idempotency-key", "k")];
    let asked = decided(effect(&key), Kind::EventSourced, 0).effects.remove(0);
    assert_eq!((asked.key.as_deref(), asked.call.metadata.len()), (Some("k"), 0));
    let forward = Outcome { answer: Answer::Forward(call(&key)), ..outcome() };
    let Answer::Forward(kept) = decided(forward, Kind::Value, 0).answer else {
        panic!("a forward");
    };
    assert_eq!(kept.metadata, [("stead-idempotency-key".to_owned(), "k".to_owned())]);
}

#[test]
fn malformed_options_are_violations() {
    let long = "t".repeat(257);
    for option in [
        ("stead-timeout-ms", "0"),
        ("stead-timeout-ms", "soon"),
        ("stead-timeout-ms", "99999999999999"),
        ("stead-result-to", ""),
        ("stead-result-to", &long),
    ] {
        let violation = violation(effect(&[option]), Kind::Workflow);
        assert!(matches!(violation, Violation::OptionMalformed { .. }), "{option:?}");
    }
    let forward = Answer::Forward(call(&[("stead-timeout-ms", "1")]));
    let forward = Outcome { answer: forward, ..outcome() };
    assert!(matches!(
        violation(forward, Kind::EventSourced),
        Violation::OptionNotAllowed { only_for: "effects", .. }
    ));
}

#[test]
fn of_a_timer_that_is_changed_twice_the_last_change_counts() {
    let cancel = wasm::TimerChange { name: "b".into(), timer: None };
    let timers = vec![
        timer("a", Due::AfterMs(5), "Ring"),
        cancel,
        timer("b", Due::AtMs(7), "Ring"),
        wasm::TimerChange { name: "a".into(), timer: None },
    ];
    let decision = decided(Outcome { timers, ..outcome() }, Kind::EventSourced, 0);
    let due = |change: &TimerChange| change.set.as_ref().map(|set| set.due_ms);
    let told: Vec<_> = decision.timers.iter().map(|c| (c.name.as_str(), due(c))).collect();
    assert_eq!(told, [("b", Some(7)), ("a", None)]);
    assert!(decision.changes_something());
}

#[test]
fn a_timer_needs_a_method_of_its_service() {
    let with = |timer| Outcome { timers: vec![timer], ..outcome() };
    let unknown = with(timer("a", Due::AfterMs(5), "Sing"));
    let method = "Sing".to_owned();
    assert_eq!(violation(unknown, Kind::Value), Violation::TimerMethod { method });
    let decision = decided(with(timer("a", Due::AfterMs(u64::MAX), "Ring")), Kind::Value, 0);
    let far = decision.timers[0].set.as_ref().expect("set").due_ms;
    assert_eq!(far, crate::words::limits::TIMER_DUE_MS_MAX);
}

proptest! {
    #[test]
    fn a_repeating_timer_is_due_at_the_first_of_its_times_that_is_to_come(
        due in 0_u64..1_000_000, every in 1_u64..10_000, now in 0_u64..2_000_000,
    ) {
        let next = timer::again(due, every, now);
        prop_assert!(next > due && (next - due).is_multiple_of(every));
        prop_assert!(next > now);
        prop_assert!(next - every <= now.max(due));
    }
}
