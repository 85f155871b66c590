//! What a command handler is given, and what it answers.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::action::Action;
use crate::call::{Answer, Call, Effect, Request, TimerChange};
use crate::entity::EventSourced;
use crate::rejection::Rejection;
use crate::timer::TimerSetting;
use crate::value::Value;

/// What a command handler returns: the last expression is [`Context::reply`],
/// [`Context::reply_with`] or [`Context::forward`], or before that [`reject!`](crate::reject).
pub type Outcome<E, R> = Result<Reply<E, R>, Rejection>;

/// The answer to a command that was accepted.
pub struct Reply<E, R>(Kind<E, R>);

enum Kind<E, R> {
    Now(R),
    Then(Box<dyn FnOnce(&E) -> R>),
    Forward(Request),
    Nothing,
}

impl<E: 'static, R: 'static> Reply<E, R> {
    pub(crate) fn nothing() -> Self {
        Self(Kind::Nothing)
    }

    /// The answer, given the state after the change.
    pub(crate) fn answer(self, state: &E) -> Answer<R> {
        match self.0 {
            Kind::Now(response) => Answer::Reply(response),
            Kind::Then(compute) => Answer::Reply(compute(state)),
            Kind::Forward(call) => Answer::Forward(call),
            Kind::Nothing => Answer::None,
        }
    }

    pub(crate) fn map<T>(self, f: impl FnOnce(R) -> T + 'static) -> Reply<E, T> {
        Reply(match self.0 {
            Kind::Now(response) => Kind::Now(f(response)),
            Kind::Then(compute) => Kind::Then(Box::new(move |state| f(compute(state)))),
            Kind::Forward(call) => Kind::Forward(call),
            Kind::Nothing => Kind::Nothing,
        })
    }
}

/// One command, seen from its handler: what is known about the call, and what it leads to.
pub struct Context<E> {
    invocation: Invocation,
    random: u64,
    /// The events of an event-sourced entity (`Vec<E::Event>`), or the new state of a value entity
    /// (`Option<E::State>`). Without the type, because a service's trait is the same for every kind.
    changes: Option<Box<dyn Any>>,
    effects: Effects,
    timers: Vec<TimerChange>,
    entity: PhantomData<fn(&E)>,
}

/// Shared with the streamed answer of an action, whose messages take them along.
pub(crate) type Effects = Rc<RefCell<Vec<Effect>>>;

/// What a command led to, beside its answer.
pub(crate) struct Consequences {
    pub changes: Option<Box<dyn Any>>,
    pub effects: Vec<Effect>,
    pub timers: Vec<TimerChange>,
}

/// Everything about a command but its method and payload.
#[derive(Clone, Default)]
pub(crate) struct Invocation {
    /// Empty where it is not known, as in tests of a handler.
    pub service: &'static str,
    pub entity_id: Rc<str>,
    pub command_id: String,
    pub metadata: Metadata,
    pub now_ms: u64,
    pub seed: u64,
    /// Of a value entity: whether it has a state.
    pub exists: bool,
}

