//! Workflows through the contract: what they ask for, and what is stored.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use prost::{Message, Name};

use super::history::Event;
use super::service::{Answer, Service, Signal, Start, check};
use super::v1::{Signalled, Started, State, StepScheduled};
use super::*;
use crate::call::Call;
use crate::event::Events;
use crate::module::Entity;
use crate::rejection::Code;
use crate::testing::WorkflowScenario;

/// Input, request, reply, signal and result in one.
#[derive(Clone, PartialEq, Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
}

impl Name for Note {
    const NAME: &'static str = "Note";
    const PACKAGE: &'static str = "test";
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned() }
}

fn call(method: &'static str) -> Call<Note> {
    Call::new("test.Other", method, &note(method))
}

fn service<W: Workflow<Input = Note>>() -> Service<W> {
    Service {
        name: "test.Flow",
        descriptors: &[],
        start: Start { method: "Begin", answer: Answer::Status, check: check::<Note> },
        signals: &[Signal {
            method: "Tell",
            request: "test.Note",
            answer: Answer::Empty,
            check: check::<Note>,
        }],
        query: |progress, method, _| match method {
            "Get" => Ok(progress.status.encode_to_vec()),
            other => Err(crate::service::unknown_method("test.Flow", other)),
        },
    }
}

fn begin() -> Call<v1::Status> {
    Call::new("test.Flow", "Begin", &note("input"))
}

fn tell(text: &str) -> Call<()> {
    Call::new("test.Flow", "Tell", &note(text))
}

fn get() -> Call<v1::Status> {
    Call::new("test.Flow", "Get", &note(""))
}

fn scenario<W: Workflow<Input = Note>>() -> WorkflowScenario<W> {
    WorkflowScenario::new(service::<W>(), "one")
}

/// Two steps, the first of which can be undone, with a pause and a signal between them.
struct Long;

impl Workflow for Long {
    type Input = Note;
    type Output = Note;

    async fn run(ctx: Ctx, input: Note) -> Result<Note, Rejection> {
        let first = ctx.step("first", call("First")).compensate(call("UndoFirst")).await?;
        ctx.sleep(Duration::from_secs(10)).await;
        let told = ctx.signal::<Note>("Tell").await;
        let second = ctx
            .step("second", call("Second"))
            .retries(2, Duration::from_secs(1))
            .compensate_with(|reply: Note| Call::<Note>::new("test.Other", "UndoSecond", &reply))
            .await?;
        ctx.step("third", call("Third")).await?;
        let Note { text } = input;
        Ok(note(&format!("{text} {} {} {}", first.text, told.text, second.text)))
    }
}

fn long() -> WorkflowScenario<Long> {
    scenario::<Long>()
        .answering(|_: Note| call("First"), |_| Ok(note("1")))
        .answering(|_: Note| call("Second"), |_| Ok(note("2")))
        .answering(|_: Note| call("Third"), |_| Ok(note("3")))
}

#[test]
fn code_that_waits_goes_on_to_its_result() {
    let mut flow = long();
    let status = flow.send(begin()).unwrap();
    assert_eq!((status.state(), &*status.waiting_for), (State::Running, &["first".to_owned()][..]));
    assert_eq!(flow.status().waiting_for, ["sleep"]);
    flow.advance(Duration::from_millis(9_999));
    assert_eq!(flow.status().waiting_for, ["sleep"]);
    flow.advance(Duration::from_millis(1));
    assert_eq!(flow.status().waiting_for, ["Tell"]);
    flow.send(tell("t")).unwrap();
    assert_eq!(flow.result(), note("input 1 t 2"));
    assert_eq!(flow.calls(), ["First", "Second", "Third"]);
    let status = flow.send(get()).unwrap();
    assert_eq!((status.state(), status.ended_ms), (State::Completed, 10_000));
}

#[test]
fn a_workflow_starts_once() {
    let mut flow = long();
    flow.send(begin()).unwrap();
    let (events, calls) = (flow.events(), flow.calls().len());
    assert_eq!(flow.send(begin()).unwrap().state(), State::Running);
    assert_eq!((flow.events(), flow.calls().len()), (events, calls));
}

#[test]
fn what_was_not_started_is_not_found() {
    let mut flow = long();
    assert_eq!(flow.send(get()).unwrap_err().code, Code::NotFound);
    assert_eq!(flow.send(tell("t")).unwrap_err().code, Code::NotFound);
    assert_eq!(flow.events(), 0);
}

