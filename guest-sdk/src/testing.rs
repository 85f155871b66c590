//! Tests an entity natively, without WebAssembly and without a host: given events, when a command,
//! then events and a reply.
//!
//! ```ignore
//! Scenario::<Cart>::new("ada")
//!     .given([added("kettle", 1)])
//!     .when(Cart::add_item, AddLineItem { product_id: "kettle".into(), quantity: 2, .. })
//!     .then_events([added("kettle", 2)])
//!     .then_reply(());
//! ```
//!
//! Whatever a scenario asserts, it also checks what the host relies on: that messages survive their
//! encoding, that a refused command changes nothing, and that a replay, from the first event or from
//! a snapshot, gives the state that the live entity had (as far as its snapshot shows it).

use std::fmt::Debug;

use prost::{Message, Name};

use crate::context::{Call, Context, Metadata, Outcome};
use crate::entity::EventSourced;
use crate::event::{EncodedMessage, Events, decode};
use crate::rejection::{Code, Rejection};

/// An entity and what it has been through so far.
pub struct Scenario<E> {
    call: Call,
    journal: Vec<EncodedMessage>,
    state: E,
}

impl<E: EventSourced> Scenario<E> {
    /// An entity before its first event.
    pub fn new(entity_id: &str) -> Self {
        let call =
            Call { entity_id: entity_id.into(), command_id: "test".into(), ..Call::default() };
        Self { call, journal: Vec::new(), state: E::default() }
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

    /// The time of the next command, in milliseconds since 1970; otherwise 0.
    pub fn at_ms(mut self, now_ms: u64) -> Self {
        self.call.now_ms = now_ms;
        self
    }

    /// Where the randomness of the next command begins; otherwise 0.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.call.seed = seed;
        self
    }

    /// The metadata of the next command; otherwise none.
    pub fn with_metadata<const N: usize>(mut self, entries: [(&str, &str); N]) -> Self {
        let entries = entries.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.call.metadata = Metadata::new(entries.into());
        self
    }

    /// Runs one command: `when(Cart::add_item, AddLineItem { .. })`.
    pub fn when<C, R>(
        mut self,
        handler: fn(&E, &mut Context<E>, C) -> Outcome<E, R>,
        command: C,
    ) -> Then<E, R>
    where
        C: Message + Default,
        R: Message + Default + 'static,
    {
        let command = reencoded("the command", &command);
        let before = self.replayed_state();
        let mut ctx = Context::new(self.call.clone());
        let outcome = handler(&self.state, &mut ctx, command);
        let mut emitted = Vec::new();
        let result = match outcome {
            Ok(reply) => {
                emitted = ctx.events.iter().map(Events::encode).collect();
                ctx.events.into_iter().for_each(|event| self.state.apply(event));
                Ok(reencoded("the reply", &reply.response(&self.state)))
            }
            Err(rejection) => Err(rejection),
        };
        self.journal.extend_from_slice(&emitted);
        self.check_replay(before, &emitted);
        Then { scenario: self, emitted, result }
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

/// What a command led to.
pub struct Then<E: EventSourced, R> {
    scenario: Scenario<E>,
    emitted: Vec<EncodedMessage>,
    result: Result<R, Rejection>,
}

impl<E: EventSourced, R: PartialEq + Debug> Then<E, R> {
    /// These events, in this order, and no others.
    #[track_caller]
    pub fn then_events<V: Into<E::Event>>(self, events: impl IntoIterator<Item = V>) -> Self {
        if let Err(rejection) = &self.result {
            panic!("the command was refused: {rejection}");
        }
        let expected: Vec<_> = events.into_iter().map(|event| event.into().encode()).collect();
        assert_eq!(self.emitted, expected, "the command emitted other events");
        self
    }

    #[track_caller]
    pub fn then_no_events(self) -> Self {
        self.then_events(Vec::<E::Event>::new())
    }

    #[track_caller]
    pub fn then_reply(self, reply: R) -> Self {
        match &self.result {
            Ok(found) => assert_eq!(*found, reply, "the command got another reply"),
            Err(rejection) => panic!("the command was refused: {rejection}"),
        }
        self
    }

    /// Both at once.
    #[track_caller]
    pub fn then<V: Into<E::Event>>(self, events: impl IntoIterator<Item = V>, reply: R) -> Self {
        self.then_events(events).then_reply(reply)
    }

    #[track_caller]
    pub fn then_rejected(self, code: Code) -> Self {
        match &self.result {
            Ok(reply) => panic!("the command was accepted, and answered {reply:?}"),
            Err(rejection) => assert_eq!(rejection.code, code, "{rejection}"),
        }
        self
    }

    /// The reply or rejection, for other checks.
    pub fn result(&self) -> &Result<R, Rejection> {
        &self.result
    }

    /// The same entity, for the next command.
    pub fn and(self) -> Scenario<E> {
        self.scenario
    }
}

fn decoded<E: EventSourced>(event: &EncodedMessage) -> E::Event {
    E::Event::decode(&event.type_name, &event.data).expect("an event decodes after it was encoded")
}

fn reencoded<M: Message + Default>(what: &str, message: &M) -> M {
    decode(what, &message.encode_to_vec()).expect("a message decodes after it was encoded")
}

fn encoded_snapshot<E: EventSourced>(state: &E) -> Option<EncodedMessage>
where
    E::Snapshot: Name,
{
    state.snapshot().map(|snapshot| EncodedMessage::of(&snapshot))
}