impl<E: 'static> Context<E> {
    pub(crate) fn new(invocation: Invocation) -> Self {
        Self {
            random: invocation.seed,
            invocation,
            changes: None,
            effects: Effects::default(),
            timers: Vec::new(),
            entity: PhantomData,
        }
    }

    pub(crate) fn consequences(self) -> Consequences {
        let effects = self.effects.take();
        Consequences { changes: self.changes, effects, timers: self.timers }
    }

    pub(crate) fn effects(&self) -> Effects {
        Rc::clone(&self.effects)
    }

    /// Answers the command.
    pub fn reply<R>(&self, response: R) -> Outcome<E, R> {
        Ok(Reply(Kind::Now(response)))
    }

    /// Answers the command with what `compute` makes of the state after the change.
    pub fn reply_with<R>(&self, compute: impl FnOnce(&E) -> R + 'static) -> Outcome<E, R> {
        Ok(Reply(Kind::Then(Box::new(compute))))
    }

    /// Lets another function answer in this one's place, after the events or the state are durable. It
    /// gets the caller's metadata and what the call has of its own.
    pub fn forward<R>(&self, call: Call<R>) -> Outcome<E, R> {
        Ok(Reply(Kind::Forward(call.into_request())))
    }

    /// Calls another function after the events or the state are durable, without waiting for it. From
    /// an entity it is delivered at least once, whatever crashes; to an entity, once in effect. Its
    /// result is ignored, its failure is logged. In the order in which they were asked for.
    pub fn effect<R>(&mut self, call: Call<R>) {
        self.add_effect(call, false);
    }

    /// The same, but the caller gets the answer only when the effect has been tried.
    pub fn effect_sync<R>(&mut self, call: Call<R>) {
        self.add_effect(call, true);
    }

    fn add_effect<R>(&mut self, call: Call<R>, synchronous: bool) {
        self.effects.borrow_mut().push(Effect { call: call.into_request(), synchronous });
    }

    /// The idempotency key of the caller, or else an id of the host's making. Stable when a command is
    /// retried.
    pub fn command_id(&self) -> &str {
        &self.invocation.command_id
    }

    /// What the caller sent along, without credentials.
    pub fn metadata(&self) -> &Metadata {
        &self.invocation.metadata
    }

    /// The name of the timer whose command this is; none if somebody called.
    pub fn fired_timer(&self) -> Option<&str> {
        self.metadata().get(TIMER)
    }

    /// The time, fixed for the whole command. Put it into an event if the state needs it.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.invocation.now_ms)
    }

    /// The same as milliseconds since 1970-01-01T00:00:00Z.
    pub fn now_ms(&self) -> u64 {
        self.invocation.now_ms
    }

    /// A random number, another one with each call. Put it into an event if the state needs it.
    /// Not for secrets.
    pub fn random(&mut self) -> u64 {
        split_mix(&mut self.random)
    }

    /// Which entity this is. Empty in an action.
    pub fn entity_id(&self) -> &str {
        &self.invocation.entity_id
    }

    /// Begins to set a timer of this entity, stored with the events or the state of this command. Its
    /// name is 1 to 256 bytes; a timer of that name is replaced. Actions have none.
    pub fn timer(&mut self, name: impl Into<String>) -> TimerSetting<'_> {
        TimerSetting::new(self.invocation.service, &mut self.timers, name.into())
    }

    /// Cancels the timer of this name, if there is one.
    pub fn cancel_timer(&mut self, name: impl Into<String>) {
        self.timers.push(TimerChange { name: name.into(), timer: None });
    }
}

impl<E: EventSourced> Context<E> {
    /// Adds an event. Once the handler has returned, all of them are applied in this order, and
    /// stored together before the caller gets its answer. At most 1,000 in a command.
    pub fn emit(&mut self, event: impl Into<E::Event>) {
        let changes = self.changes.get_or_insert_with(|| Box::new(Vec::<E::Event>::new()));
        if let Some(events) = changes.downcast_mut::<Vec<E::Event>>() {
            events.push(event.into());
        }
    }
}

impl<V: Value> Context<V> {
    /// Replaces the state once the handler has returned. The last change of a command wins.
    pub fn update(&mut self, state: V::State) {
        self.changes = Some(Box::new(Some(state)));
    }

    /// Deletes the state once the handler has returned: the entity is as if it had never been.
    pub fn delete(&mut self) {
        self.changes = Some(Box::new(None::<V::State>));
    }

    /// Whether the entity has a state: one was stored, and not deleted since.
    pub fn exists(&self) -> bool {
        self.invocation.exists
    }
}

impl<A: Action> Context<A> {
    /// Calls another function of the same deployment and waits for its reply, within the deadline of
    /// this action's own caller.
    ///
    /// # Errors
    ///
    /// How the other function refused it, or that it could not be reached.
    pub fn call<R: prost::Message + Default>(&mut self, call: Call<R>) -> Result<R, Rejection> {
        crate::action::call(call.into_request())
    }

    /// Answers nothing: the empty message.
    pub fn reply_nothing<R>(&self) -> Outcome<A, R> {
        Ok(Reply(Kind::Nothing))
    }
}

/// The metadata that names the timer whose command this is.
pub(crate) const TIMER: &str = "stead-timer";

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The metadata of a call, in the order in which it came. Names are in lower case; values of names
/// that end in `-bin` are in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Vec<(String, String)>);

impl Metadata {
    pub(crate) fn new(entries: Vec<(String, String)>) -> Self {
        Self(entries)
    }

    pub(crate) fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// The first value under this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|entry| entry.0 == name).map(|entry| entry.1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    fn three_random(seed: u64) -> [u64; 3] {
        let mut ctx = Context::<Nothing>::new(Invocation { seed, ..Invocation::default() });
        [ctx.random(), ctx.random(), ctx.random()]
    }

    #[test]
    fn random_numbers_differ_but_follow_from_the_seed() {
        let [a, b, c] = three_random(7);
        assert!(a != b && b != c);
        assert_eq!([a, b, c], three_random(7));
        assert_ne!([a, b, c], three_random(8));
    }

    #[test]
    fn the_first_value_of_a_metadata_name_is_found() {
        let entry = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let metadata = Metadata::new(vec![entry("a", "1"), entry("b", "2"), entry("a", "3")]);
        assert_eq!(metadata.get("a"), Some("1"));
        assert_eq!(metadata.get("c"), None);
    }
}
