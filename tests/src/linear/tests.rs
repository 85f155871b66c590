//! Histories that are known to be good or bad, and random ones judged by trying every order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::linear::models::{Cart, CartAnswer, CartCall, Register, Words, WordsCall};
use crate::linear::models::{RegisterAnswer, RegisterCall};
use crate::linear::{History, Model, Operation, Verdict, check, explain};
use crate::rng::Rng;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn known<C, A>(client: usize, from: u64, to: u64, call: C, answer: A) -> Operation<C, A> {
    Operation { client, call, invoked: ms(from), returned: Some((ms(to), answer)) }
}

fn unknown<C, A>(client: usize, from: u64, call: C) -> Operation<C, A> {
    Operation { client, call, invoked: ms(from), returned: None }
}

fn add(product: &str) -> CartCall {
    CartCall::Add(product.into())
}

fn items(products: &[&str]) -> CartAnswer {
    CartAnswer::Items(products.iter().map(|product| (product.to_string(), 1)).collect())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn append(word: &str) -> WordsCall {
    WordsCall::Append(word.into())
}

#[test]
fn calls_one_after_the_other_are_linearizable() {
    let history: History<Cart> = vec![
        known(0, 0, 1, add("tea"), CartAnswer::Added),
        known(1, 2, 3, CartCall::Get, items(&["tea"])),
        known(0, 4, 5, add("milk"), CartAnswer::Added),
        known(1, 6, 7, CartCall::Get, items(&["milk", "tea"])),
    ];
    assert_eq!(check::<Cart>(&history), Verdict::Linearizable);
    assert_eq!(check::<Cart>(&Vec::new()), Verdict::Linearizable);
}

#[test]
fn a_read_beside_a_write_may_see_it_or_not() {
    for seen in [&["tea"][..], &[]] {
        let history: History<Cart> = vec![
            known(0, 0, 10, add("tea"), CartAnswer::Added),
            known(1, 5, 6, CartCall::Get, items(seen)),
        ];
        assert_eq!(check::<Cart>(&history), Verdict::Linearizable);
    }
}

#[test]
fn two_reads_must_agree_on_the_order() {
    let history: History<Cart> = vec![
        known(0, 0, 10, add("tea"), CartAnswer::Added),
        known(1, 2, 3, CartCall::Get, items(&["tea"])),
        known(2, 5, 6, CartCall::Get, items(&[])),
    ];
    assert_eq!(check::<Cart>(&history), Verdict::Violated);
}

#[test]
fn a_stale_read_is_found_and_explained() {
    let mut history: History<Cart> = (0..50)
        .map(|n| known(2, 4 * n, 4 * n + 1, add(&format!("p{n}")), CartAnswer::Added))
        .collect();
    let all: BTreeMap<_, _> = (0..49).map(|n| (format!("p{n}"), 1)).collect();
    history.push(known(3, 300, 310, CartCall::Get, CartAnswer::Items(all)));
    assert_eq!(check::<Cart>(&history), Verdict::Violated);
    let text = explain::<Cart>(&history);
    assert_eq!(
        text,
        "no order of these 2 calls explains what was answered:
       0.196 s  client  2  Add(\"p49\") -> Added at 0.197 s
       0.300 s  client  3  Get -> Items({}) at 0.310 s
"
    );
}

#[test]
fn a_lost_update_is_found() {
    let history: History<Words> = vec![
        known(0, 0, 1, append("a"), words(&["a"])),
        known(1, 2, 3, append("b"), words(&["b"])),
    ];
    assert_eq!(check::<Words>(&history), Verdict::Violated);
    // Both saw the text without the other's word.
    let history: History<Words> = vec![
        known(0, 0, 5, append("a"), words(&["a"])),
        known(1, 0, 5, append("b"), words(&["b"])),
    ];
    assert_eq!(check::<Words>(&history), Verdict::Violated);
}

#[test]
fn a_duplicate_is_found() {
    let history: History<Words> = vec![
        known(0, 0, 1, append("a"), words(&["a"])),
        known(1, 2, 3, WordsCall::Get, words(&["a", "a"])),
    ];
    assert_eq!(check::<Words>(&history), Verdict::Violated);
    let twice = CartAnswer::Items([("tea".to_owned(), 2)].into());
    let history: History<Cart> =
        vec![known(0, 0, 1, add("tea"), CartAnswer::Added), known(1, 2, 3, CartCall::Get, twice)];
    assert_eq!(check::<Cart>(&history), Verdict::Violated);
}

#[test]
fn a_reordering_is_found() {
    let history: History<Words> = vec![
        known(0, 0, 1, append("a"), words(&["a"])),
        known(0, 2, 3, append("b"), words(&["a", "b"])),
        known(1, 4, 5, WordsCall::Get, words(&["b", "a"])),
    ];
    assert_eq!(check::<Words>(&history), Verdict::Violated);
}

#[test]
fn what_nobody_sent_is_found() {
    let history: History<Cart> = vec![known(0, 0, 1, CartCall::Get, items(&["tea"]))];
    assert_eq!(check::<Cart>(&history), Verdict::Violated);
}

#[test]
fn an_unknown_outcome_happened_late_or_never() {
    let sent = || unknown(0, 0, append("a"));
    for later in [&["a", "b"][..], &["b"]] {
        let history: History<Words> = vec![
            sent(),
            known(1, 10, 11, WordsCall::Get, words(&[])),
            known(1, 20, 21, append("b"), words(later)),
        ];
        assert_eq!(check::<Words>(&history), Verdict::Linearizable);
    }
    // Not before it was sent.
    let history: History<Words> =
        vec![known(1, 0, 1, WordsCall::Get, words(&["a"])), unknown(0, 2, append("a"))];
    assert_eq!(check::<Words>(&history), Verdict::Violated);
    // And not undone.
    let history: History<Words> = vec![
        sent(),
        known(1, 10, 11, WordsCall::Get, words(&["a"])),
        known(1, 20, 21, WordsCall::Get, words(&[])),
    ];
    assert_eq!(check::<Words>(&history), Verdict::Violated);
}

#[test]
fn an_explanation_stops_at_the_first_contradiction() {
    let history: History<Register> = vec![
        known(0, 0, 1, RegisterCall::Write(1), RegisterAnswer::Done),
        known(0, 2, 3, RegisterCall::Read, RegisterAnswer::Value(1)),
        known(1, 4, 5, RegisterCall::Read, RegisterAnswer::Value(0)),
        known(0, 6, 7, RegisterCall::Write(2), RegisterAnswer::Done),
        known(1, 8, 9, RegisterCall::Read, RegisterAnswer::Value(7)),
    ];
    let text = explain::<Register>(&history);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("Write(1)") && text.contains("Value(0)"), "{text}");
}

/// A history as an entity that works would give it: every call takes effect at a random moment between
/// its two ends, some outcomes are lost, and some of those never took effect.
fn plausible(rng: &mut Rng, calls: usize, clients: usize) -> History<Cart> {
    let mut free_at = vec![0; clients];
    let mut moments = Vec::new();
    for number in 0..calls {
        let client = rng.below(clients as u64) as usize;
        let invoked = free_at[client] + rng.below(20);
        let returned = invoked + 1 + rng.below(40);
        let effect = invoked + rng.below(returned - invoked);
        free_at[client] = returned + 1;
        let fate = rng.below(20);
        let add = rng.below(2) == 0;
        moments.push((effect, client, number, invoked, returned, add, fate));
    }
    moments.sort_unstable();
    let mut cart = BTreeMap::new();
    let mut history = Vec::new();
    for (_, client, number, invoked, returned, add, fate) in moments {
        let call = if add { CartCall::Add(format!("p{number}")) } else { CartCall::Get };
        if let (CartCall::Add(product), 1..) = (&call, fate) {
            cart.insert(product.clone(), 1);
        }
        let answer = if add { CartAnswer::Added } else { CartAnswer::Items(cart.clone()) };
        let answered = fate > 1 || !add;
        let returned = answered.then(|| (ms(returned), answer));
        history.push(Operation { client, call, invoked: ms(invoked), returned });
    }
    history
}

#[test]
fn two_hundred_entities_with_two_hundred_calls_are_judged_in_seconds() {
    let mut rng = Rng::new(11);
    let start = Instant::now();
    for _ in 0..200 {
        let history = plausible(&mut rng, 200, 16);
        assert_eq!(check::<Cart>(&history), Verdict::Linearizable, "{}", explain::<Cart>(&history));
    }
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
}

#[test]
fn one_forgotten_product_in_a_long_history_is_found() {
    let mut rng = Rng::new(12);
    for _ in 0..20 {
        let mut history = plausible(&mut rng, 200, 16);
        // The last read forgets what had been acknowledged before it was sent.
        let last = (0..history.len())
            .filter(|n| history[*n].call == CartCall::Get)
            .max_by_key(|n| history[*n].invoked)
            .expect("there are reads");
        let sent = history[last].invoked;
        let forgotten = history.iter().find_map(|operation| match &operation.call {
            CartCall::Add(product) => operation
                .returned
                .as_ref()
                .is_some_and(|(at, _)| *at < sent)
                .then(|| product.clone()),
            CartCall::Get => None,
        });
        let forgotten = forgotten.expect("something was added");
        if let Some((_, CartAnswer::Items(items))) = &mut history[last].returned {
            items.remove(&forgotten);
        }
        assert_eq!(check::<Cart>(&history), Verdict::Violated);
        let text = explain::<Cart>(&history);
        assert!(text.contains("these 2 calls") && text.contains(&forgotten), "{text}");
    }
}

/// Every choice of what happened among the unknown, in every order that time allows.
fn by_brute_force<M: Model>(history: &History<M>) -> bool {
    fn extend<M: Model>(history: &History<M>, left: &[usize], state: &M::State) -> bool {
        if left.iter().all(|call| history[*call].returned.is_none()) {
            return true;
        }
        left.iter().any(|call| {
            let next = &history[*call];
            let in_time = left.iter().all(|other| {
                history[*other].returned.as_ref().is_none_or(|(at, _)| *at >= next.invoked)
            });
            let answer = next.returned.as_ref().map(|(_, answer)| answer);
            let Some(state) = in_time.then(|| M::step(state, &next.call, answer)).flatten() else {
                return false;
            };
            let left: Vec<_> = left.iter().copied().filter(|other| other != call).collect();
            extend::<M>(history, &left, &state)
        })
    }
    let all: Vec<_> = (0..history.len()).collect();
    extend::<M>(history, &all, &M::initial())
}

fn span() -> impl Strategy<Value = (u64, u64, bool)> {
    (0u64..12, 0u64..6, prop::bool::weighted(0.75))
}

fn operation<C, A>((from, long, told): (u64, u64, bool), call: C, answer: A) -> Operation<C, A> {
    let returned = told.then(|| (ms(from + long), answer));
    Operation { client: 0, call, invoked: ms(from), returned }
}

fn registers() -> impl Strategy<Value = History<Register>> {
    let call = prop_oneof![
        (0u8..3).prop_map(|value| (RegisterCall::Read, RegisterAnswer::Value(value))),
        (0u8..3).prop_map(|value| (RegisterCall::Write(value), RegisterAnswer::Done)),
        (0u8..3, 0u8..3, any::<bool>()).prop_map(|(from, to, done)| {
            let answer = if done { RegisterAnswer::Done } else { RegisterAnswer::Refused };
            (RegisterCall::Exchange(from, to), answer)
        }),
    ];
    let one = (span(), call).prop_map(|(span, (call, answer))| operation(span, call, answer));
    prop::collection::vec(one, 0..7)
}

fn lists() -> impl Strategy<Value = History<Words>> {
    let text = prop::sample::subsequence(vec!["0", "1", "2", "3"], 0..4).prop_shuffle();
    let one = (span(), any::<bool>(), text);
    prop::collection::vec(one, 0..6).prop_map(|calls| {
        let calls = calls.into_iter().enumerate();
        calls
            .map(|(number, (span, appends, mut text))| {
                let word = number.to_string();
                let call = if appends { WordsCall::Append(word.clone()) } else { WordsCall::Get };
                if appends {
                    text.retain(|other| *other != word);
                    text.push(&word);
                }
                operation(span, call, words(&text))
            })
            .collect()
    })
}

fn carts() -> impl Strategy<Value = History<Cart>> {
    let products = prop::sample::subsequence(vec!["0", "1", "2", "3", "4"], 0..4);
    let one = (span(), any::<bool>(), products);
    prop::collection::vec(one, 0..7).prop_map(|calls| {
        let calls = calls.into_iter().enumerate();
        calls
            .map(|(number, (span, adds, products))| match adds {
                true => operation(span, add(&number.to_string()), CartAnswer::Added),
                false => operation(span, CartCall::Get, items(&products)),
            })
            .collect()
    })
}

fn agrees<M: Model>(history: &History<M>) {
    let expected = match by_brute_force::<M>(history) {
        true => Verdict::Linearizable,
        false => Verdict::Violated,
    };
    assert_eq!(check::<M>(history), expected);
    if expected == Verdict::Violated {
        assert!(explain::<M>(history).lines().count() > 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_search_agrees_with_brute_force_on_registers(history in registers()) {
        agrees::<Register>(&history);
    }

    #[test]
    fn the_search_agrees_with_brute_force_on_lists(history in lists()) {
        agrees::<Words>(&history);
    }

    #[test]
    fn the_search_agrees_with_brute_force_on_carts(history in carts()) {
        agrees::<Cart>(&history);
    }
}
