//! Whom a checkout asks. What it asks twice is done once, and what was not done can be undone.

use stead_sdk::{Action, Context, Outcome, Value, reject};

use crate::api::{
    Account, Balance, Charge, Deposit, GetBalance, GetShelf, Parcel, Refund, Release, Reserve,
    Restock, Shelf, Shipped, Shipping, Stock,
};

impl Value for Shelf {
    type State = Self;
}

impl Stock for Shelf {
    fn restock(&self, ctx: &mut Context<Self>, command: Restock) -> Outcome<Self, ()> {
        let available = self.available.saturating_add(command.quantity);
        ctx.update(Shelf { available, ..self.clone() });
        ctx.reply(())
    }

    fn reserve(&self, ctx: &mut Context<Self>, command: Reserve) -> Outcome<Self, ()> {
        let mut shelf = self.clone();
        if shelf.reserved.insert(command.order_id, command.quantity).is_none() {
            let Some(available) = self.available.checked_sub(command.quantity) else {
                reject!(FailedPrecondition, "only {} are left", self.available);
            };
            ctx.update(Shelf { available, ..shelf });
        }
        ctx.reply(())
    }

    fn release(&self, ctx: &mut Context<Self>, command: Release) -> Outcome<Self, ()> {
        let mut shelf = self.clone();
        if let Some(quantity) = shelf.reserved.remove(&command.order_id) {
            let available = self.available.saturating_add(quantity);
            ctx.update(Shelf { available, ..shelf });
        }
        ctx.reply(())
    }

    fn get(&self, ctx: &mut Context<Self>, _: GetShelf) -> Outcome<Self, Shelf> {
        ctx.reply(self.clone())
    }
}

impl Value for Balance {
    type State = Self;
}

impl Account for Balance {
    fn deposit(&self, ctx: &mut Context<Self>, command: Deposit) -> Outcome<Self, ()> {
        let cents = self.cents.saturating_add(command.cents);
        ctx.update(Balance { cents, ..self.clone() });
        ctx.reply(())
    }

    fn charge(&self, ctx: &mut Context<Self>, command: Charge) -> Outcome<Self, ()> {
        let mut balance = self.clone();
        if balance.charged.insert(command.order_id, command.cents).is_none() {
            let Some(cents) = self.cents.checked_sub(command.cents) else {
                reject!(FailedPrecondition, "the account holds {} cents", self.cents);
            };
            ctx.update(Balance { cents, ..balance });
        }
        ctx.reply(())
    }

    fn refund(&self, ctx: &mut Context<Self>, command: Refund) -> Outcome<Self, ()> {
        let mut balance = self.clone();
        if let Some(charged) = balance.charged.remove(&command.order_id) {
            let cents = self.cents.saturating_add(charged);
            ctx.update(Balance { cents, ..balance });
        }
        ctx.reply(())
    }

    fn get(&self, ctx: &mut Context<Self>, _: GetBalance) -> Outcome<Self, Balance> {
        ctx.reply(self.clone())
    }
}

/// Ships wherever there is an address.
#[derive(Default)]
pub struct Shippers;

impl Action for Shippers {}

impl Shipping for Shippers {
    fn ship(&self, ctx: &mut Context<Self>, parcel: Parcel) -> Outcome<Self, Shipped> {
        if parcel.address.is_empty() {
            reject!(InvalidArgument, "the parcel of order {} has no address", parcel.order_id);
        }
        ctx.reply(Shipped { tracking: format!("parcel-{}", parcel.order_id) })
    }
}
