//! What a workflow's code and its engine share: what the code waits for, and what it has asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use crate::call::{Due, whole_ms};
use crate::call::{Effect, IDEMPOTENCY_KEY, Request, Timer, TimerChange};
use crate::rejection::{Code, Rejection};
use crate::workflow::history::Event;
use crate::workflow::service::Signal;
use crate::workflow::v1::{StepScheduled, TimerSet};

/// Where the result of an effect goes.
const RESULT_TO: &str = "stead-result-to";

pub type Shared = Rc<RefCell<Run>>;

#[derive(Default)]
pub struct Run {
    pub entity_id: Rc<str>,
    pub service: &'static str,
    /// The method whose command a timer is.
    pub timer_method: &'static str,
    pub signals: &'static [Signal],
    /// Tells this run from all others.
    pub key: String,
    pub now_ms: u64,
    pub random: u64,
    pub waits: BTreeMap<u32, Wait>,
    pub next: u32,
    /// Signals that nobody has waited for yet, the oldest first.
    pub kept: VecDeque<(String, Vec<u8>)>,
    /// What the code has asked for since the engine last looked.
    pub asked: Vec<Event>,
    pub effects: Vec<Effect>,
    pub timers: Vec<TimerChange>,
}

/// One thing that the code waits for, or has waited for.
pub struct Wait {
    pub what: What,
    pub waker: Option<Waker>,
}

pub enum What {
    Step(Box<StepWait>),
    Sleep { due: bool },
    Signal { name: String, payload: Option<Vec<u8>>, limited: bool, due: bool },
}

pub struct StepWait {
    pub name: String,
    pub call: Request,
    pub retry: Retry,
    pub attempt: u32,
    /// Between two attempts.
    pub pausing: bool,
    pub result: Option<Result<Vec<u8>, Rejection>>,
    /// How to undo it.
    pub undo: Undo,
    /// This is how another step is undone.
    pub undoes: Option<u32>,
}

#[derive(Default)]
pub enum Undo {
    #[default]
    Nothing,
    Call(Request),
    /// Follows from the reply.
    OfReply(CallOfReply),
}

/// Makes a call of an encoded reply; none if that cannot be read.
pub type CallOfReply = Box<dyn FnOnce(&[u8]) -> Option<Request>>;

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Beyond the first attempt; none is for ever, and whatever the failure.
    pub retries: Option<u32>,
    pub pause: Duration,
    pub pause_max: Duration,
}

impl Retry {
    pub const DEFAULT: Self = Self {
        retries: Some(9),
        pause: Duration::from_millis(100),
        pause_max: Duration::from_secs(30),
    };

    /// Of compensations.
    pub const FOR_EVER: Self =
        Self { retries: None, pause: Duration::from_secs(1), pause_max: Duration::from_secs(3600) };

    /// How long to wait after this failed attempt, if there is to be another.
    pub fn pause_ms(&self, attempt: u32, code: Code) -> Option<u64> {
        let again = match self.retries {
            Some(retries) => attempt <= retries && may_pass(code),
            None => true,
        };
        let doubled = self.pause.saturating_mul(1 << (attempt - 1).min(20));
        again.then(|| whole_ms(doubled.min(self.pause_max)))
    }
}

/// Whether the same call may succeed later. With these codes it is also not certain that it did not
/// happen.
pub fn may_pass(code: Code) -> bool {
    match code {
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable => true,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

impl Run {
    /// Adds something to wait for.
    pub fn wait(&mut self, what: What, waker: Option<Waker>) -> u32 {
        let number = self.next;
        self.next += 1;
        self.waits.insert(number, Wait { what, waker });
        number
    }

    pub fn schedule(&mut self, step: StepWait, waker: Option<Waker>) -> u32 {
        let name = step.name.clone();
        let (service, method) = (step.call.service.to_string(), step.call.method.to_string());
        let compensation = step.undoes.is_some();
        let number = self.wait(What::Step(Box::new(step)), waker);
        let scheduled =
            StepScheduled { step: number, attempt: 1, name, service, method, compensation };
        self.asked.push(Event::Scheduled(scheduled));
        self.call(number);
        number
    }

    /// Has the present attempt of a step called.
    pub fn call(&mut self, number: u32) {
        let Some(Wait { what: What::Step(step), .. }) = self.waits.get(&number) else { return };
        let mut call = step.call.clone();
        call.metadata.push(RESULT_TO, &token(number, step.attempt));
        // The same for all attempts, so that together they take effect once.
        call.metadata.push(IDEMPOTENCY_KEY, &format!("{}/{number}", self.key));
        self.effects.push(Effect { call, synchronous: false });
    }

    /// Waits for a time as well.
    pub fn due_at(&mut self, number: u32, due_ms: u64) {
        self.asked.push(Event::TimerSet(TimerSet { step: number, due_ms }));
        self.set_timer(TimerKind::Due, number, due_ms);
    }

    pub fn set_timer(&mut self, kind: TimerKind, number: u32, due_ms: u64) {
        let timer = Timer {
            due: Due::AtMs(due_ms),
            every_ms: None,
            method: self.timer_method.into(),
            payload: Vec::new(),
        };
        self.timers.push(TimerChange { name: kind.name(number), timer: Some(timer) });
    }

    pub fn cancel_timer(&mut self, kind: TimerKind, number: u32) {
        self.timers.push(TimerChange { name: kind.name(number), timer: None });
    }

    pub fn wake(&mut self, number: u32) {
        if let Some(waker) = self.waits.get_mut(&number).and_then(|wait| wait.waker.take()) {
            waker.wake();
        }
    }

    pub fn step(&mut self, number: u32) -> Option<&mut StepWait> {
        match &mut self.waits.get_mut(&number)?.what {
            What::Step(step) => Some(step),
            What::Sleep { .. } | What::Signal { .. } => None,
        }
    }

    /// The oldest signal of this name that nobody has waited for yet.
    pub fn take_kept(&mut self, name: &str) -> Option<Vec<u8>> {
        let position = self.kept.iter().position(|signal| signal.0 == name)?;
        self.kept.remove(position).map(|signal| signal.1)
    }
}

/// The two reasons for a workflow's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerKind {
    /// The code waits for a time.
    Due,
    /// A step is to be tried again.
    Retry,
}

impl TimerKind {
    pub fn name(self, number: u32) -> String {
        match self {
            Self::Due => format!("due-{number}"),
            Self::Retry => format!("retry-{number}"),
        }
    }

    pub fn parse(name: &str) -> Option<(Self, u32)> {
        let (kind, number) = name.split_once('-')?;
        let kind = match kind {
            "due" => Self::Due,
            "retry" => Self::Retry,
            _ => return None,
        };
        Some((kind, number.parse().ok()?))
    }
}

/// Tells the result of one attempt from all others.
pub fn token(number: u32, attempt: u32) -> String {
    format!("{number}.{attempt}")
}

/// The step and the attempt of a token.
pub fn parse_token(token: &str) -> Option<(u32, u32)> {
    let (number, attempt) = token.split_once('.')?;
    Some((number.parse().ok()?, attempt.parse().ok()?))
}
