//! A workflow in memory: commands in, events out.

use std::rc::Rc;

use prost::Message;

use crate::call::Answer;
use crate::context::TIMER;
use crate::event::{EncodedMessage, Events};
use crate::module::{Command, Entity, Handled};
use crate::rejection::{Code, Rejection};
use crate::view::StateChange;
use crate::workflow::engine::Engine;
use crate::workflow::history::Event;
use crate::workflow::run::{Retry, StepWait, TimerKind, What, parse_token};
use crate::workflow::service::{self, Service};
use crate::workflow::v1::{
    Signalled, Started, State, Status, StepCompleted, StepFailed, StepResult, StepScheduled,
    TimerFired,
};
use crate::workflow::{Progress, SIGNALS_KEPT_MAX, Workflow};

/// The method under which the host sends the results of steps.
pub const RESULT: &str = "stead.Result";

pub struct Live<W: Workflow> {
    service: Service<W>,
    id: Rc<str>,
    engine: Engine<W>,
}

impl<W: Workflow> Live<W> {
    pub fn new(service: Service<W>, id: &str) -> Self {
        Self { engine: Engine::new(&service, id), service, id: id.into() }
    }

    /// How it is.
    pub(crate) fn status(&self) -> Status {
        self.engine.told()
    }

    /// What a command says has happened, and its answer if it is not empty.
    fn happens(
        &mut self,
        command: &Command,
    ) -> Result<(Option<Event>, service::Answer), Rejection> {
        let (method, payload) = (&*command.method, &*command.payload);
        let now_ms = command.invocation.now_ms;
        if method == RESULT {
            let result = StepResult::decode(payload).map_err(|error| {
                Rejection::new(Code::InvalidArgument, format!("the step's result is {error}"))
            })?;
            return Ok((self.resulted(result, now_ms), service::Answer::Empty));
        }
        if let Some(timer) = command.invocation.metadata.get(TIMER) {
            return Ok((self.fired(timer, now_ms), service::Answer::Empty));
        }
        let start = self.service.start;
        if method == start.method {
            let starts = self.engine.state() == State::Unspecified;
            if starts {
                (start.check)(payload)?;
            }
            let started = || {
                let (input, seed) = (payload.to_vec(), command.invocation.seed);
                Event::Started(Started { input, at_ms: now_ms, seed })
            };
            return Ok((starts.then(started), start.answer));
        }
        let signal = self.service.signals.iter().find(|signal| signal.method == method);
        let Some(signal) = signal else {
            return Err(crate::service::unknown_method(self.service.name, method));
        };
        (signal.check)(payload)?;
        self.takes_signals()?;
        let (name, payload) = (method.to_owned(), payload.to_vec());
        let signalled = Signalled { name, payload, at_ms: now_ms };
        Ok((Some(Event::Signalled(signalled)), signal.answer))
    }

    fn takes_signals(&self) -> Result<(), Rejection> {
        match self.engine.state() {
            State::Running => {}
            State::Unspecified => return Err(self.absent()),
            State::Compensating | State::Completed | State::Failed => {
                let text = format!("the workflow {} is over", self.id);
                return Err(Rejection::new(Code::FailedPrecondition, text));
            }
        }
        if self.engine.run.borrow().kept.len() >= SIGNALS_KEPT_MAX {
            let text = format!(
                "{SIGNALS_KEPT_MAX} signals wait for the workflow {}, which is the limit",
                self.id
            );
            return Err(Rejection::new(Code::ResourceExhausted, text));
        }
        Ok(())
    }

    fn absent(&self) -> Rejection {
        let text = format!("the workflow {} has not been started", self.id);
        Rejection::new(Code::NotFound, text)
    }

