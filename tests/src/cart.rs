//! The shopping cart over HTTP/JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::Answer;
use crate::host::Host;

pub const GUEST: &str = "shopping-cart";
pub const SERVICE: &str = "com.example.shoppingcart.ShoppingCart";

impl Host {
    pub async fn add(&self, user: &str, product: &str, quantity: i64) -> Answer {
        let item = json!({"productId": product, "name": product, "quantity": quantity});
        self.services.post(&format!("/cart/{user}/items/add"), &item).await
    }

    pub async fn cart(&self, user: &str) -> BTreeMap<String, i64> {
        items(&self.services.get(&format!("/carts/{user}")).await.ok())
    }
}

/// Product and quantity of every item.
pub fn items(cart: &Value) -> BTreeMap<String, i64> {
    let items = cart["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| {
            let product = item["productId"].as_str().expect("a product id");
            (product.to_owned(), item["quantity"].as_i64().expect("a quantity"))
        })
        .collect()
}
