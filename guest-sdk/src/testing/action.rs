//! Actions under test.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::rc::Rc;

use prost::Message;

use super::{Then, metadata_of, reencoded, reencoded_reply};
use crate::action::{Action, Gone, Requests, Responses};
use crate::call::{Answer, Call, Effect, Request};
use crate::context::{Context, Invocation, Outcome, Reply};
use crate::event::decode;
use crate::host::{self, Host};
use crate::rejection::{Code, Rejection};
use crate::service::{Handler, Streaming};
use crate::view::StateChange;

/// An action, with stand-ins for the functions that it calls.
pub struct ActionScenario<A> {
    action: A,
    invocation: Invocation,
    host: Rc<RefCell<FakeHost>>,
}

impl<A: Action> ActionScenario<A> {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let invocation = Invocation { command_id: "test".into(), ..Invocation::default() };
        Self { action: A::default(), invocation, host: Rc::default() }
    }

    /// What the next calls of a method are answered: `answering(StockClient::reserve, |request| ..)`.
    /// A call that nothing answers is UNIMPLEMENTED.
    pub fn answering<C, R>(
        self,
        client: fn(C) -> Call<R>,
        mut answer: impl FnMut(C) -> Result<R, Rejection> + 'static,
    ) -> Self
    where
        C: Message + Default,
        R: Message,
    {
        let Request { service, method, .. } = client(C::default()).into_request();
        let name = format!("{service}/{method}");
        let answer = move |payload: &[u8]| {
            let request = decode("the request", payload).expect("a request that can be read");
            answer(request).map(|reply| reply.encode_to_vec())
        };
        self.host.borrow_mut().answers.push((name, Box::new(answer)));
        self
    }

    /// The time of the next calls, in milliseconds since 1970; otherwise 0.
    pub fn at_ms(mut self, now_ms: u64) -> Self {
        self.invocation.now_ms = now_ms;
        self
    }

    /// The metadata of the next calls; otherwise none. An event comes with its CloudEvents attributes:
    /// `[("ce-subject", "ada"), ("ce-sequence", "1")]`.
    pub fn with_metadata<const N: usize>(mut self, entries: [(&str, &str); N]) -> Self {
        self.invocation.metadata = metadata_of(entries);
        self
    }

    /// The caller goes away after so many messages of the answer.
    pub fn gone_after(self, messages: usize) -> Self {
        self.host.borrow_mut().patience = Some(messages);
        self
    }

    /// Runs a unary method.
    pub fn when<C, R>(self, handler: Handler<A, C, R>, request: C) -> Then<Self, R>
    where
        C: Message + Default,
        R: Message + Default + 'static,
    {
        let request = reencoded("the request", &request);
        self.run(Vec::<C>::new(), |action, ctx| handler(action, ctx, request))
    }

    /// Runs a method with a streamed request.
    pub fn when_streamed_in<C, R>(
        self,
        handler: Handler<A, Requests<C>, R>,
        requests: impl IntoIterator<Item = C>,
    ) -> Then<Self, R>
    where
        C: Message + Default,
        R: Message + Default + 'static,
    {
        self.run(requests, |action, ctx| handler(action, ctx, Requests::new("the request")))
    }

    /// Runs a method with a streamed answer.
    pub fn when_streamed_out<C, R>(self, handler: Streaming<A, C, R>, request: C) -> Then<Self, R>
    where
        C: Message + Default,
        R: Message + Default + 'static,
    {
        let request = reencoded("the request", &request);
        self.run(Vec::<C>::new(), |action, ctx| {
            let responses = Responses::new(ctx.effects());
            handler(action, ctx, request, responses).map(|()| Reply::nothing())
        })
    }

    /// Runs a method that streams both ways.
    pub fn when_streamed<C, R>(
        self,
        handler: Streaming<A, Requests<C>, R>,
        requests: impl IntoIterator<Item = C>,
    ) -> Then<Self, R>
    where
        C: Message + Default,
        R: Message + Default + 'static,
    {
        self.run(requests, |action, ctx| {
            let (requests, responses) =
                (Requests::new("the request"), Responses::new(ctx.effects()));
            handler(action, ctx, requests, responses).map(|()| Reply::nothing())
        })
    }

    fn run<C, R>(
        self,
        requests: impl IntoIterator<Item = C>,
        f: impl FnOnce(&A, &mut Context<A>) -> Outcome<A, R>,
    ) -> Then<Self, R>
    where
        C: Message,
        R: Message + Default + 'static,
    {
        let requests = requests.into_iter().map(|request| request.encode_to_vec());
        self.host.borrow_mut().requests = requests.collect();
        let mut ctx = Context::new(self.invocation.clone());
        let result = host::with(self.host.clone(), || f(&self.action, &mut ctx));
        let result = result.map(|reply| reencoded_reply(reply.answer(&self.action)));
        let mut host = self.host.borrow_mut();
        let mut effects = std::mem::take(&mut host.effects);
        effects.extend(ctx.consequences().effects);
        let sent = std::mem::take(&mut host.sent).into_iter().map(message).collect();
        drop(host);
        let now_ms = self.invocation.now_ms;
        let (emitted, timers) = (Vec::new(), Vec::new());
        let state = StateChange::None;
        Then { scenario: self, now_ms, emitted, state, effects, timers, sent, result }
    }
}

