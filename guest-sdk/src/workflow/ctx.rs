//! What a workflow's code is given, and the futures that it awaits.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::{Message, Name};

use crate::call::{Call, Request, whole_ms};
use crate::context::split_mix;
use crate::event::decode;
use crate::rejection::{Code, Rejection};
use crate::workflow::run::{Retry, Shared, StepWait, TimerKind, Undo, Wait, What};

/// A workflow, seen from its code.
#[derive(Clone)]
pub struct Ctx(pub(super) Shared);

impl Ctx {
    /// Calls another function, once it is awaited: `ctx.step("charge", PaymentClient::charge(..)).await`.
    /// Its result is stored before the code goes on, and it is never called again once it has one.
    ///
    /// A step that fails in a way that may pass (UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
    /// ABORTED, INTERNAL, UNKNOWN, CANCELLED, UNIMPLEMENTED) is tried again; to an entity, all attempts
    /// together take effect once. Every other failure is the step's result at once.
    ///
    /// `name` is for people, and MUST not change while workflows with this step run.
    pub fn step<R>(&self, name: &str, call: Call<R>) -> Step<R> {
        Step {
            ctx: self.clone(),
            asking: Some(Asking {
                name: name.into(),
                call,
                retry: Retry::DEFAULT,
                undo: Undo::Nothing,
            }),
            number: 0,
        }
    }

    /// Waits for so long, also across restarts of the host.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep { ctx: self.clone(), duration, number: None }
    }

    /// Waits for a signal: the request of one of the service's methods with that role, by the method's
    /// name. Signals that came before they were waited for are kept, in their order.
    ///
    /// # Panics
    ///
    /// If the service has no such signal, or its request is another type.
    pub fn signal<M: Name + Default>(&self, method: &str) -> SignalWait<M> {
        let signals = self.0.borrow().signals;
        match signals.iter().find(|signal| signal.method == method) {
            None => panic!("the workflow's service has no signal {method:?}"),
            Some(signal) => assert_eq!(
                signal.request,
                M::full_name(),
                "the signal {method:?} is of another type than the code waits for"
            ),
        }
        SignalWait(Waiting {
            ctx: self.clone(),
            method: method.into(),
            limit: None,
            number: None,
            message: PhantomData,
        })
    }

    /// Which workflow this is.
    pub fn entity_id(&self) -> String {
        self.0.borrow().entity_id.to_string()
    }

    /// The time of what the code goes on from: the same in every replay.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.borrow().now_ms)
    }

    /// A random number, the same in every replay. Not for secrets.
    pub fn random(&self) -> u64 {
        split_mix(&mut self.0.borrow_mut().random)
    }
}

/// A step: await it for its result.
#[must_use = "a step does nothing until it is awaited"]
pub struct Step<R> {
    ctx: Ctx,
    /// Until it is first polled.
    asking: Option<Asking<R>>,
    number: u32,
}

struct Asking<R> {
    name: String,
    call: Call<R>,
    retry: Retry,
    undo: Undo,
}

impl<R> Step<R> {
    /// How long one attempt may take; otherwise 30 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|asking| asking.call = asking.call.clone().with_timeout(timeout))
    }

    /// How often to try again, and how long to wait before the first time; each further pause is twice as
    /// long, up to a minute or `pause`, if that is more. Otherwise 9 times, from 100 ms up to 30 s.
    pub fn retries(self, retries: u32, pause: Duration) -> Self {
        let pause_max = pause.max(Duration::from_secs(60));
        self.with(|asking| asking.retry = Retry { retries: Some(retries), pause, pause_max })
    }

    /// How to undo the step, should the workflow fail later. It is called if the step succeeded, or if
    /// it is not certain that it did not: so it MUST bear that there is nothing to undo.
    pub fn compensate<T>(self, call: Call<T>) -> Self {
        self.with(|asking| asking.undo = Undo::Call(call.into_request()))
    }

    /// The same, made of the step's reply: called only if the step succeeded.
    pub fn compensate_with<T>(self, call: impl FnOnce(R) -> Call<T> + 'static) -> Self
    where
        R: Message + Default + 'static,
    {
        let undo = |reply: &[u8]| R::decode(reply).ok().map(|reply| call(reply).into_request());
        self.with(|asking| asking.undo = Undo::OfReply(Box::new(undo)))
    }

    fn with(mut self, change: impl FnOnce(&mut Asking<R>)) -> Self {
        if let Some(asking) = &mut self.asking {
            change(asking);
        }
        self
    }
}

// Nothing in it is ever borrowed across an await.
impl<R> Unpin for Step<R> {}

