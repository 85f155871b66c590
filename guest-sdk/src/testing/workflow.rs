//! Workflows under test.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use prost::Message;

use crate::call::{Answer, Call, Due, Effect, Request, TimerChange, whole_ms};
use crate::context::{Invocation, Metadata, TIMER};
use crate::event::{EncodedMessage, decode};
use crate::module::{Command, Entity};
use crate::rejection::Rejection;
use crate::workflow::service::Service;
use crate::workflow::v1::{State, Status, StepResult};
use crate::workflow::{Live, RESULT, Workflow};

/// A workflow, with stand-ins for the functions that it calls and a clock that the test moves.
///
/// ```ignore
/// let mut flow = WorkflowScenario::new(Checkout::<Purchase>(), "order-1")
///     .answering(StockClient::reserve, |_| Ok(Reserved {}));
/// flow.send(CheckoutClient::place(order()))?;
/// flow.advance(Duration::from_secs(60));
/// assert_eq!(flow.result(), Receipt { .. });
/// ```
///
/// After each command the code is run again from what is stored, and must be where it was; each result
/// of a step comes twice.
pub struct WorkflowScenario<W: Workflow> {
    service: Service<W>,
    id: String,
    now_ms: u64,
    live: Live<W>,
    journal: Vec<EncodedMessage>,
    answers: Vec<(String, Answering)>,
    pending: VecDeque<Effect>,
    /// By name: when they are due, and what they call.
    timers: BTreeMap<String, (u64, String)>,
    calls: Vec<String>,
}

type Answering = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>, Rejection>>;

impl<W: Workflow> WorkflowScenario<W> {
    /// A workflow that has not been started, at time 0.
    pub fn new(service: Service<W>, entity_id: &str) -> Self {
        Self {
            service,
            id: entity_id.into(),
            now_ms: 0,
            live: Live::new(service, entity_id),
            journal: Vec::new(),
            answers: Vec::new(),
            pending: VecDeque::new(),
            timers: BTreeMap::new(),
            calls: Vec::new(),
        }
    }

    /// What the calls of a method are answered: `answering(StockClient::reserve, |request| ..)`. A call
    /// that nothing answers stays without an answer.
    pub fn answering<C, R>(
        mut self,
        client: fn(C) -> Call<R>,
        mut answer: impl FnMut(C) -> Result<R, Rejection> + 'static,
    ) -> Self
    where
        C: Message + Default,
        R: Message,
    {
        let name = target(&client(C::default()).into_request());
        let answer = move |payload: &[u8]| {
            let request = decode("the request", payload).expect("a request that can be read");
            answer(request).map(|reply| reply.encode_to_vec())
        };
        self.answers.push((name, Box::new(answer)));
        self
    }

    /// Starts the workflow, signals or asks it: `send(CheckoutClient::approve(..))`. Then lets it go on
    /// until it waits for a time, a signal, or an answer that nobody gives.
    ///
    /// # Errors
    ///
    /// How it was refused.
    pub fn send<R: Message + Default>(&mut self, call: Call<R>) -> Result<R, Rejection> {
        let Request { method, payload, .. } = call.into_request();
        let reply = self.handle(&method, payload, Metadata::default())?;
        self.settle();
        Ok(decode("the reply", &reply).expect("a reply decodes after it was encoded"))
    }

    /// Lets time pass: what is due fires, in its order. Before that, calls are answered that nothing
    /// answered so far.
    pub fn advance(&mut self, time: Duration) {
        self.settle();
        let until_ms = self.now_ms.saturating_add(whole_ms(time));
        while let Some((name, due_ms, method)) = self.next_timer(until_ms) {
            self.now_ms = self.now_ms.max(due_ms);
            self.timers.remove(&name);
            let metadata = Metadata::new(vec![(TIMER.to_owned(), name)]);
            self.handle(&method, Vec::new(), metadata).expect("a timer's command is accepted");
            self.settle();
        }
        self.now_ms = until_ms;
    }

    /// How the workflow is.
    pub fn status(&self) -> Status {
        self.live.status()
    }

