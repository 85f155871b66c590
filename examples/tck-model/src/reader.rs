//! Who reads the journals of the event-sourced model: a consumer, and a view.

use stead_sdk::{Action, Change, Context, Outcome, View, reject};

use crate::api::{ActionResponse, EventConsumer, ModelRow, Persisted};
use crate::event_sourced::Event;

#[derive(Default)]
pub struct Consumer;

impl Action for Consumer {}

impl EventConsumer for Consumer {
    fn persisted(
        &self,
        ctx: &mut Context<Self>,
        event: Persisted,
    ) -> Outcome<Self, ActionResponse> {
        if event.value.starts_with("poison") {
            reject!(FailedPrecondition, "{} is poison", event.value);
        }
        if event.value == "trap" {
            panic!("as told");
        }
        ctx.reply(ActionResponse::default())
    }
}

/// Of the view. With the feature `next-view`, a row lists what it is made of the other way around, and takes
/// its time over each event.
pub const VERSION: u32 = if cfg!(feature = "next-view") { 2 } else { 1 };
/// Rounds of nothing: some ten milliseconds.
const DAWDLE: u32 = 10_000_000;

/// A row for each entity.
pub struct Rows;

impl View for Rows {
    type Event = Event;
    type Row = ModelRow;

    fn update(id: &str, row: Option<ModelRow>, event: Event) -> Change<ModelRow> {
        let Event::Persisted(Persisted { value }) = event;
        if value == "no row" {
            panic!("as told");
        }
        let row = row.unwrap_or_default();
        let text = match VERSION {
            1 => format!("{}{value}", row.text),
            _ => {
                (0..DAWDLE).for_each(|round| _ = std::hint::black_box(round));
                format!("{value}{}", row.text)
            }
        };
        Change::Update(ModelRow { id: id.to_owned(), text, events: row.events + 1 })
    }
}