    /// Of the result of an attempt: what it means, unless it comes too late.
    fn resulted(&self, result: StepResult, now_ms: u64) -> Option<Event> {
        let (number, attempt) = parse_token(&result.token)?;
        let full = self.engine.is_full() && self.engine.state() == State::Running;
        let mut run = self.engine.run.borrow_mut();
        let step = run.step(number)?;
        if step.result.is_some() || step.pausing || step.attempt != attempt {
            return None;
        }
        let StepResult { code, message, reply, .. } = result;
        let pause_ms = match code {
            0 => None,
            code => step.pause_ms(Code::from_number(code)).filter(|_| !full),
        };
        Some(match pause_ms {
            Some(pause_ms) => {
                let retry_at_ms = now_ms.saturating_add(pause_ms);
                Event::Failed(StepFailed { step: number, attempt, code, message, retry_at_ms })
            }
            None => {
                let at_ms = now_ms;
                Event::Stepped(StepCompleted { step: number, code, message, reply, at_ms })
            }
        })
    }

    /// Of a timer: what it means, unless nobody waits for it any more.
    fn fired(&self, timer: &str, now_ms: u64) -> Option<Event> {
        let (kind, number) = TimerKind::parse(timer)?;
        let run = self.engine.run.borrow();
        match (&run.waits.get(&number)?.what, kind) {
            (What::Step(step), TimerKind::Retry) if step.pausing => {
                Some(Event::Scheduled(step.again(number)))
            }
            (What::Sleep { due: false }, TimerKind::Due)
            | (What::Signal { payload: None, limited: true, due: false, .. }, TimerKind::Due) => {
                Some(Event::TimerFired(TimerFired { step: number, at_ms: now_ms }))
            }
            (What::Step(_) | What::Sleep { .. } | What::Signal { .. }, _) => None,
        }
    }

    fn query(&self, method: &str, payload: &[u8]) -> Result<Vec<u8>, Rejection> {
        let status = self.status();
        let result = status.result.as_ref().and_then(|any| W::Output::decode(&*any.value).ok());
        (self.service.query)(&Progress { status, result }, method, payload)
    }

    fn is_query(&self, method: &str) -> bool {
        method != RESULT
            && method != self.service.start.method
            && self.service.signals.iter().all(|signal| signal.method != method)
    }
}

impl StepWait {
    fn pause_ms(&self, code: Code) -> Option<u64> {
        let retry: &Retry = &self.retry;
        retry.pause_ms(self.attempt, code)
    }

    fn again(&self, number: u32) -> StepScheduled {
        StepScheduled {
            step: number,
            attempt: self.attempt + 1,
            name: self.name.clone(),
            service: self.call.service.to_string(),
            method: self.call.method.to_string(),
            compensation: self.undoes.is_some(),
        }
    }
}

impl<W: Workflow> Entity for Live<W> {
    fn id(&self) -> Rc<str> {
        Rc::clone(&self.id)
    }

    fn restore(&mut self, _state: &EncodedMessage) -> Result<(), String> {
        Err("a workflow has no snapshots".to_owned())
    }

    fn apply(&mut self, type_name: &str, data: &[u8]) -> Result<(), String> {
        self.engine.replayed(Event::decode(type_name, data)?)
    }

    fn handle(&mut self, command: Command) -> Result<Handled, Rejection> {
        self.engine.confirmed().map_err(|fault| Rejection::new(Code::Internal, fault))?;
        let nothing = |answer| Handled {
            answer,
            effects: Vec::new(),
            events: Vec::new(),
            state: StateChange::None,
            timers: Vec::new(),
        };
        if self.is_query(&command.method) && command.invocation.metadata.get(TIMER).is_none() {
            if self.engine.state() == State::Unspecified {
                return Err(self.absent());
            }
            let response = self.query(&command.method, &command.payload)?;
            return Ok(nothing(Answer::Reply(response)));
        }
        let (event, answer) = self.happens(&command)?;
        let mut handled = nothing(Answer::None);
        if let Some(event) = event {
            // Past this point nothing is refused any more.
            let asked = self.engine.happened(&event);
            handled.events = std::iter::once(&event).chain(&asked).map(Events::encode).collect();
            let mut run = self.engine.run.borrow_mut();
            handled.effects = std::mem::take(&mut run.effects);
            handled.timers = std::mem::take(&mut run.timers);
        }
        handled.answer = match answer {
            service::Answer::Empty => Answer::Reply(Vec::new()),
            service::Answer::Status => Answer::Reply(self.status().encode_to_vec()),
        };
        Ok(handled)
    }

    fn snapshot(&self) -> Option<EncodedMessage> {
        None
    }
}