impl<A: Action, R: PartialEq + Debug> Then<ActionScenario<A>, R> {
    /// The streamed answer has these messages, and then ended well.
    #[track_caller]
    pub fn then_sent(self, messages: impl IntoIterator<Item = R>) -> Self {
        self.accepted();
        self.then_sent_at_first(messages)
    }

    /// The streamed answer has these messages, however it ended.
    #[track_caller]
    pub fn then_sent_at_first(self, messages: impl IntoIterator<Item = R>) -> Self {
        let expected: Vec<_> = messages.into_iter().map(Answer::Reply).collect();
        let none = |answer: &&Answer<R>| !matches!(answer, Answer::None);
        let sent: Vec<_> = self.sent.iter().filter(none).collect();
        assert_eq!(sent, expected.iter().collect::<Vec<_>>(), "the answer has other messages");
        self
    }
}

fn message<R: Message + Default>(answer: Answer<Vec<u8>>) -> Answer<R> {
    match answer {
        Answer::Reply(bytes) => Answer::Reply(
            decode("the reply", &bytes).expect("a reply decodes after it was encoded"),
        ),
        Answer::Forward(call) => Answer::Forward(call),
        Answer::None => Answer::None,
    }
}

type Answering = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>, Rejection>>;

#[derive(Default)]
struct FakeHost {
    answers: Vec<(String, Answering)>,
    requests: VecDeque<Vec<u8>>,
    sent: Vec<Answer<Vec<u8>>>,
    effects: Vec<Effect>,
    /// How many more messages the caller takes; none is any number.
    patience: Option<usize>,
}

impl Host for FakeHost {
    fn receive(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        Ok(self.requests.pop_front())
    }

    fn send(&mut self, answer: Answer<Vec<u8>>, effects: Vec<Effect>) -> Result<(), Gone> {
        self.effects.extend(effects);
        match &mut self.patience {
            Some(0) => return Err(Gone::Cancelled),
            Some(left) => *left -= 1,
            None => {}
        }
        self.sent.push(answer);
        Ok(())
    }

    fn call(&mut self, call: Request) -> Result<Vec<u8>, Rejection> {
        let name = format!("{}/{}", call.service, call.method);
        match self.answers.iter_mut().rfind(|answer| answer.0 == name) {
            Some((_, answer)) => answer(&call.payload),
            None => Err(Rejection::new(Code::Unimplemented, format!("nothing answers {name}"))),
        }
    }
}
