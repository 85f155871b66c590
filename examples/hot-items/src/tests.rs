use std::cell::RefCell;
use std::rc::Rc;

use stead_sdk::testing::{ActionScenario, Scenario, fold_view};
use stead_sdk::{Code, Rejection};

use super::*;

fn added(quantity: i32) -> ItemAdded {
    let (product_id, name) = ("kettle".to_owned(), "Kettle".to_owned());
    ItemAdded { item: Some(shoppingcart::persistence::LineItem { product_id, name, quantity }) }
}

fn count(quantity: u32) -> Count {
    Count { product_id: "kettle".into(), name: "Kettle".into(), quantity }
}

fn counted(quantity: u32) -> Counted {
    Counted { name: "Kettle".into(), quantity }
}

#[test]
fn what_was_added_is_counted() {
    let counts = Rc::new(RefCell::new(Vec::new()));
    let told = counts.clone();
    ActionScenario::<Consumer>::new()
        .answering(ItemClient::count, move |count: Count| {
            told.borrow_mut().push(count);
            Ok(())
        })
        .with_metadata([("ce-subject", "ada"), ("ce-sequence", "7")])
        .when(Consumer::added, added(2))
        .then_reply(());
    assert_eq!(*counts.borrow(), [count(2)]);
}

#[test]
fn an_event_that_could_not_be_counted_comes_again() {
    ActionScenario::<Consumer>::new()
        .answering(ItemClient::count, |_: Count| Err(Rejection::new(Code::Unavailable, "no")))
        .when(Consumer::added, added(2))
        .then_rejected(Code::Unavailable);
}

#[test]
fn a_count_is_stored() {
    Scenario::<Product>::new("kettle")
        .given([counted(1)])
        .when(Product::count, count(2))
        .then([counted(2)], ());
}

#[test]
fn a_row_sums_up_what_was_counted() {
    let row = fold_view::<Table>("kettle", [1, 2, 3].map(|n| Event::Counted(counted(n))));
    let (product_id, name) = ("kettle".to_owned(), "Kettle".to_owned());
    assert_eq!(row, Some(HotItem { product_id, name, quantity: 6 }));
}