#[test]
fn a_signal_that_comes_early_is_kept_and_one_that_comes_late_is_refused() {
    let mut flow = long();
    flow.send(begin()).unwrap();
    flow.send(tell("early")).unwrap();
    flow.advance(Duration::from_secs(10));
    assert_eq!(flow.result(), note("input 1 early 2"));
    assert_eq!(flow.send(tell("late")).unwrap_err().code, Code::FailedPrecondition);
}

#[test]
fn a_failure_that_may_pass_is_tried_again_after_a_pause_that_doubles() {
    let mut failures = 2;
    let mut flow = long().answering(
        |_: Note| call("Second"),
        move |_| match failures {
            0 => Ok(note("at last")),
            _ => {
                failures -= 1;
                Err(Rejection::new(Code::Unavailable, "not now"))
            }
        },
    );
    flow.send(begin()).unwrap();
    flow.send(tell("t")).unwrap();
    flow.advance(Duration::from_secs(10));
    assert_eq!(flow.calls(), ["First", "Second"]);
    flow.advance(Duration::from_secs(1));
    assert_eq!(flow.calls(), ["First", "Second", "Second"]);
    flow.advance(Duration::from_millis(1_999));
    assert_eq!(flow.status().waiting_for, ["second"]);
    flow.advance(Duration::from_millis(1));
    assert_eq!(flow.result(), note("input 1 t at last"));
}

#[test]
fn a_failure_is_undone_in_reverse_order_each_until_it_is_done() {
    let undone = std::rc::Rc::new(RefCell::new(Vec::new()));
    let (first, second) = (undone.clone(), undone.clone());
    let mut refused = 1;
    let mut flow = long()
        .answering(
            |_: Note| call("Third"),
            |_| Err(Rejection::new(Code::FailedPrecondition, "out of stock")),
        )
        .answering(
            |_: Note| call("UndoFirst"),
            move |request| {
                first.borrow_mut().push(request.text);
                Ok(note(""))
            },
        )
        .answering(
            |_: Note| call("UndoSecond"),
            move |request: Note| {
                second.borrow_mut().push(request.text);
                match std::mem::take(&mut refused) {
                    0 => Ok(note("")),
                    _ => Err(Rejection::new(Code::InvalidArgument, "not yet")),
                }
            },
        );
    flow.send(begin()).unwrap();
    flow.send(tell("t")).unwrap();
    flow.advance(Duration::from_secs(10));
    assert_eq!(flow.status().state(), State::Compensating);
    flow.advance(Duration::from_secs(1));
    assert_eq!(*undone.borrow(), ["2", "2", "UndoFirst"]);
    let status = flow.status();
    assert_eq!(status.state(), State::Failed);
    assert_eq!((status.code, &*status.message), (Code::FailedPrecondition as u32, "out of stock"));
    assert_eq!(status.compensated, ["second", "first"]);
}

#[test]
fn a_step_that_may_have_happened_is_undone_and_one_that_was_refused_is_not() {
    for (code, wanted) in [(Code::DeadlineExceeded, 1), (Code::FailedPrecondition, 0)] {
        let mut flow = long()
            .answering(|_: Note| call("First"), move |_| Err(Rejection::new(code, "no")))
            .answering(|_: Note| call("UndoFirst"), |_| Ok(note("")));
        flow.send(begin()).unwrap();
        flow.advance(Duration::from_secs(3600));
        assert_eq!(flow.status().state(), State::Failed);
        let undone = flow.calls().iter().filter(|call| **call == "UndoFirst").count();
        assert_eq!(undone, wanted, "{code:?}");
    }
}

/// A signal that is waited for only so long.
struct Impatient;

impl Workflow for Impatient {
    type Input = Note;
    type Output = Note;

    async fn run(ctx: Ctx, _: Note) -> Result<Note, Rejection> {
        let told = ctx.signal::<Note>("Tell").within(Duration::from_secs(5)).await;
        let again = ctx.signal::<Note>("Tell").within(Duration::from_secs(5)).await;
        let text = |told: Option<Note>| told.map_or("nothing".to_owned(), |told| told.text);
        Ok(note(&format!("{} {}", text(told), text(again))))
    }
}

#[test]
fn a_signal_is_waited_for_no_longer_than_its_limit() {
    let mut flow = scenario::<Impatient>();
    flow.send(begin()).unwrap();
    flow.advance(Duration::from_secs(5));
    flow.send(tell("in time")).unwrap();
    assert_eq!(flow.result(), note("nothing in time"));
}

/// Two steps side by side; it fails as soon as the second one does.
struct Both;

