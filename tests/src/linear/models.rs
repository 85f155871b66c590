//! What the entities of the load do, as one copy of them would.

use std::collections::{BTreeMap, BTreeSet};

use crate::linear::{Model, Tells};

/// A shopping cart to which every product is added by one call only, with quantity one.
#[derive(Debug)]
pub struct Cart;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CartCall {
    Add(String),
    Get,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CartAnswer {
    Added,
    /// Products with their quantities.
    Items(BTreeMap<String, i64>),
}

impl Model for Cart {
    type State = BTreeSet<String>;
    type Call = CartCall;
    type Answer = CartAnswer;

    fn initial() -> Self::State {
        BTreeSet::new()
    }

    fn step(
        state: &Self::State,
        call: &CartCall,
        answer: Option<&CartAnswer>,
    ) -> Option<Self::State> {
        match (call, answer) {
            (CartCall::Add(product), None | Some(CartAnswer::Added)) => {
                let mut state = state.clone();
                state.insert(product.clone());
                Some(state)
            }
            (CartCall::Get, None) => Some(state.clone()),
            (CartCall::Get, Some(CartAnswer::Items(items))) => {
                let once = items.values().all(|quantity| *quantity == 1);
                (once && items.keys().eq(state.iter())).then(|| state.clone())
            }
            (CartCall::Add(_), Some(CartAnswer::Items(_)))
            | (CartCall::Get, Some(CartAnswer::Added)) => None,
        }
    }

    fn tells(answer: &CartAnswer, of: &CartCall) -> Tells {
        match (of, answer) {
            (CartCall::Add(product), CartAnswer::Items(items)) => {
                if items.contains_key(product) {
                    Tells::Before
                } else {
                    Tells::NotBefore
                }
            }
            (CartCall::Get, _) | (_, CartAnswer::Added) => Tells::Nothing,
        }
    }

    fn without(call: &CartCall, answer: &CartAnswer) -> Option<CartAnswer> {
        let mut answer = answer.clone();
        if let (CartCall::Add(product), CartAnswer::Items(items)) = (call, &mut answer) {
            items.remove(product);
        }
        Some(answer)
    }

    fn only_reads(call: &CartCall) -> bool {
        *call == CartCall::Get
    }
}

/// The text of a model entity of the compatibility tests, to which calls append words that occur once.
/// Every answer is the whole text, after the call.
#[derive(Debug)]
pub struct Words;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WordsCall {
    Append(String),
    Get,
}

impl Model for Words {
    type State = Vec<String>;
    type Call = WordsCall;
    type Answer = Vec<String>;

    fn initial() -> Self::State {
        Vec::new()
    }

    fn step(
        state: &Self::State,
        call: &WordsCall,
        answer: Option<&Vec<String>>,
    ) -> Option<Self::State> {
        let mut state = state.clone();
        if let WordsCall::Append(word) = call {
            state.push(word.clone());
        }
        answer.is_none_or(|answer| *answer == state).then_some(state)
    }

    fn tells(answer: &Vec<String>, of: &WordsCall) -> Tells {
        match of {
            WordsCall::Append(word) if answer.contains(word) => Tells::Before,
            WordsCall::Append(_) => Tells::NotBefore,
            WordsCall::Get => Tells::Nothing,
        }
    }

    fn without(call: &WordsCall, answer: &Vec<String>) -> Option<Vec<String>> {
        let mut answer = answer.clone();
        if let WordsCall::Append(word) = call {
            answer.retain(|other| other != word);
        }
        Some(answer)
    }

    fn only_reads(call: &WordsCall) -> bool {
        *call == WordsCall::Get
    }
}

/// One value that calls read, write, and exchange. Values may occur more than once, so that nothing but
/// the search can tell what happened.
#[derive(Debug)]
pub struct Register;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterCall {
    Read,
    Write(u8),
    /// Writes the second value if the first is there.
    Exchange(u8, u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterAnswer {
    Value(u8),
    Done,
    Refused,
}

impl Model for Register {
    type State = u8;
    type Call = RegisterCall;
    type Answer = RegisterAnswer;

    fn initial() -> u8 {
        0
    }

    fn step(state: &u8, call: &RegisterCall, answer: Option<&RegisterAnswer>) -> Option<u8> {
        let (after, said) = match *call {
            RegisterCall::Read => (*state, RegisterAnswer::Value(*state)),
            RegisterCall::Write(value) => (value, RegisterAnswer::Done),
            RegisterCall::Exchange(from, to) if from == *state => (to, RegisterAnswer::Done),
            RegisterCall::Exchange(..) => (*state, RegisterAnswer::Refused),
        };
        answer.is_none_or(|answer| *answer == said).then_some(after)
    }

    fn only_reads(call: &RegisterCall) -> bool {
        *call == RegisterCall::Read
    }
}
