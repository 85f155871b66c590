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
