//! An order that is reserved, paid and shipped, or undone.

mod api {
    stead_sdk::include_proto!("com.example.checkout");
}
mod shop;

use std::time::Duration;

use api::{
    Account, AccountClient, Approval, Balance, Charge, Checkout, Order, Parcel, Receipt, Refund,
    Release, Reserve, Shelf, Shipping, ShippingClient, Stock, StockClient,
};
use shop::Shippers;
use stead_sdk::{Ctx, Rejection, Workflow, reject};

const APPROVED_ABOVE_CENTS: u64 = 100_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One order.
pub struct Purchase;

impl Checkout for Purchase {}

impl Workflow for Purchase {
    type Input = Order;
    type Output = Receipt;

    async fn run(ctx: Ctx, order: Order) -> Result<Receipt, Rejection> {
        let Order { order_id, customer, sku, quantity, cents, address } = order;
        if cents > APPROVED_ABOVE_CENTS {
            match ctx.signal::<Approval>("Approve").within(DAY).await {
                Some(Approval { approved: true, .. }) => {}
                Some(_) => reject!(PermissionDenied, "the order was not approved"),
                None => reject!(DeadlineExceeded, "nobody approved the order in time"),
            }
        }
        let id = || order_id.clone();

        let release = Release { sku: sku.clone(), order_id: id() };
        ctx.step("reserve", StockClient::reserve(Reserve { sku, order_id: id(), quantity }))
            .compensate(StockClient::release(release))
            .await?;

        let refund = Refund { customer: customer.clone(), order_id: id() };
        ctx.step("charge", AccountClient::charge(Charge { customer, order_id: id(), cents }))
            .compensate(AccountClient::refund(refund))
            .await?;

        let shipped = ctx
            .step("ship", ShippingClient::ship(Parcel { order_id: id(), address }))
            .timeout(Duration::from_secs(10))
            .retries(5, Duration::from_secs(1))
            .await?;
        Ok(Receipt { order_id, tracking: shipped.tracking })
    }
}

stead_sdk::export! {
    workflow Purchase: Checkout, journal = "checkout";
    value Shelf: Stock, journal = "checkout-stock";
    value Balance: Account, journal = "checkout-account";
    action Shippers: Shipping;
}

#[cfg(test)]
mod tests;
