use stead_sdk::Code;
use stead_sdk::testing::{ActionScenario, Scenario};

use super::*;

fn payment(id: &str, cents: u64) -> Payment {
    Payment { payment_id: id.into(), card: "4711".into(), cents }
}

fn seen(id: &str, cents: u64, at_ms: u64) -> PaymentSeen {
    PaymentSeen { payment_id: id.into(), cents, at_ms }
}

fn fine(id: &str) -> Verdict {
    Verdict { payment_id: id.into(), ..Verdict::default() }
}

#[test]
fn each_payment_gets_a_verdict() {
    let mut cents = 0;
    let suspicious = Verdict {
        payment_id: "b".into(),
        suspicious: true,
        reason: "100001 cents within ten minutes".into(),
    };
    ActionScenario::<Checker>::new()
        .answering(CardClient::paid, move |payment: Payment| {
            cents += payment.cents;
            Ok(Window { payments: 1, cents })
        })
        .when_streamed(Checker::check, [payment("a", 99_999), payment("b", 2)])
        .then_sent([fine("a"), suspicious]);
}

#[test]
fn a_card_that_cannot_be_asked_ends_the_stream() {
    ActionScenario::<Checker>::new()
        .answering(CardClient::paid, |_: Payment| Err(Rejection::new(Code::Unavailable, "not now")))
        .when_streamed(Checker::check, [payment("a", 1)])
        .then_sent_at_first([])
        .then_rejected(Code::Unavailable);
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    Scenario::<Payments>::new("4711")
        .given([seen("a", 1, 0), seen("b", 10, 1)])
        .at_ms(WINDOW_MS)
        .when(Payments::paid, payment("c", 100))
        .then([seen("c", 100, WINDOW_MS)], Window { payments: 2, cents: 110 })
        .and()
        .at_ms(WINDOW_MS + 1)
        .when(Payments::get, GetWindow { card: "4711".into() })
        .then_reply(Window { payments: 1, cents: 100 });
}

#[test]
fn a_payment_that_comes_twice_counts_once() {
    Scenario::<Payments>::new("4711")
        .given([seen("a", 1, 0)])
        .when(Payments::paid, payment("a", 1))
        .then_no_events()
        .then_reply(Window { payments: 1, cents: 1 });
}
