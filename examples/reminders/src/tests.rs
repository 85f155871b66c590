use stead_sdk::Code;
use stead_sdk::testing::{Scenario, no_timer, timer};

use super::*;

fn remind(after_seconds: u64, every_seconds: u64) -> Remind {
    let (user_id, id, text) = ("ada".into(), "tea".into(), "it has drawn".into());
    Remind { user_id, id, text, after_seconds, every_seconds }
}

fn ring() -> Ring {
    Ring { user_id: "ada".into(), id: "tea".into() }
}

fn set(repeats: bool) -> Set {
    Set { id: "tea".into(), text: "it has drawn".into(), repeats }
}

#[test]
fn a_reminder_sets_a_timer() {
    Scenario::<Person>::new("ada")
        .at_ms(1_000)
        .when(Person::remind, remind(180, 0))
        .then([set(false)], ())
        .then_timers([timer("tea", 181_000, ReminderServiceClient::ring(ring()))]);
}

#[test]
fn a_repeated_reminder_sets_a_timer_that_repeats() {
    let wanted = timer("tea", 1_000, ReminderServiceClient::ring(ring()));
    Scenario::<Person>::new("ada")
        .when(Person::remind, remind(1, 60))
        .then([set(true)], ())
        .then_timers([wanted.every(Duration::from_secs(60))]);
}

#[test]
fn a_reminder_that_has_rung_says_so() {
    let rung = api::Reminder {
        id: "tea".into(),
        text: "it has drawn".into(),
        rung: 1,
        rung_at_ms: 7,
        pending: false,
    };
    Scenario::<Person>::new("ada")
        .given([set(false)])
        .at_ms(7)
        .with_metadata([("stead-timer", "tea")])
        .when(Person::ring, ring())
        .then([Rung { id: "tea".into(), at_ms: 7 }], ())
        .and()
        .when(Person::list, GetReminders { user_id: "ada".into() })
        .then_reply(Reminders { reminders: vec![rung] });
}

#[test]
fn nobody_but_the_timer_rings() {
    Scenario::<Person>::new("ada")
        .given([set(false)])
        .when(Person::ring, ring())
        .then_rejected(Code::PermissionDenied);
}

#[test]
fn a_forgotten_reminder_does_not_ring() {
    let forget = || Forget { user_id: "ada".into(), id: "tea".into() };
    Scenario::<Person>::new("ada")
        .given([set(true)])
        .when(Person::forget, forget())
        .then([Forgotten { id: "tea".into() }], ())
        .then_timers([no_timer("tea")])
        .and()
        .when(Person::forget, forget())
        .then_rejected(Code::NotFound);
}
