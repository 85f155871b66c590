//! Why a history is not linearizable, in as few calls as can be.

use std::fmt::Write;
use std::time::Duration;

use crate::linear::{History, Model, Operation, Verdict, search};

/// Smaller than for a verdict: there are many searches.
const CONFIGURATIONS_MAX: usize = 50_000;

/// The calls of a [`Verdict::Violated`] history that contradict each other, one a line.
pub fn explain<M: Model>(history: &History<M>) -> String {
    let mut history = shrunk::<M>(cut::<M>(history));
    history.sort_by_key(|operation| operation.invoked);
    let mut text =
        format!("no order of these {} calls explains what was answered:\n", history.len());
    for operation in &history {
        let _ = writeln!(text, "  {}", line(operation));
    }
    text
}

fn line<C: std::fmt::Debug, A: std::fmt::Debug>(operation: &Operation<C, A>) -> String {
    let Operation { client, call, invoked, returned } = operation;
    let sent = format!("{:>10.3} s  client {client:>2}  {call:?}", invoked.as_secs_f64());
    match returned {
        Some((at, answer)) => format!("{sent} -> {answer:?} at {:.3} s", at.as_secs_f64()),
        None => format!("{sent} -> outcome unknown"),
    }
}

/// Up to the first answer that has no explanation.
fn cut<M: Model>(history: &History<M>) -> History<M> {
    let returns = history.iter().filter_map(|operation| operation.returned.as_ref());
    let mut ends: Vec<Duration> = returns.map(|(at, _)| *at).collect();
    ends.sort_unstable();
    let fine = ends.partition_point(|end| !violated::<M>(&until::<M>(history, *end)));
    ends.get(fine).map_or_else(|| history.clone(), |end| until::<M>(history, *end))
}

/// What was known at `end`.
fn until<M: Model>(history: &History<M>, end: Duration) -> History<M> {
    let mut known = history.clone();
    known.retain(|operation| operation.invoked <= end);
    for operation in &mut known {
        operation.returned = operation.returned.take().filter(|(at, _)| *at <= end);
    }
    known
}

/// Without the calls that the contradiction does not need: half of them at once, then a quarter, ...
fn shrunk<M: Model>(mut history: History<M>) -> History<M> {
    let mut at_once = history.len().div_ceil(2);
    while at_once > 0 {
        let before = history.len();
        let mut end = history.len();
        while end > 0 {
            let start = end.saturating_sub(at_once);
            let fewer = left_out::<M>(&history, start, end);
            if let Some(fewer) = fewer.filter(violated::<M>) {
                history = fewer;
            }
            end = start;
        }
        if at_once > 1 || history.len() == before {
            at_once /= 2;
        }
    }
    history
}

/// As it would have been without some calls, if one can tell.
fn left_out<M: Model>(history: &History<M>, start: usize, end: usize) -> Option<History<M>> {
    let mut fewer = history.clone();
    for left_out in fewer.drain(start..end).collect::<Vec<_>>() {
        if M::only_reads(&left_out.call) {
            continue;
        }
        for (_, answer) in fewer.iter_mut().filter_map(|operation| operation.returned.as_mut()) {
            *answer = M::without(&left_out.call, answer)?;
        }
    }
    Some(fewer)
}

fn violated<M: Model>(history: &History<M>) -> bool {
    search::run::<M>(history, CONFIGURATIONS_MAX) == Verdict::Violated
}
