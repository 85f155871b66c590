//! Runs a workflow's code against its history: each event that says what happened leads to events that
//! say what the code asks for then. A new event and a replayed one take the same way; a replay compares
//! what the code asks for with what is stored.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use prost::{Message, Name};

use crate::rejection::{Code, Rejection};
use crate::workflow::ctx::Ctx;
use crate::workflow::history::Event;
use crate::workflow::run::{Retry, Run, Shared, StepWait, TimerKind, Undo, What, may_pass};
use crate::workflow::service::Service;
use crate::workflow::v1::{self, Compensating, Completed, Started, State, Status};
use crate::workflow::{EVENTS_MAX, Workflow};

/// How often the code may ask to go on at once before it is left to wait.
const POLLS_MAX: usize = 1_000;

type Code_<O> = Pin<Box<dyn Future<Output = Result<O, Rejection>>>>;

pub struct Engine<W: Workflow> {
    pub run: Shared,
    /// While the code runs.
    code: Option<Code_<W::Output>>,
    pub status: Status,
    events: u32,
    /// In a replay: what the code has asked for, and what is stored has not confirmed yet.
    unconfirmed: VecDeque<Event>,
}

impl<W: Workflow> Engine<W> {
    pub fn new(service: &Service<W>, entity_id: &str) -> Self {
        let run = Run {
            entity_id: entity_id.into(),
            service: service.name,
            timer_method: service.start.method,
            signals: service.signals,
            ..Run::default()
        };
        Self {
            run: Rc::new(RefCell::new(run)),
            code: None,
            status: Status::default(),
            events: 0,
            unconfirmed: VecDeque::new(),
        }
    }

    pub fn state(&self) -> State {
        self.status.state()
    }

    /// A new event: what it leads to.
    pub fn happened(&mut self, event: &Event) -> Vec<Event> {
        let asked = self.advance(event);
        self.events = self.events.saturating_add(u32::try_from(asked.len()).unwrap_or(u32::MAX));
        asked
    }

    /// A stored event.
    ///
    /// # Errors
    ///
    /// It is not what the code asks for.
    pub fn replayed(&mut self, event: Event) -> Result<(), String> {
        let derived = match &event {
            Event::Scheduled(scheduled) => scheduled.attempt == 1,
            Event::TimerSet(_) | Event::Compensating(_) | Event::Completed(_) => true,
            Event::Started(_)
            | Event::Failed(_)
            | Event::Stepped(_)
            | Event::TimerFired(_)
            | Event::Signalled(_) => false,
        };
        if !derived {
            self.confirmed()?;
            let asked = self.advance(&event);
            self.unconfirmed.extend(asked);
            let mut run = self.run.borrow_mut();
            run.effects.clear();
            run.timers.clear();
            return Ok(());
        }
        match self.unconfirmed.pop_front() {
            Some(asked) if asked.asks_as(&event) => {}
            Some(asked) => return Err(strayed(&asked.described(), &event.described())),
            None => return Err(strayed("for nothing", &event.described())),
        }
        self.events = self.events.saturating_add(1);
        if let Event::Completed(completed) = event {
            // What was answered once stays so, whatever the code would make of it now.
            self.end(&completed);
        }
        Ok(())
    }

    /// # Errors
    ///
    /// The code asks for more than is stored.
    pub fn confirmed(&self) -> Result<(), String> {
        match self.unconfirmed.front() {
            Some(asked) => Err(strayed(&asked.described(), "for nothing")),
            None => Ok(()),
        }
    }

    /// Whether it has so many events that it may have no more.
    pub fn is_full(&self) -> bool {
        self.events >= EVENTS_MAX
    }