impl<R: Message + Default> Future for Step<R> {
    type Output = Result<R, Rejection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.ctx.0.clone();
        let mut run = shared.borrow_mut();
        if let Some(Asking { name, call, retry, undo }) = self.asking.take() {
            let call: Request = call.into_request();
            let step = StepWait {
                name,
                call,
                retry,
                attempt: 1,
                pausing: false,
                result: None,
                undo,
                undoes: None,
            };
            self.number = run.schedule(step, Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let Some(wait) = run.waits.get_mut(&self.number) else { return Poll::Pending };
        let What::Step(step) = &wait.what else { return Poll::Pending };
        match &step.result {
            None => {
                wait.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ok(reply)) => Poll::Ready(decode("reply", reply).map_err(|error| {
                let text = format!("the reply to the step {:?} is {error}", step.name);
                Rejection::new(Code::Internal, text)
            })),
            Some(Err(rejection)) => Poll::Ready(Err(rejection.clone())),
        }
    }
}

/// A pause: await it.
#[must_use = "nobody waits until it is awaited"]
pub struct Sleep {
    ctx: Ctx,
    duration: Duration,
    number: Option<u32>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.ctx.0.clone();
        let mut run = shared.borrow_mut();
        let Some(number) = self.number else {
            let number = run.wait(What::Sleep { due: false }, Some(cx.waker().clone()));
            let due_ms = run.now_ms.saturating_add(whole_ms(self.duration));
            run.due_at(number, due_ms);
            self.number = Some(number);
            return Poll::Pending;
        };
        match run.waits.get_mut(&number) {
            Some(Wait { what: What::Sleep { due: true }, .. }) => Poll::Ready(()),
            Some(wait) => {
                wait.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

/// A signal to come: await it for its message.
#[must_use = "nobody waits until it is awaited"]
pub struct SignalWait<M>(Waiting<M>);

/// A signal to come in time: await it for its message, or none.
#[must_use = "nobody waits until it is awaited"]
pub struct SignalWithin<M>(Waiting<M>);

struct Waiting<M> {
    ctx: Ctx,
    method: String,
    limit: Option<Duration>,
    number: Option<u32>,
    message: PhantomData<fn() -> M>,
}

impl<M> SignalWait<M> {
    /// Waits no longer than this.
    pub fn within(mut self, limit: Duration) -> SignalWithin<M> {
        self.0.limit = Some(limit);
        SignalWithin(self.0)
    }
}

impl<M: Name + Default> Future for SignalWait<M> {
    type Output = M;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<M> {
        match self.0.poll(cx) {
            Poll::Ready(Some(message)) => Poll::Ready(message),
            // Without a limit it is never too late.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<M: Name + Default> Future for SignalWithin<M> {
    type Output = Option<M>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<M>> {
        self.0.poll(cx)
    }
}

impl<M: Name + Default> Waiting<M> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<M>> {
        let mut run = self.ctx.0.borrow_mut();
        let number = match self.number {
            Some(number) => number,
            None => {
                let payload = run.take_kept(&self.method);
                let (name, came) = (self.method.clone(), payload.is_some());
                let limited = self.limit.is_some() && !came;
                let number = run.wait(What::Signal { name, payload, limited, due: false }, None);
                if let Some(limit) = self.limit.filter(|_| limited) {
                    let due_ms = run.now_ms.saturating_add(whole_ms(limit));
                    run.due_at(number, due_ms);
                }
                self.number = Some(number);
                number
            }
        };
        let Some(wait) = run.waits.get_mut(&number) else { return Poll::Pending };
        match &mut wait.what {
            What::Signal { payload: payload @ Some(_), .. } => {
                // What cannot be read is refused before it is stored.
                let payload = payload.take().unwrap_or_default();
                Poll::Ready(Some(M::decode(&*payload).unwrap_or_default()))
            }
            What::Signal { due: true, .. } => Poll::Ready(None),
            What::Signal { .. } | What::Step(_) | What::Sleep { .. } => {
                wait.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

// Who is not waited for any more, because something else was faster, must not take a signal away.
impl<M> Drop for Waiting<M> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let Ok(mut run) = self.ctx.0.try_borrow_mut() else { return };
        let Some(wait) = run.waits.remove(&number) else { return };
        let What::Signal { name, payload, limited, due } = wait.what else { return };
        if limited && !due {
            run.cancel_timer(TimerKind::Due, number);
        }
        if let Some(payload) = payload {
            run.kept.push_front((name, payload));
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let Ok(mut run) = self.ctx.0.try_borrow_mut() else { return };
        if let Some(Wait { what: What::Sleep { due: false }, .. }) = run.waits.remove(&number) {
            run.cancel_timer(TimerKind::Due, number);
        }
    }
}
