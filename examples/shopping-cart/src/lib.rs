//! A shopping cart as a stateful function.

mod api {
    stead_sdk::include_proto!("com.example.shoppingcart");
}
mod stored {
    stead_sdk::include_proto!("com.example.shoppingcart.persistence");
}

use std::collections::BTreeMap;

use api::{AddLineItem, GetShoppingCart, LineItem, RemoveLineItem, ShoppingCart};
use stead_sdk::{Context, EventSourced, Events, Outcome, reject};
use stored::{ItemAdded, ItemRemoved};

/// What a customer means to buy.
#[derive(Default)]
pub struct Cart {
    /// By product.
    items: BTreeMap<String, stored::LineItem>,
}

#[derive(Events)]
pub enum Event {
    Added(ItemAdded),
    Removed(ItemRemoved),
}

impl ShoppingCart for Cart {
    fn add_item(&self, ctx: &mut Context<Self>, command: AddLineItem) -> Outcome<Self, ()> {
        let AddLineItem { product_id, name, quantity, .. } = command;
        let held = self.items.get(&product_id).map_or(0, |item| item.quantity);
        if quantity <= 0 || held.checked_add(quantity).is_none() {
            reject!(InvalidArgument, "the quantity cannot be {quantity}");
        }
        ctx.emit(ItemAdded { item: Some(stored::LineItem { product_id, name, quantity }) });
        ctx.reply(())
    }

    fn remove_item(&self, ctx: &mut Context<Self>, command: RemoveLineItem) -> Outcome<Self, ()> {
        if !self.items.contains_key(&command.product_id) {
            reject!(NotFound, "there is no {} in the cart", command.product_id);
        }
        ctx.emit(ItemRemoved { product_id: command.product_id });
        ctx.reply(())
    }

    fn get_cart(&self, ctx: &mut Context<Self>, _: GetShoppingCart) -> Outcome<Self, api::Cart> {
        let items = self.items.values().cloned().map(|item| LineItem {
            product_id: item.product_id,
            name: item.name,
            quantity: item.quantity,
        });
        ctx.reply(api::Cart { items: items.collect() })
    }
}

impl EventSourced for Cart {
    type Event = Event;
    type Snapshot = stored::Cart;

    fn apply(&mut self, event: Event) {
        match event {
            Event::Added(ItemAdded { item }) => {
                let item = item.unwrap_or_default();
                let held = self.items.entry(item.product_id.clone()).or_default();
                let quantity = held.quantity.saturating_add(item.quantity);
                *held = stored::LineItem { quantity, ..item };
            }
            Event::Removed(removed) => drop(self.items.remove(&removed.product_id)),
        }
    }

    fn snapshot(&self) -> Option<stored::Cart> {
        Some(stored::Cart { items: self.items.values().cloned().collect() })
    }

    fn restore(&mut self, snapshot: stored::Cart) -> Result<(), String> {
        self.items = snapshot.items.into_iter().map(|i| (i.product_id.clone(), i)).collect();
        Ok(())
    }
}

stead_sdk::export!(Cart: ShoppingCart, journal = "shopping-cart");

#[cfg(test)]
mod tests;
