//! Verdicts on a stream of payments, by what was paid with the same card shortly before.

mod api {
    stead_sdk::include_proto!("com.example.fraud");
}

use std::collections::VecDeque;

use api::{
    Card, CardClient, FraudCheck, GetWindow, Payment, PaymentSeen, PaymentsSeen, Verdict, Window,
};
use stead_sdk::{
    Action, Context, EventSourced, Events, Outcome, Rejection, Requests, Responses, reject,
};

const WINDOW_MS: u64 = 10 * 60 * 1000;
const PAYMENTS_MAX: u32 = 5;
const CENTS_MAX: u64 = 100_000;

/// Asks the card's entity about each payment.
#[derive(Default)]
pub struct Checker;

impl Action for Checker {}

impl FraudCheck for Checker {
    fn check(
        &self,
        ctx: &mut Context<Self>,
        payments: Requests<Payment>,
        verdicts: Responses<Verdict>,
    ) -> Result<(), Rejection> {
        while let Some(payment) = payments.next()? {
            let payment_id = payment.payment_id.clone();
            let window = ctx.call(CardClient::paid(payment))?;
            let reason = if window.payments > PAYMENTS_MAX {
                format!("{} payments within ten minutes", window.payments)
            } else if window.cents > CENTS_MAX {
                format!("{} cents within ten minutes", window.cents)
            } else {
                String::new()
            };
            verdicts.send(Verdict { payment_id, suspicious: !reason.is_empty(), reason })?;
        }
        Ok(())
    }
}

/// The newest payments with a card, the oldest first.
#[derive(Default)]
pub struct Payments(VecDeque<PaymentSeen>);

#[derive(Events)]
pub enum Event {
    Seen(PaymentSeen),
}

impl Payments {
    fn window(&self, now_ms: u64) -> Window {
        let recent = |payment: &&PaymentSeen| payment.at_ms.saturating_add(WINDOW_MS) > now_ms;
        self.0.iter().filter(recent).fold(Window::default(), |sum, payment| Window {
            payments: sum.payments.saturating_add(1),
            cents: sum.cents.saturating_add(payment.cents),
        })
    }
}

impl Card for Payments {
    fn paid(&self, ctx: &mut Context<Self>, payment: Payment) -> Outcome<Self, Window> {
        let Payment { payment_id, cents, .. } = payment;
        if payment_id.is_empty() {
            reject!(InvalidArgument, "a payment needs a payment_id");
        }
        let at_ms = ctx.now_ms();
        // Who sends a payment again gets the same verdict.
        if !self.0.iter().any(|seen| seen.payment_id == payment_id) {
            ctx.emit(PaymentSeen { payment_id, cents, at_ms });
        }
        ctx.reply_with(move |payments| payments.window(at_ms))
    }

    fn get(&self, ctx: &mut Context<Self>, _: GetWindow) -> Outcome<Self, Window> {
        ctx.reply(self.window(ctx.now_ms()))
    }
}

impl EventSourced for Payments {
    type Event = Event;
    type Snapshot = PaymentsSeen;

    fn apply(&mut self, Event::Seen(seen): Event) {
        let old = |payment: &PaymentSeen| payment.at_ms.saturating_add(WINDOW_MS) <= seen.at_ms;
        while self.0.front().is_some_and(old) {
            self.0.pop_front();
        }
        self.0.push_back(seen);
    }

    fn snapshot(&self) -> Option<PaymentsSeen> {
        Some(PaymentsSeen { payments: self.0.iter().cloned().collect() })
    }

    fn restore(&mut self, snapshot: PaymentsSeen) -> Result<(), String> {
        self.0 = snapshot.payments.into();
        Ok(())
    }
}

stead_sdk::export! {
    action Checker: FraudCheck;
    Payments: Card, journal = "fraud-card";
}

#[cfg(test)]
mod tests;
