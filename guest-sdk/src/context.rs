//! What a command handler is given, and what it answers.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::entity::EventSourced;
use crate::rejection::Rejection;

/// What a command handler returns: the last expression is [`Context::reply`] or
/// [`Context::reply_with`], or before that [`reject!`](crate::reject).
pub type Outcome<E, R> = Result<Reply<E, R>, Rejection>;

/// The answer to a command that was accepted.
pub struct Reply<E, R>(Kind<E, R>);

enum Kind<E, R> {
    Now(R),
    Then(Box<dyn FnOnce(&E) -> R>),
}

impl<E: 'static, R: 'static> Reply<E, R> {
    /// The response, given the state after the events.
    pub(crate) fn response(self, state: &E) -> R {
        match self.0 {
            Kind::Now(response) => response,
            Kind::Then(compute) => compute(state),
        }
    }

    pub(crate) fn map<T>(self, f: impl FnOnce(R) -> T + 'static) -> Reply<E, T> {
        Reply(match self.0 {
            Kind::Now(response) => Kind::Now(f(response)),
            Kind::Then(compute) => Kind::Then(Box::new(move |state| f(compute(state)))),
        })
    }
}

/// One command, seen from its handler: what is known about the call, and what it leads to.
pub struct Context<E: EventSourced> {
    call: Call,
    random: u64,
    pub(crate) events: Vec<E::Event>,
}

/// Everything about a command but its method and payload.
#[derive(Clone, Default)]
pub(crate) struct Call {
    pub entity_id: Rc<str>,
    pub command_id: String,
    pub metadata: Metadata,
    pub now_ms: u64,
    pub seed: u64,
}

impl<E: EventSourced> Context<E> {
    pub(crate) fn new(call: Call) -> Self {
        Self { random: call.seed, call, events: Vec::new() }
    }

    /// Adds an event. Once the handler has returned, all of them are applied in this order, and
    /// stored together before the caller gets its answer. At most 1,000 in a command.
    pub fn emit(&mut self, event: impl Into<E::Event>) {
        self.events.push(event.into());
    }

    /// Answers the command.
    pub fn reply<R>(&self, response: R) -> Outcome<E, R> {
        Ok(Reply(Kind::Now(response)))
    }

    /// Answers the command with what `compute` makes of the state after the events.
    pub fn reply_with<R>(&self, compute: impl FnOnce(&E) -> R + 'static) -> Outcome<E, R> {
        Ok(Reply(Kind::Then(Box::new(compute))))
    }

    /// Which entity this is.
    pub fn entity_id(&self) -> &str {
        &self.call.entity_id
    }

    /// The caller's idempotency key, or else an id of the host's making. Stable when a command is
    /// retried.
    pub fn command_id(&self) -> &str {
        &self.call.command_id
    }

    /// What the caller sent along, without credentials.
    pub fn metadata(&self) -> &Metadata {
        &self.call.metadata
    }

    /// The time, fixed for the whole command. Put it into an event if the state needs it.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.call.now_ms)
    }

    /// The same as milliseconds since 1970-01-01T00:00:00Z.
    pub fn now_ms(&self) -> u64 {
        self.call.now_ms
    }

    /// A random number, another one with each call. Put it into an event if the state needs it.
    /// Not for secrets.
    pub fn random(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The metadata of a call, in the order in which it came. Names are in lower case; values of names
/// that end in `-bin` are in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Vec<(String, String)>);

impl Metadata {
    pub(crate) fn new(entries: Vec<(String, String)>) -> Self {
        Self(entries)
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
    use crate::event::NoEvents;

    #[derive(Default)]
    struct Nothing;

    impl EventSourced for Nothing {
        type Event = NoEvents;
        type Snapshot = ();

        fn apply(&mut self, event: NoEvents) {
            match event {}
        }
    }

    fn three_random(seed: u64) -> [u64; 3] {
        let mut ctx = Context::<Nothing>::new(Call { seed, ..Call::default() });
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
