//! What is put into shopping carts most often: a consumer counts it, a view lists it.

mod api {
    stead_sdk::include_proto!("com.example.hotitems");
}
/// The events of the shopping carts, where the generated code expects them.
#[allow(dead_code)]
mod shoppingcart {
    pub mod persistence {
        stead_sdk::include_proto!("com.example.shoppingcart.persistence");
    }
}

use api::{CartEvents, Count, Counted, HotItem, HotItemsRows, Item, ItemClient, Total};
use shoppingcart::persistence::ItemAdded;
use stead_sdk::{Action, Change, Context, EventSourced, Events, Outcome, View, reject};

/// Is given each event of each cart at least once.
#[derive(Default)]
pub struct Consumer;

impl Action for Consumer {}

impl CartEvents for Consumer {
    fn added(&self, ctx: &mut Context<Self>, event: ItemAdded) -> Outcome<Self, ()> {
        let Some(item) = event.item else { return ctx.reply(()) };
        let quantity = u32::try_from(item.quantity).unwrap_or_default();
        let count = Count { product_id: item.product_id, name: item.name, quantity };
        let of = |name| ctx.metadata().get(name).unwrap_or_default();
        let key = format!("{}/{}", of("ce-sequence"), of("ce-subject"));
        // Should this fail, the event comes again; should it come again anyway, it counts once.
        ctx.call(ItemClient::count(count).with_idempotency_key(&key))?;
        ctx.reply(())
    }
}

/// A product, and how many of it were put into carts.
#[derive(Default)]
pub struct Product {
    quantity: u64,
}

#[derive(Events)]
pub enum Event {
    Counted(Counted),
}

impl Item for Product {
    fn count(&self, ctx: &mut Context<Self>, command: Count) -> Outcome<Self, ()> {
        let Count { name, quantity, .. } = command;
        if self.quantity.checked_add(quantity.into()).is_none() {
            reject!(OutOfRange, "{name} is too hot to be counted");
        }
        ctx.emit(Counted { name, quantity });
        ctx.reply(())
    }
}

impl EventSourced for Product {
    type Event = Event;
    type Snapshot = Total;

    fn apply(&mut self, Event::Counted(counted): Event) {
        self.quantity = self.quantity.saturating_add(counted.quantity.into());
    }

    fn snapshot(&self) -> Option<Total> {
        Some(Total { quantity: self.quantity })
    }

    fn restore(&mut self, total: Total) -> Result<(), String> {
        self.quantity = total.quantity;
        Ok(())
    }
}

/// A row for each product.
pub struct Table;

impl View for Table {
    type Event = Event;
    type Row = HotItem;

    fn update(product: &str, row: Option<HotItem>, event: Event) -> Change<HotItem> {
        let Event::Counted(Counted { name, quantity }) = event;
        let before = row.map_or(0, |row| row.quantity);
        let quantity = before.saturating_add(quantity.into());
        Change::Update(HotItem { product_id: product.to_owned(), name, quantity })
    }
}

stead_sdk::export! {
    action Consumer: CartEvents;
    Product: Item, journal = "hot-item";
    view Table: HotItemsRows, source = "hot-item";
}

#[cfg(test)]
mod tests;
