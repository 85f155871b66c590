//! Views under test.

use crate::event::{EncodedMessage, Events};
use crate::view::{StateChange, View, update};

/// The row of an entity after these events; none if there is none. One by one, all at once, and in two
/// halves the events give the same row: the host may pass on any number at a time.
///
/// # Panics
///
/// If they do not.
#[track_caller]
pub fn fold_view<V: View>(
    entity_id: &str,
    events: impl IntoIterator<Item = V::Event>,
) -> Option<V::Row> {
    let events: Vec<_> = events.into_iter().map(|event| event.encode()).collect();
    let whole = folded::<V>(entity_id, &events, events.len());
    for size in [1, events.len().div_ceil(2)] {
        let parts = folded::<V>(entity_id, &events, size);
        assert_eq!(parts, whole, "{size} events at a time give another row than all at once");
    }
    whole.map(|row| row.decode().expect("a row decodes after it was encoded"))
}

fn folded<V: View>(
    entity_id: &str,
    events: &[EncodedMessage],
    size: usize,
) -> Option<EncodedMessage> {
    events.chunks(size.max(1)).fold(None, |row, events| {
        match update::<V>(entity_id, row.clone(), events).expect("events that the view knows") {
            StateChange::None => row,
            StateChange::Update(row) => Some(row),
            StateChange::Delete => None,
        }
    })
}