    fn advance(&mut self, event: &Event) -> Vec<Event> {
        self.events = self.events.saturating_add(1);
        match event {
            Event::Started(started) => self.start(started),
            Event::Scheduled(scheduled) => {
                let mut run = self.run.borrow_mut();
                if let Some(step) = run.step(scheduled.step) {
                    (step.attempt, step.pausing) = (scheduled.attempt, false);
                }
                run.call(scheduled.step);
                return Vec::new();
            }
            Event::Failed(failed) => {
                let mut run = self.run.borrow_mut();
                if let Some(step) = run.step(failed.step) {
                    step.pausing = true;
                }
                run.set_timer(TimerKind::Retry, failed.step, failed.retry_at_ms);
                return Vec::new();
            }
            Event::Stepped(completed) => {
                let mut run = self.run.borrow_mut();
                run.now_ms = completed.at_ms;
                if let Some(step) = run.step(completed.step) {
                    step.end(match completed.code {
                        0 => Ok(completed.reply.clone()),
                        code => Err(Rejection::new(Code::from_number(code), &*completed.message)),
                    });
                    if let Some(undone) = step.undoes.map(|_| step.name.clone()) {
                        self.status.compensated.push(undone);
                    }
                }
                run.wake(completed.step);
            }
            Event::TimerFired(fired) => {
                let mut run = self.run.borrow_mut();
                run.now_ms = fired.at_ms;
                if let Some(wait) = run.waits.get_mut(&fired.step) {
                    match &mut wait.what {
                        What::Sleep { due } | What::Signal { due, .. } => *due = true,
                        What::Step(_) => {}
                    }
                }
                run.wake(fired.step);
            }
            Event::Signalled(signalled) => {
                let mut run = self.run.borrow_mut();
                run.now_ms = signalled.at_ms;
                run.signal(&signalled.name, &signalled.payload);
            }
            Event::TimerSet(_) | Event::Compensating(_) | Event::Completed(_) => {}
        }
        self.go_on();
        std::mem::take(&mut self.run.borrow_mut().asked)
    }

    fn start(&mut self, started: &Started) {
        let mut run = self.run.borrow_mut();
        run.now_ms = started.at_ms;
        run.random = started.seed;
        run.key = format!("{}/{:x}-{:x}", run.service, started.at_ms, started.seed);
        drop(run);
        self.status.set_state(State::Running);
        self.status.started_ms = started.at_ms;
        // It was checked before it was stored.
        let input = W::Input::decode(&*started.input).unwrap_or_default();
        self.code = Some(Box::pin(W::run(Ctx(Rc::clone(&self.run)), input)));
    }

    fn go_on(&mut self) {
        if self.state() == State::Compensating {
            return self.compensate();
        }
        if self.code.is_some() && self.is_full() {
            let text = format!(
                "the workflow has {EVENTS_MAX} events, which is the limit; let it start others to go on"
            );
            return self.returned(Err(Rejection::new(Code::ResourceExhausted, text)));
        }
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&woken));
        for _ in 0..POLLS_MAX {
            let Some(code) = &mut self.code else { return };
            match code.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return self.returned(result),
                Poll::Pending if woken.0.swap(false, Ordering::Relaxed) => {}
                Poll::Pending => return,
            }
        }
    }

    fn returned(&mut self, result: Result<W::Output, Rejection>) {
        self.code = None;
        let rejection = match result {
            Ok(output) => {
                let result = prost_types::Any {
                    type_url: format!("type.googleapis.com/{}", W::Output::full_name()),
                    value: output.encode_to_vec(),
                };
                return self.complete(0, String::new(), Some(result));
            }
            Err(rejection) => rejection,
        };
        self.status.code = rejection.code as u32;
        self.status.message = rejection.message;
        let undoes = self.run.borrow().waits.values().any(|wait| match &wait.what {
            What::Step(step) => step.may_be_undone(),
            What::Sleep { .. } | What::Signal { .. } => false,
        });
        if undoes {
            self.status.set_state(State::Compensating);
            let compensating =
                Compensating { code: self.status.code, message: self.status.message.clone() };
            self.run.borrow_mut().asked.push(Event::Compensating(compensating));
            self.compensate();
        } else {
            self.complete(self.status.code, self.status.message.clone(), None);
        }
    }

    /// Undoes the newest step that is to be undone, unless something is on its way that may have to be.
    fn compensate(&mut self) {
        let mut run = self.run.borrow_mut();
        let mut newest = None;
        for (&number, wait) in &mut run.waits {
            let What::Step(step) = &mut wait.what else { continue };
            if step.result.is_none() && (step.undoes.is_some() || step.may_be_undone()) {
                return;
            }
            if step.may_be_undone() {
                newest = Some((number, step));
            }
        }
        let Some((number, step)) = newest else {
            drop(run);
            return self.complete(self.status.code, self.status.message.clone(), None);
        };
        let name = step.name.clone();
        let Undo::Call(call) = std::mem::take(&mut step.undo) else { return };
        let undo = StepWait {
            name,
            call,
            retry: Retry::FOR_EVER,
            attempt: 1,
            pausing: false,
            result: None,
            undo: Undo::Nothing,
            undoes: Some(number),
        };
        run.schedule(undo, None);
    }

    fn complete(&mut self, code: u32, message: String, result: Option<prost_types::Any>) {
        let at_ms = self.run.borrow().now_ms;
        let completed = Completed { code, message, result, at_ms };
        self.end(&completed);
        let mut run = self.run.borrow_mut();
        let steps = run.waits.iter().filter_map(|(&number, wait)| match &wait.what {
            What::Step(step) if step.pausing && step.result.is_none() => Some(number),
            What::Step(_) | What::Sleep { .. } | What::Signal { .. } => None,
        });
        for number in steps.collect::<Vec<_>>() {
            run.cancel_timer(TimerKind::Retry, number);
        }
        run.waits.clear();
        run.kept.clear();
        run.asked.push(Event::Completed(completed));
    }

    fn end(&mut self, completed: &Completed) {
        self.code = None;
        self.status.set_state(if completed.code == 0 { State::Completed } else { State::Failed });
        self.status.code = completed.code;
        self.status.message.clone_from(&completed.message);
        self.status.result.clone_from(&completed.result);
        self.status.ended_ms = completed.at_ms;
    }

    /// How it is, for its callers.
    pub fn told(&self) -> v1::Status {
        let run = self.run.borrow();
        let mut status = self.status.clone();
        status.waiting_for = run.waits.values().filter_map(|wait| wait.what.described()).collect();
        status
    }
}

