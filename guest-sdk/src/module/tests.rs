//! A live entity through the contract, with bytes in and bytes out.

use prost::{Message, Name};

use super::*;
use crate::service::{serve, unknown_method};
use crate::{Code, Context, Events, Outcome, reject};

/// Command, event, reply and snapshot in one.
#[derive(Clone, PartialEq, prost::Message)]
struct Amount {
    #[prost(int64, tag = "1")]
    amount: i64,
}

impl Name for Amount {
    const NAME: &'static str = "Amount";
    const PACKAGE: &'static str = "test";
}

#[derive(crate::Events)]
enum Event {
    Added(Amount),
}

#[derive(Default)]
struct Sum(i64);

impl EventSourced for Sum {
    type Event = Event;
    type Snapshot = Amount;

    fn apply(&mut self, event: Event) {
        let Event::Added(Amount { amount }) = event;
        self.0 += amount;
    }

    fn snapshot(&self) -> Option<Amount> {
        Some(Amount { amount: self.0 })
    }

    fn restore(&mut self, snapshot: Amount) -> Result<(), String> {
        self.0 = snapshot.amount;
        Ok(())
    }
}

fn add(_: &Sum, ctx: &mut Context<Sum>, command: Amount) -> Outcome<Sum, Amount> {
    let amount = command.amount;
    ctx.emit(command);
    if amount < 0 {
        reject!(OutOfRange, "{amount} is negative");
    }
    ctx.reply_with(|sum| Amount { amount: sum.0 })
}

fn dispatch(
    state: &Sum,
    ctx: &mut Context<Sum>,
    method: &str,
    payload: &[u8],
) -> Outcome<Sum, Vec<u8>> {
    match method {
        "Add" => serve(state, ctx, payload, "test.Amount", add),
        other => Err(unknown_method("test.Sum", other)),
    }
}

fn entity() -> Box<dyn Entity> {
    let service = Service { name: "test.Sum", descriptors: &[], dispatch };
    let Runs::Entity(create) = EntityType::event_sourced(service, "sum").runs else {
        panic!("an event-sourced type makes no entity")
    };
    create("one")
}

fn encoded(amount: i64) -> Vec<u8> {
    Amount { amount }.encode_to_vec()
}

fn handle(entity: &mut dyn Entity, method: &str, payload: Vec<u8>) -> Result<Handled, Rejection> {
    entity.handle(Command { method: method.into(), payload, invocation: Invocation::default() })
}

fn sum(entity: &dyn Entity) -> i64 {
    entity.snapshot().unwrap().decode::<Amount>().unwrap().amount
}

#[test]
fn an_accepted_command_has_applied_its_events_before_the_reply_is_computed() {
    let mut entity = entity();
    entity.apply("test.Amount", &encoded(2)).unwrap();
    let handled = handle(&mut *entity, "Add", encoded(3)).unwrap();
    assert_eq!(handled.answer, Answer::Reply(encoded(5)));
    let event = EncodedMessage { type_name: "test.Amount".into(), data: encoded(3) };
    assert_eq!(handled.events, [event]);
    assert_eq!(sum(&*entity), 5);
}

#[test]
fn a_rejected_command_leaves_the_entity_unchanged() {
    let mut entity = entity();
    entity.apply("test.Amount", &encoded(2)).unwrap();
    let rejection = handle(&mut *entity, "Add", encoded(-3)).err().unwrap();
    assert_eq!(rejection.code, Code::OutOfRange);
    assert_eq!(sum(&*entity), 2);
}

#[test]
fn a_malformed_request_is_refused_with_the_name_of_its_type() {
    let rejection = handle(&mut *entity(), "Add", vec![0xff]).err().unwrap();
    assert_eq!(rejection.code, Code::InvalidArgument);
    assert!(rejection.message.contains("test.Amount"), "{rejection}");
}

#[test]
fn an_unknown_method_is_unimplemented() {
    let rejection = handle(&mut *entity(), "Subtract", Vec::new()).err().unwrap();
    assert_eq!(rejection.code, Code::Unimplemented);
    assert!(rejection.message.contains("Subtract"), "{rejection}");
}

#[test]
fn an_unknown_or_malformed_event_is_an_error_that_names_it() {
    let mut entity = entity();
    assert!(entity.apply("test.Unheard", &[]).unwrap_err().contains("test.Unheard"));
    assert!(entity.apply("test.Amount", &[0xff]).unwrap_err().contains("test.Amount"));
    assert_eq!(sum(&*entity), 0);
}

#[test]
fn a_snapshot_restores_the_state_and_another_message_is_refused() {
    let mut first = entity();
    first.apply("test.Amount", &encoded(2)).unwrap();
    let snapshot = first.snapshot().unwrap();
    let mut second = entity();
    second.restore(&snapshot).unwrap();
    assert_eq!(sum(&*second), 2);
    let other = EncodedMessage { type_name: "test.Other".into(), ..snapshot };
    assert!(second.restore(&other).unwrap_err().contains("test.Other"));
}

#[test]
fn an_event_is_found_in_an_any() {
    let any = |type_url: &str| prost_types::Any { type_url: type_url.into(), value: encoded(2) };
    let Event::Added(amount) = Event::from_any(&any("type.googleapis.com/test.Amount")).unwrap();
    assert_eq!(amount.amount, 2);
    let rejection = Event::from_any(&any("test.Unheard")).err().unwrap();
    assert_eq!(rejection.code, Code::InvalidArgument);
}

/// A value entity: its state message is the entity.
impl crate::Value for Amount {
    type State = Self;
}

fn set(state: &Amount, ctx: &mut Context<Amount>, command: Amount) -> Outcome<Amount, Amount> {
    match command.amount {
        0 if !ctx.exists() => reject!(NotFound, "there is no amount"),
        0 => ctx.delete(),
        amount => ctx.update(Amount { amount: amount + state.amount }),
    }
    ctx.reply_with(Amount::clone)
}

fn value() -> Box<dyn Entity> {
    let service = Service {
        name: "test.Value",
        descriptors: &[],
        dispatch: |state, ctx, _, payload| serve(state, ctx, payload, "test.Amount", set),
    };
    let Runs::Entity(create) = EntityType::value(service, "value").runs else {
        panic!("a value type makes no entity")
    };
    create("one")
}

#[test]
fn a_value_entity_gives_its_new_state_and_takes_its_old_one() {
    let mut entity = value();
    assert!(handle(&mut *entity, "Set", encoded(0)).is_err(), "there is nothing to delete");
    entity.restore(&EncodedMessage::of(&Amount { amount: 2 })).unwrap();
    let handled = handle(&mut *entity, "Set", encoded(3)).unwrap();
    assert_eq!(handled.state, StateChange::Update(EncodedMessage::of(&Amount { amount: 5 })));
    assert_eq!(handled.answer, Answer::Reply(encoded(5)));
    let handled = handle(&mut *entity, "Set", encoded(0)).unwrap();
    assert_eq!((handled.state, handled.answer), (StateChange::Delete, Answer::Reply(Vec::new())));
    assert!(handle(&mut *entity, "Set", encoded(0)).is_err(), "it was deleted");
    assert!(entity.apply("test.Amount", &encoded(1)).is_err(), "it has no events");
}
