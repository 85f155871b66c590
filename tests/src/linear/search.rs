//! The search for an order of the calls, depth first.

use std::collections::HashSet;
use std::time::Duration;

use crate::linear::{History, Model, Operation, Tells, Verdict};

const NEVER: Duration = Duration::MAX;

/// A call as the search sees it.
struct Entry<'a, M: Model> {
    call: &'a M::Call,
    answer: Option<&'a M::Answer>,
    invoked: Duration,
    /// It took effect before; [`NEVER`] if it may also not have happened.
    before: Duration,
    /// What must have taken effect before it.
    after: Calls,
}

/// A configuration on the current path, and which calls are still to be tried next from here.
struct Frame<S> {
    state: S,
    /// The last one is tried first.
    candidates: Vec<usize>,
    /// The call that led here.
    taken: Option<usize>,
}

/// A set of calls, one bit for each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Calls(Vec<u64>);

impl Calls {
    fn none(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)])
    }

    fn has(&self, call: usize) -> bool {
        self.0[call / 64] & 1 << (call % 64) != 0
    }

    fn flip(&mut self, call: usize) {
        self.0[call / 64] ^= 1 << (call % 64);
    }

    fn add(&mut self, call: usize) {
        self.0[call / 64] |= 1 << (call % 64);
    }

    fn has_all(&self, of: &Self) -> bool {
        self.0.iter().zip(&of.0).all(|(mine, others)| others & !mine == 0)
    }
}

pub(super) fn run<M: Model>(history: &History<M>, configurations_max: usize) -> Verdict {
    let entries = entries::<M>(history);
    if !can_be_ordered(&entries) {
        return Verdict::Violated;
    }
    let mut to_place = entries.iter().filter(|entry| entry.before != NEVER).count();
    let mut placed = Calls::none(entries.len());
    let mut visited = HashSet::new();
    let first = candidates(&entries, &placed);
    let mut path = vec![Frame { state: M::initial(), candidates: first, taken: None }];
    while let Some(frame) = path.last_mut() {
        if to_place == 0 {
            return Verdict::Linearizable;
        }
        let Some(call) = frame.candidates.pop() else {
            if let Some(call) = frame.taken {
                placed.flip(call);
                to_place += usize::from(entries[call].before != NEVER);
            }
            path.pop();
            continue;
        };
        let entry = &entries[call];
        let Some(state) = M::step(&frame.state, entry.call, entry.answer) else { continue };
        placed.flip(call);
        if !visited.insert((placed.clone(), state.clone())) {
            placed.flip(call);
            continue;
        }
        if visited.len() > configurations_max {
            return Verdict::Undecided;
        }
        to_place -= usize::from(entry.before != NEVER);
        let next = candidates(&entries, &placed);
        path.push(Frame { state, candidates: next, taken: Some(call) });
    }
    Verdict::Violated
}

/// In the order in which they were sent. A call of unknown outcome that some answer shows took effect
/// before that answer came; one that would have been seen and never was is left out.
fn entries<M: Model>(history: &History<M>) -> Vec<Entry<'_, M>> {
    let mut known: Vec<_> = history
        .iter()
        .filter_map(|operation| Some((operation, ends_before::<M>(history, operation)?)))
        .collect();
    known.sort_by_key(|(operation, _)| operation.invoked);
    let none = Calls::none(known.len());
    let mut entries: Vec<_> = known
        .into_iter()
        .map(|(operation, before)| Entry {
            call: &operation.call,
            answer: operation.returned.as_ref().map(|(_, answer)| answer),
            invoked: operation.invoked,
            before,
            after: none.clone(),
        })
        .collect();
    for one in 0..entries.len() {
        for other in (0..entries.len()).filter(|other| *other != one) {
            let is_told = entries[one].answer.map(|answer| M::tells(answer, entries[other].call));
            match is_told {
                Some(Tells::Before) => entries[one].after.add(other),
                Some(Tells::NotBefore) => entries[other].after.add(one),
                Some(Tells::Nothing | Tells::Unclear) | None => {}
            }
            if entries[one].before < entries[other].invoked {
                entries[other].after.add(one);
            }
        }
    }
    entries
}

/// When the call had taken effect: [`NEVER`], if it may also not have happened; `None`, if it did not, or
/// might as well not have.
fn ends_before<M: Model>(
    history: &History<M>,
    operation: &Operation<M::Call, M::Answer>,
) -> Option<Duration> {
    if let Some((returned, _)) = &operation.returned {
        return Some(*returned);
    }
    let mut before = NEVER;
    let mut is_clear = true;
    for (returned, answer) in history.iter().filter_map(|other| other.returned.as_ref()) {
        match M::tells(answer, &operation.call) {
            Tells::Before => before = before.min(*returned),
            Tells::NotBefore | Tells::Nothing => {}
            Tells::Unclear => is_clear = false,
        }
    }
    (before != NEVER || !is_clear).then_some(before)
}

/// Whether the answers and the times do not already demand of a call that it came before itself.
fn can_be_ordered<M: Model>(entries: &[Entry<'_, M>]) -> bool {
    let mut placed = Calls::none(entries.len());
    let mut left: Vec<_> = (0..entries.len()).collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|call| {
            let is_next = placed.has_all(&entries[*call].after);
            if is_next {
                placed.add(*call);
            }
            !is_next
        });
        if left.len() == before {
            return false;
        }
    }
    true
}

/// The calls that may come next: nothing that is still to be placed had ended before they were sent.
/// Last, and so tried first, is what ended first; what may never have happened is tried when nothing else
/// fits.
fn candidates<M: Model>(entries: &[Entry<'_, M>], placed: &Calls) -> Vec<usize> {
    let mut first_end = NEVER;
    let mut found = Vec::new();
    for (call, entry) in entries.iter().enumerate() {
        if placed.has(call) {
            continue;
        }
        if entry.invoked > first_end {
            break;
        }
        first_end = first_end.min(entry.before);
        if placed.has_all(&entry.after) {
            found.push(call);
        }
    }
    found.sort_by_key(|call| std::cmp::Reverse(entries[*call].before));
    found
}
