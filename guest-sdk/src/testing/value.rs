//! Value entities under test.

use std::fmt::Debug;

use prost::Message;

use super::{Then, metadata_of, reencoded, reencoded_reply};
use crate::context::{Context, Invocation};
use crate::event::EncodedMessage;
use crate::module::value::changed;
use crate::service::Handler;
use crate::value::{Value, restored};
use crate::view::StateChange;

/// A value entity and what is stored of it.
pub struct ValueScenario<V> {
    invocation: Invocation,
    state: V,
}

impl<V: Value> ValueScenario<V> {
    /// An entity without a state.
    pub fn new(entity_id: &str) -> Self {
        let invocation = Invocation {
            entity_id: entity_id.into(),
            command_id: "test".into(),
            ..Invocation::default()
        };
        Self { invocation, state: V::default() }
    }

    /// The state that was stored earlier.
    pub fn given(mut self, state: V::State) -> Self {
        self.store(StateChange::Update(EncodedMessage::of(&state)));
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
    pub fn when<C, R>(mut self, handler: Handler<V, C, R>, command: C) -> Then<Self, R>
    where
        C: Message + Default,
        R: Message + Default + 'static,
    {
        let command = reencoded("the command", &command);
        let mut ctx = Context::new(self.invocation.clone());
        let outcome = handler(&self.state, &mut ctx, command);
        let (mut state, mut effects, mut timers) = (StateChange::None, Vec::new(), Vec::new());
        let result = outcome.map(|reply| {
            let consequences = ctx.consequences();
            (effects, timers) = (consequences.effects, consequences.timers);
            state = changed::<V>(consequences.changes);
            self.store(state.clone());
            reencoded_reply(reply.answer(&self.state))
        });
        let now_ms = self.invocation.now_ms;
        let (emitted, sent) = (Vec::new(), Vec::new());
        Then { scenario: self, now_ms, emitted, state, effects, timers, sent, result }
    }

    /// The entity as it is now.
    pub fn state(&self) -> &V {
        &self.state
    }

    fn store(&mut self, change: StateChange) {
        match change {
            StateChange::None => {}
            StateChange::Update(state) => {
                let state = state.decode().expect("a state decodes after it was encoded");
                self.state = restored::<V>(state).expect("the entity reads its own state");
                self.invocation.exists = true;
            }
            StateChange::Delete => {
                self.state = V::default();
                self.invocation.exists = false;
            }
        }
    }
}

impl<V: Value, R: PartialEq + Debug> Then<ValueScenario<V>, R> {
    /// This state is stored.
    #[track_caller]
    pub fn then_updated(self, state: V::State) -> Self {
        self.then_change(&StateChange::Update(EncodedMessage::of(&state)))
    }

    /// The state is deleted.
    #[track_caller]
    pub fn then_deleted(self) -> Self {
        self.then_change(&StateChange::Delete)
    }

    /// Nothing is stored.
    #[track_caller]
    pub fn then_unchanged(self) -> Self {
        self.then_change(&StateChange::None)
    }

    #[track_caller]
    fn then_change(self, expected: &StateChange) -> Self {
        self.accepted();
        assert_eq!(self.state, *expected, "the command changed the state otherwise");
        self
    }
}
