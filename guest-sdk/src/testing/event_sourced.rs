//! Event-sourced entities under test.

use std::fmt::Debug;

use prost::{Message, Name};

use super::{Then, metadata_of, reencoded, reencoded_reply};
use crate::context::{Context, Invocation};
use crate::entity::EventSourced;
use crate::event::{EncodedMessage, Events};
use crate::module::event_sourced::events;
use crate::service::Handler;
use crate::view::StateChange;

/// An event-sourced entity and what it has been through so far.
pub struct Scenario<E> {
    invocation: Invocation,
    journal: Vec<EncodedMessage>,
    state: E,
}

impl<E: EventSourced> Scenario<E> {
    /// An entity before its first event.
    pub fn new(entity_id: &str) -> Self {
        let invocation = Invocation {
            entity_id: entity_id.into(),
            command_id: "test".into(),
            ..Invocation::default()
        };
        Self { invocation, journal: Vec::new(), state: E::default() }
    }

    /// Events that were stored earlier.
    pub fn given<V: Into<E::Event>>(mut self, events: impl IntoIterator<Item = V>) -> Self {
        for event in events {
            let encoded = event.into().encode();
            self.state.apply(decoded::<E>(&encoded));
            self.journal.push(encoded);
        }
        self
    }

    /// The time of the next commands, in milliseconds since 1970; otherwise 0.
    pub fn at_ms(mut self, now_ms: u64) -> Self {
        self.invocation.now_ms = now_ms;
        self
    }

    /// Where the randomness of the next commands begins; otherwise 0.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.invocation.seed = seed;
        self
    }

    /// The metadata of the next commands; otherwise none.
    pub fn with_metadata<const N: usize>(mut self, entries: [(&str, &str); N]) -> Self {
        self.invocation.metadata = metadata_of(entries);
        self
    }

    /// Runs one command: `when(Cart::add_item, AddLineItem { .. })`.
    pub fn when<C, R>(mut self, handler: Handler<E, C, R>, command: C) -> Then<Self, R>
    where
        C: Message + Default,
        R: Message + Default + 'static,
    {
        let command = reencoded("the command", &command);
        let before = self.replayed_state();
        let mut ctx = Context::new(self.invocation.clone());
        let outcome = handler(&self.state, &mut ctx, command);
        let (mut emitted, mut effects, mut timers) = Default::default();
        let result = outcome.map(|reply| {
            let consequences = ctx.consequences();
            (effects, timers) = (consequences.effects, consequences.timers);
            let new = events::<E>(consequences.changes);
            emitted = new.iter().map(Events::encode).collect::<Vec<_>>();
            new.into_iter().for_each(|event| self.state.apply(event));
            reencoded_reply(reply.answer(&self.state))
        });
        self.journal.extend_from_slice(&emitted);
        self.check_replay(before, &emitted);
        let now_ms = self.invocation.now_ms;
        let (state, sent) = (StateChange::None, Vec::new());
        Then { scenario: self, now_ms, emitted, state, effects, timers, sent, result }
    }

    /// The entity's state.
    pub fn state(&self) -> &E {
        &self.state
    }

    fn replayed_state(&self) -> E {
        let mut state = E::default();
        self.journal.iter().for_each(|event| state.apply(decoded::<E>(event)));
        state
    }

    fn check_replay(&self, before: E, emitted: &[EncodedMessage]) {
        let live = encoded_snapshot(&self.state);
        assert_eq!(
            encoded_snapshot(&self.replayed_state()),
            live,
            "a replay of all events gives another state than the live entity has"
        );
        let Some(snapshot) = before.snapshot() else { return };
        let mut restored = E::default();
        restored
            .restore(reencoded("the snapshot", &snapshot))
            .expect("the entity restores its own snapshot");
        emitted.iter().for_each(|event| restored.apply(decoded::<E>(event)));
        assert_eq!(
            encoded_snapshot(&restored),
            live,
            "a snapshot and the events after it give another state than the live entity has"
        );
    }
}

impl<E: EventSourced, R: PartialEq + Debug> Then<Scenario<E>, R> {
    /// These events, in this order, and no others.
    #[track_caller]
    pub fn then_events<V: Into<E::Event>>(self, events: impl IntoIterator<Item = V>) -> Self {
        self.accepted();
        let expected: Vec<_> = events.into_iter().map(|event| event.into().encode()).collect();
        assert_eq!(self.emitted, expected, "the command emitted other events");
        self
    }

    #[track_caller]
    pub fn then_no_events(self) -> Self {
        self.then_events(Vec::<E::Event>::new())
    }

    /// Both at once.
    #[track_caller]
    pub fn then<V: Into<E::Event>>(self, events: impl IntoIterator<Item = V>, reply: R) -> Self {
        self.then_events(events).then_reply(reply)
    }
}

fn decoded<E: EventSourced>(event: &EncodedMessage) -> E::Event {
    E::Event::decode(&event.type_name, &event.data).expect("an event decodes after it was encoded")
}

fn encoded_snapshot<E: EventSourced>(state: &E) -> Option<EncodedMessage>
where
    E::Snapshot: Name,
{
    state.snapshot().map(|snapshot| EncodedMessage::of(&snapshot))
}
