//! What an event-sourced entity is.

use prost::Name;

use crate::event::Events;

/// An event-sourced entity: its state is what its events made of it.
///
/// `Default` is the entity before its first event.
pub trait EventSourced: Default + 'static {
    /// An enum of message types, with `#[derive(Events)]`.
    type Event: Events;

    /// The message that holds the whole state. `()` for an entity without snapshots.
    type Snapshot: Name + Default;

    /// The only place where the state changes: once when the event is new, and again at each replay.
    ///
    /// MUST depend on nothing but the state and the event, and MUST accept every event that was
    /// ever stored: a refusal belongs into the command handler.
    fn apply(&mut self, event: Self::Event);

    /// The state as a message, a shortcut for the next activation. None if there is nothing to gain.
    fn snapshot(&self) -> Option<Self::Snapshot> {
        None
    }

    /// Replaces the state by what [`snapshot`](Self::snapshot) returned, perhaps in an older version
    /// of this code.
    ///
    /// # Errors
    ///
    /// Why the snapshot cannot be read. The host then leaves it aside and replays every event to a
    /// fresh state.
    fn restore(&mut self, _snapshot: Self::Snapshot) -> Result<(), String> {
        Err("this entity has no `restore`".into())
    }
}
