//! A page of the feed, sorted by entity. Pure.

use std::collections::HashMap;

use crate::journal::FeedEntry;
use crate::words::{Address, JournalName, Message, Seq};

/// An event for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub seq: Seq,
    pub at_ms: u64,
    pub event: Message,
}

/// What the events of one entity begin with, and all of them in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub address: Address,
    pub events: Vec<Event>,
}

/// The events of a log by entity, in the order in which the entities appear first.
pub fn by_entity(log: &JournalName, entries: Vec<FeedEntry>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut places: HashMap<Address, usize> = HashMap::new();
    for entry in entries {
        if entry.address.journal != *log {
            continue;
        }
        let place = *places.entry(entry.address.clone()).or_insert_with(|| {
            runs.push(Run { address: entry.address.clone(), events: Vec::new() });
            runs.len() - 1
        });
        let event = Event { seq: entry.seq, at_ms: entry.at_ms, event: entry.event };
        runs[place].events.push(event);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(off: u64, log: &str, id: &str, seq: u64) -> FeedEntry {
        let event = Message::new("t.E", "x");
        FeedEntry { off, address: Address::new(log, id), seq: Seq(seq), at_ms: 0, event }
    }

    #[test]
    fn events_are_sorted_by_entity_and_keep_their_order() {
        let entries = vec![
            entry(1, "a", "x", 4),
            entry(2, "b", "x", 1),
            entry(3, "a", "y", 1),
            entry(5, "a", "x", 5),
        ];
        let runs = by_entity(&"a".into(), entries);
        let seqs = |run: &Run| run.events.iter().map(|event| event.seq.0).collect::<Vec<_>>();
        assert_eq!(runs.len(), 2);
        assert_eq!((runs[0].address.id.as_str(), seqs(&runs[0])), ("x", vec![4, 5]));
        assert_eq!((runs[1].address.id.as_str(), seqs(&runs[1])), ("y", vec![1]));
    }
}