impl Workflow for Both {
    type Input = Note;
    type Output = Note;

    async fn run(ctx: Ctx, _: Note) -> Result<Note, Rejection> {
        let mut first = ctx.step("first", call("First")).compensate(call("UndoFirst"));
        let mut second = ctx.step("second", call("Second"));
        poll_fn(|cx| {
            let (first, second) = (Pin::new(&mut first).poll(cx), Pin::new(&mut second).poll(cx));
            match (first, second) {
                (_, Poll::Ready(Err(rejection))) => Poll::Ready(Err(rejection)),
                (Poll::Ready(first), Poll::Ready(Ok(_))) => Poll::Ready(first),
                (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
            }
        })
        .await
    }
}

#[test]
fn steps_wait_side_by_side() {
    let mut flow = scenario::<Both>().answering(|_: Note| call("Second"), |_| Ok(note("2")));
    flow.send(begin()).unwrap();
    assert_eq!(flow.status().waiting_for, ["first"]);
    flow = flow.answering(|_: Note| call("First"), |_| Ok(note("1")));
    flow.advance(Duration::ZERO);
    assert_eq!(flow.result(), note("1"));
}

#[test]
fn a_step_on_its_way_is_waited_for_before_it_is_undone() {
    let mut flow =
        scenario::<Both>().answering(|_: Note| call("UndoFirst"), |_| Ok(note(""))).answering(
            |_: Note| call("Second"),
            |_| Err(Rejection::new(Code::FailedPrecondition, "no")),
        );
    flow.send(begin()).unwrap();
    assert_eq!(flow.status().state(), State::Compensating);
    assert_eq!(flow.calls(), ["Second"]);
    flow = flow.answering(|_: Note| call("First"), |_| Ok(note("1")));
    flow.advance(Duration::ZERO);
    assert_eq!(flow.calls(), ["Second", "First", "UndoFirst"]);
    assert_eq!(flow.status().compensated, ["first"]);
}

fn live<W: Workflow<Input = Note>>() -> Live<W> {
    Live::new(service::<W>(), "one")
}

fn apply<W: Workflow>(live: &mut Live<W>, event: Event) -> Result<(), String> {
    let event = event.encode();
    live.apply(&event.type_name, &event.data)
}

fn scheduled(name: &str, method: &str) -> Event {
    Event::Scheduled(StepScheduled {
        step: 0,
        attempt: 1,
        name: name.into(),
        service: "test.Other".into(),
        method: method.into(),
        compensation: false,
    })
}

#[test]
fn code_that_asks_for_another_step_than_is_stored_is_told_so() {
    let mut live = live::<Long>();
    apply(&mut live, Event::Started(Started::default())).unwrap();
    let fault = apply(&mut live, scheduled("zeroth", "First")).unwrap_err();
    assert!(fault.contains("\"first\"") && fault.contains("\"zeroth\""), "{fault}");
}

#[test]
fn code_that_asks_for_more_than_is_stored_is_told_so() {
    let mut live = live::<Long>();
    apply(&mut live, Event::Started(Started::default())).unwrap();
    let signalled = Event::Signalled(Signalled { name: "Tell".into(), ..Signalled::default() });
    let fault = apply(&mut live, signalled).unwrap_err();
    assert!(fault.contains("\"first\""), "{fault}");
}

/// Never ends by itself.
struct Endless;

impl Workflow for Endless {
    type Input = Note;
    type Output = Note;

    async fn run(ctx: Ctx, _: Note) -> Result<Note, Rejection> {
        ctx.step("first", call("First")).compensate(call("UndoFirst")).await?;
        loop {
            ctx.signal::<Note>("Tell").await;
        }
    }
}

#[test]
fn a_history_that_is_full_ends_in_a_failure_that_says_so() {
    let mut live = live::<Endless>();
    apply(&mut live, Event::Started(Started::default())).unwrap();
    apply(&mut live, scheduled("first", "First")).unwrap();
    apply(&mut live, Event::Stepped(v1::StepCompleted::default())).unwrap();
    let signalled = || Event::Signalled(Signalled { name: "Tell".into(), ..Signalled::default() });
    for _ in 3..EVENTS_MAX - 1 {
        apply(&mut live, signalled()).unwrap();
    }
    assert_eq!(live.status().state(), State::Running);
    apply(&mut live, signalled()).unwrap();
    let status = live.status();
    assert_eq!(status.state(), State::Compensating);
    assert_eq!(status.code, Code::ResourceExhausted as u32);
    assert!(status.message.contains("10000 events"), "{}", status.message);
}