    /// What the workflow resulted in.
    ///
    /// # Panics
    ///
    /// If it has not completed.
    #[track_caller]
    pub fn result(&self) -> W::Output {
        let status = self.status();
        assert_eq!(status.state(), State::Completed, "the workflow has no result: {status:?}");
        let any = status.result.unwrap_or_default();
        W::Output::decode(&*any.value).expect("a result decodes after it was encoded")
    }

    /// What was called, in this order: the names of methods.
    pub fn calls(&self) -> Vec<&str> {
        self.calls.iter().map(String::as_str).collect()
    }

    /// How many events are stored.
    pub fn events(&self) -> usize {
        self.journal.len()
    }

    fn next_timer(&self, until_ms: u64) -> Option<(String, u64, String)> {
        let timers = self.timers.iter().map(|(name, (due, method))| (due, name, method));
        let (&due_ms, name, method) = timers.min().filter(|timer| *timer.0 <= until_ms)?;
        Some((name.clone(), due_ms, method.clone()))
    }

    fn settle(&mut self) {
        while let Some((position, answer)) = self.next_answer() {
            let Some(effect) = self.pending.remove(position) else { return };
            self.calls.push(effect.call.method.to_string());
            let token = effect.call.metadata.get("stead-result-to").unwrap_or_default().to_owned();
            let result = match answer {
                Ok(reply) => StepResult { token, reply, ..StepResult::default() },
                Err(rejection) => {
                    let (code, message) = (rejection.code as u32, rejection.message);
                    StepResult { token, code, message, reply: Vec::new() }
                }
            };
            let handle = |scenario: &mut Self| {
                let result = result.encode_to_vec();
                scenario.handle(RESULT, result, Metadata::default()).expect("a result is accepted");
            };
            handle(self);
            let events = self.journal.len();
            handle(self);
            assert_eq!(self.journal.len(), events, "a result that comes twice counts twice");
        }
    }

    fn next_answer(&mut self) -> Option<(usize, Result<Vec<u8>, Rejection>)> {
        let answers = &mut self.answers;
        self.pending.iter().enumerate().find_map(|(position, effect)| {
            let name = target(&effect.call);
            let (_, answer) = answers.iter_mut().rfind(|answer| answer.0 == name)?;
            Some((position, answer(&effect.call.payload)))
        })
    }

    fn handle(
        &mut self,
        method: &str,
        payload: Vec<u8>,
        metadata: Metadata,
    ) -> Result<Vec<u8>, Rejection> {
        let invocation = Invocation {
            entity_id: self.id.as_str().into(),
            command_id: "test".into(),
            now_ms: self.now_ms,
            metadata,
            ..Invocation::default()
        };
        let handled = self.live.handle(Command { method: method.into(), payload, invocation })?;
        self.journal.extend(handled.events);
        self.pending.extend(handled.effects);
        for TimerChange { name, timer } in handled.timers {
            match timer {
                None => drop(self.timers.remove(&name)),
                Some(timer) => {
                    let due_ms = match timer.due {
                        Due::AfterMs(ms) => self.now_ms + ms,
                        Due::AtMs(ms) => ms,
                    };
                    self.timers.insert(name, (due_ms, timer.method.into_owned()));
                }
            }
        }
        self.replay();
        match handled.answer {
            Answer::Reply(reply) => Ok(reply),
            Answer::Forward(_) | Answer::None => Ok(Vec::new()),
        }
    }

    /// Goes on with the instance that a restart would make.
    fn replay(&mut self) {
        let mut replayed = Live::new(self.service, &self.id);
        for event in &self.journal {
            if let Err(fault) = replayed.apply(&event.type_name, &event.data) {
                panic!("the workflow cannot be replayed: {fault}");
            }
        }
        assert_eq!(
            replayed.status(),
            self.live.status(),
            "a replay leads to another place than the live workflow was in"
        );
        self.live = replayed;
    }
}

fn target(call: &Request) -> String {
    format!("{}/{}", call.service, call.method)
}
