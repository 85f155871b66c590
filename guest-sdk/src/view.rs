//! What a view is.

use prost::Name;

use crate::event::{EncodedMessage, Events};

/// Rows made of the events of an entity type, one for each entity, which the host stores and serves:
/// a service of the view has methods to get a row by its key and to list rows, and no code for them.
pub trait View: 'static {
    /// The events of the entity type: an enum with `#[derive(Events)]`.
    type Event: Events;

    /// A row. Its fields with the option `(stead.indexed)` can be filtered and ordered by.
    type Row: Name + Default + Clone;

    /// The row of an entity after one of its events. `row` is what it was before; none if there is
    /// none.
    ///
    /// MUST depend on nothing else.
    fn update(entity_id: &str, row: Option<Self::Row>, event: Self::Event) -> Change<Self::Row>;
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<R> {
    /// It stays as it is.
    Keep,
    /// It is made, or replaced.
    Update(R),
    /// It is no more.
    Delete,
}

/// What happens to stored state: of a value entity, or a row of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateChange {
    None,
    Update(EncodedMessage),
    Delete,
}

/// Folds events into a row.
pub(crate) fn update<V: View>(
    entity_id: &str,
    row: Option<EncodedMessage>,
    events: &[EncodedMessage],
) -> Result<StateChange, String> {
    let mut row = row.map(|row| row.decode::<V::Row>()).transpose()?;
    let mut changed = false;
    for event in events {
        let event = V::Event::decode(&event.type_name, &event.data)?;
        match V::update(entity_id, row.clone(), event) {
            Change::Keep => {}
            Change::Update(new) => {
                row = Some(new);
                changed = true;
            }
            Change::Delete => {
                row = None;
                changed = true;
            }
        }
    }
    Ok(match row {
        _ if !changed => StateChange::None,
        Some(row) => StateChange::Update(EncodedMessage::of(&row)),
        None => StateChange::Delete,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Event and row in one.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Amount {
        #[prost(int64, tag = "1")]
        amount: i64,
    }

    impl Name for Amount {
        const NAME: &'static str = "Amount";
        const PACKAGE: &'static str = "test";
    }

    #[derive(crate::Events)]
    enum Event {
        Added(Amount),
    }

    /// Sums up; 0 changes nothing, a sum below 0 has no row.
    struct Sum;

    impl View for Sum {
        type Event = Event;
        type Row = Amount;

        fn update(_: &str, row: Option<Amount>, Event::Added(added): Event) -> Change<Amount> {
            match row.unwrap_or_default().amount + added.amount {
                _ if added.amount == 0 => Change::Keep,
                amount @ 0.. => Change::Update(Amount { amount }),
                _ => Change::Delete,
            }
        }
    }

    fn encoded(amount: i64) -> EncodedMessage {
        EncodedMessage::of(&Amount { amount })
    }

    fn after(row: Option<i64>, events: &[i64]) -> StateChange {
        let events: Vec<_> = events.iter().map(|&amount| encoded(amount)).collect();
        update::<Sum>("one", row.map(encoded), &events).unwrap()
    }

    #[test]
    fn a_row_is_what_all_events_made_of_it() {
        assert_eq!(after(None, &[2, 0, 3]), StateChange::Update(encoded(5)));
        assert_eq!(after(Some(1), &[2]), StateChange::Update(encoded(3)));
        assert_eq!(after(Some(1), &[0, 0]), StateChange::None);
        assert_eq!(after(Some(1), &[-2]), StateChange::Delete);
        assert_eq!(after(Some(1), &[-2, 4]), StateChange::Update(encoded(4)));
    }

    #[test]
    fn an_event_that_the_view_does_not_know_is_an_error_that_names_it() {
        let unknown = EncodedMessage { type_name: "test.Unheard".into(), data: Vec::new() };
        assert!(update::<Sum>("one", None, &[unknown]).unwrap_err().contains("test.Unheard"));
    }
}
