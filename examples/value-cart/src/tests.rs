use stead_sdk::Code;
use stead_sdk::testing::ValueScenario;

use super::*;

fn add(product: &str, quantity: i32) -> AddLineItem {
    let (product_id, name) = (product.to_owned(), product.to_uppercase());
    AddLineItem { user_id: "ada".into(), product_id, name, quantity }
}

fn remove(product: &str) -> RemoveLineItem {
    RemoveLineItem { user_id: "ada".into(), product_id: product.into() }
}

fn cart(items: &[(&str, i32)]) -> Cart {
    let item = |&(product, quantity): &(&str, i32)| LineItem {
        product_id: product.into(),
        name: product.to_uppercase(),
        quantity,
    };
    Cart { items: items.iter().map(item).collect() }
}

#[test]
fn quantities_of_one_product_add_up() {
    ValueScenario::<Cart>::new("ada")
        .given(cart(&[("kettle", 1)]))
        .when(Cart::add_item, add("kettle", 2))
        .then_updated(cart(&[("kettle", 3)]))
        .and()
        .when(Cart::get_cart, GetShoppingCart { user_id: "ada".into() })
        .then_unchanged()
        .then_reply(cart(&[("kettle", 3)]));
}

#[test]
fn a_removed_item_is_gone_and_an_absent_one_cannot_be_removed() {
    ValueScenario::<Cart>::new("ada")
        .given(cart(&[("kettle", 1), ("cup", 4)]))
        .when(Cart::remove_item, remove("kettle"))
        .then_updated(cart(&[("cup", 4)]))
        .and()
        .when(Cart::remove_item, remove("kettle"))
        .then_rejected(Code::NotFound);
}

#[test]
fn a_removed_cart_is_empty() {
    ValueScenario::<Cart>::new("ada")
        .given(cart(&[("kettle", 1)]))
        .when(Cart::remove_cart, RemoveShoppingCart { user_id: "ada".into() })
        .then_deleted()
        .and()
        .when(Cart::get_cart, GetShoppingCart { user_id: "ada".into() })
        .then_reply(Cart::default());
}

#[test]
fn a_quantity_that_is_not_positive_or_would_overflow_is_refused() {
    for quantity in [0, -1, i32::MAX] {
        ValueScenario::<Cart>::new("ada")
            .given(cart(&[("kettle", 1)]))
            .when(Cart::add_item, add("kettle", quantity))
            .then_rejected(Code::InvalidArgument);
    }
}
