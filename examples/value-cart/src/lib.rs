//! A shopping cart of which only the newest state is kept.

mod api {
    stead_sdk::include_proto!("com.example.valuecart");
}

use api::{
    AddLineItem, Cart, GetShoppingCart, LineItem, RemoveLineItem, RemoveShoppingCart, ValueCart,
};
use stead_sdk::{Context, Outcome, Value, reject};

/// The message that is stored is the entity.
impl Value for Cart {
    type State = Self;
}

impl ValueCart for Cart {
    fn add_item(&self, ctx: &mut Context<Self>, command: AddLineItem) -> Outcome<Self, ()> {
        let AddLineItem { product_id, name, quantity, .. } = command;
        let mut items = self.items.clone();
        let held = items.iter().position(|item| item.product_id == product_id);
        let quantity = held.map_or(0, |held| items.remove(held).quantity).checked_add(quantity);
        let (1.., Some(quantity)) = (command.quantity, quantity) else {
            reject!(InvalidArgument, "the quantity cannot be {}", command.quantity);
        };
        items.push(LineItem { product_id, name, quantity });
        ctx.update(Cart { items });
        ctx.reply(())
    }

    fn remove_item(&self, ctx: &mut Context<Self>, command: RemoveLineItem) -> Outcome<Self, ()> {
        let mut items = self.items.clone();
        items.retain(|item| item.product_id != command.product_id);
        if items.len() == self.items.len() {
            reject!(NotFound, "there is no {} in the cart", command.product_id);
        }
        ctx.update(Cart { items });
        ctx.reply(())
    }

    fn get_cart(&self, ctx: &mut Context<Self>, _: GetShoppingCart) -> Outcome<Self, Cart> {
        ctx.reply(self.clone())
    }

    fn remove_cart(&self, ctx: &mut Context<Self>, _: RemoveShoppingCart) -> Outcome<Self, ()> {
        ctx.delete();
        ctx.reply(())
    }
}

stead_sdk::export!(value Cart: ValueCart, journal = "value-cart", history = 10);

#[cfg(test)]
mod tests;
