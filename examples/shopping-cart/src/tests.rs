//! The cart without Wasm and without a host.

use stead_sdk::Code;
use stead_sdk::testing::Scenario;

use super::*;

fn added(product: &str, quantity: i32) -> ItemAdded {
    let name = product.to_uppercase();
    ItemAdded { item: Some(stored::LineItem { product_id: product.into(), name, quantity }) }
}

fn add(product: &str, quantity: i32) -> AddLineItem {
    let name = product.to_uppercase();
    AddLineItem { user_id: "ada".into(), product_id: product.into(), name, quantity }
}

fn remove(product: &str) -> RemoveLineItem {
    RemoveLineItem { user_id: "ada".into(), product_id: product.into() }
}

fn cart(items: &[(&str, i32)]) -> api::Cart {
    let item = |&(product, quantity): &(&str, i32)| LineItem {
        product_id: product.into(),
        name: product.to_uppercase(),
        quantity,
    };
    api::Cart { items: items.iter().map(item).collect() }
}

fn get() -> GetShoppingCart {
    GetShoppingCart { user_id: "ada".into() }
}

#[test]
fn a_new_cart_is_empty() {
    Scenario::<Cart>::new("ada").when(Cart::get_cart, get()).then_no_events().then_reply(cart(&[]));
}

#[test]
fn an_added_item_is_in_the_cart() {
    Scenario::<Cart>::new("ada")
        .when(Cart::add_item, add("kettle", 1))
        .then([added("kettle", 1)], ())
        .and()
        .when(Cart::get_cart, get())
        .then_reply(cart(&[("kettle", 1)]));
}

#[test]
fn quantities_of_one_product_add_up() {
    Scenario::<Cart>::new("ada")
        .given([added("kettle", 1), added("cup", 4)])
        .when(Cart::add_item, add("kettle", 2))
        .then([added("kettle", 2)], ())
        .and()
        .when(Cart::get_cart, get())
        .then_reply(cart(&[("cup", 4), ("kettle", 3)]));
}

#[test]
fn a_removed_item_is_gone() {
    Scenario::<Cart>::new("ada")
        .given([added("kettle", 1)])
        .when(Cart::remove_item, remove("kettle"))
        .then([ItemRemoved { product_id: "kettle".into() }], ())
        .and()
        .when(Cart::get_cart, get())
        .then_reply(cart(&[]));
}

#[test]
fn an_absent_item_cannot_be_removed() {
    Scenario::<Cart>::new("ada")
        .when(Cart::remove_item, remove("kettle"))
        .then_rejected(Code::NotFound);
}

#[test]
fn a_quantity_that_is_not_positive_is_refused() {
    for quantity in [0, -1, i32::MIN] {
        Scenario::<Cart>::new("ada")
            .when(Cart::add_item, add("kettle", quantity))
            .then_rejected(Code::InvalidArgument);
    }
}

#[test]
fn a_quantity_that_would_overflow_is_refused() {
    Scenario::<Cart>::new("ada")
        .given([added("kettle", i32::MAX)])
        .when(Cart::add_item, add("kettle", 1))
        .then_rejected(Code::InvalidArgument);
}