impl StepWait {
    fn end(&mut self, result: Result<Vec<u8>, Rejection>) {
        self.pausing = false;
        self.call.payload = Vec::new();
        self.undo = match (std::mem::take(&mut self.undo), &result) {
            (Undo::OfReply(make), Ok(reply)) => make(reply).map_or(Undo::Nothing, Undo::Call),
            (Undo::OfReply(_), Err(_)) => Undo::Nothing,
            (Undo::Call(_), Err(rejection)) if !may_pass(rejection.code) => Undo::Nothing,
            (undo, _) => undo,
        };
        self.result = Some(result);
    }

    fn may_be_undone(&self) -> bool {
        match self.undo {
            Undo::Nothing => false,
            Undo::Call(_) | Undo::OfReply(_) => true,
        }
    }
}

impl Run {
    /// Gives a signal to who has waited for it longest, or keeps it.
    fn signal(&mut self, name: &str, signalled: &[u8]) {
        let waiting = self.waits.iter_mut().find_map(|(&number, wait)| match &mut wait.what {
            What::Signal { name: waited, payload: payload @ None, limited, due: false }
                if waited == name =>
            {
                *payload = Some(signalled.to_vec());
                Some((number, std::mem::take(limited)))
            }
            What::Signal { .. } | What::Step(_) | What::Sleep { .. } => None,
        });
        let Some((number, limited)) = waiting else {
            return self.kept.push_back((name.to_owned(), signalled.to_vec()));
        };
        if limited {
            self.cancel_timer(TimerKind::Due, number);
        }
        self.wake(number);
    }
}

impl What {
    fn described(&self) -> Option<String> {
        match self {
            Self::Step(step) if step.result.is_some() => None,
            Self::Step(step) => Some(step.name.clone()),
            Self::Sleep { due: false } => Some("sleep".to_owned()),
            Self::Signal { name, payload: None, due: false, .. } => Some(name.clone()),
            Self::Sleep { due: true } | Self::Signal { .. } => None,
        }
    }
}

fn strayed(asked: &str, stored: &str) -> String {
    format!(
        "the workflow's code asks {asked} where its history asked {stored}: the code has changed, or does \
         not ask for the same each time it runs; deploy a module with the earlier order of steps"
    )
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
