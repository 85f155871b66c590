//! What is kept in memory of the journal: the newest number of entities that are in use, and where
//! the events lie that are not packed yet. No I/O.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::journal::store::StoredEvent;
use crate::words::Address;

/// An entity as the database knows it; `no` is 0 for one that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub no: i64,
    pub seq: u64,
}

impl Known {
    pub const ABSENT: Known = Known { no: 0, seq: 0 };

    pub fn is_absent(self) -> bool {
        self.no == 0
    }
}

/// A row of the table `journal`.
#[derive(Clone, Debug)]
pub struct Row {
    pub seq: u64,
    pub off: i64,
    pub bytes: usize,
    /// The event itself, while there is room for it.
    pub event: Option<StoredEvent>,
}

pub struct Index {
    known_max: usize,
    event_bytes_max: usize,
    young: HashMap<Address, Known>,
    old: HashMap<Address, Known>,
    /// Counts how often `old` was forgotten.
    generation: u64,
    tail: HashMap<i64, Vec<Row>>,
    /// Entities that cannot be packed. Their rows stay, and count neither as rows nor as bytes.
    set_aside: HashSet<i64>,
    rows: usize,
    event_bytes: usize,
    newest_off: i64,
    /// Counts how often rows left the tail for segments.
    packs: u64,
}

/// What a read saw before it asked the database; it must ask again if that has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    generation: u64,
    packs: u64,
}

impl Index {
    pub fn new(known_max: usize, event_bytes_max: usize) -> Self {
        Self {
            known_max,
            event_bytes_max,
            young: HashMap::new(),
            old: HashMap::new(),
            generation: 0,
            tail: HashMap::new(),
            set_aside: HashSet::new(),
            rows: 0,
            event_bytes: 0,
            newest_off: 0,
            packs: 0,
        }
    }

    pub fn mark(&self) -> Mark {
        Mark { generation: self.generation, packs: self.packs }
    }

    /// The entity, if it is in memory.
    pub fn known(&mut self, address: &Address) -> Option<Known> {
        if let Some(known) = self.young.get(address) {
            return Some(*known);
        }
        let known = *self.old.get(address)?;
        self.publish(address.clone(), known);
        Some(known)
    }

    /// Sets what a commit has made true.
    pub fn publish(&mut self, address: Address, known: Known) {
        if self.young.len() >= self.known_max / 2 && !self.young.contains_key(&address) {
            self.old = std::mem::take(&mut self.young);
            self.generation += 1;
        }
        self.young.insert(address, known);
    }

    /// Remembers what a read found. False if the read raced with a change and has to be repeated.
    pub fn learn(&mut self, address: &Address, mark: Mark, found: Known) -> Option<Known> {
        if let Some(known) = self.known(address) {
            return Some(known);
        }
        if mark != self.mark() {
            return None;
        }
        let head = self.tail_head(found.no).unwrap_or(0);
        let known = Known { no: found.no, seq: found.seq.max(head) };
        self.publish(address.clone(), known);
        Some(known)
    }

    pub fn append(&mut self, no: i64, mut row: Row) {
        let is_set_aside = self.set_aside.contains(&no);
        self.rows += usize::from(!is_set_aside);
        if is_set_aside || self.event_bytes + row.bytes > self.event_bytes_max {
            row.event = None;
        } else if row.event.is_some() {
            self.event_bytes += row.bytes;
        }
        self.newest_off = self.newest_off.max(row.off);
        self.tail.entry(no).or_default().push(row);
    }

    pub fn tail_head(&self, no: i64) -> Option<u64> {
        self.tail.get(&no).and_then(|rows| rows.last()).map(|row| row.seq)
    }

    pub fn tail_first(&self, no: i64) -> Option<u64> {
        self.tail.get(&no).and_then(|rows| rows.first()).map(|row| row.seq)
    }

    /// Rows of an entity from a number on, up to an offset: about `bytes_max` bytes, one at least.
    pub fn tail_rows(
        &self,
        no: i64,
        from: u64,
        cut: i64,
        limit: usize,
        bytes_max: usize,
    ) -> Vec<Row> {
        let rows = self.tail.get(&no).map_or(&[][..], Vec::as_slice);
        let first = rows.partition_point(|row| row.seq < from);
        let mut bytes = 0;
        let mut taken = Vec::new();
        for row in rows[first..].iter().take_while(|row| row.off <= cut).take(limit) {
            if bytes >= bytes_max && !taken.is_empty() {
                break;
            }
            bytes += row.bytes;
            taken.push(row.clone());
        }
        taken
    }

    /// Forgets the rows of an entity up to a number, which are in segments now.
    pub fn packed(&mut self, no: i64, seq_last: u64) {
        self.packs += 1;
        let Some(rows) = self.tail.get_mut(&no) else { return };
        let gone = rows.partition_point(|row| row.seq <= seq_last);
        self.rows -= gone;
        for row in rows.drain(..gone) {
            if row.event.is_some() {
                self.event_bytes -= row.bytes;
            }
        }
        if rows.is_empty() {
            self.tail.remove(&no);
        }
    }

    /// Packs an entity no more.
    pub fn set_aside(&mut self, no: i64) {
        if !self.set_aside.insert(no) {
            return;
        }
        for row in self.tail.get_mut(&no).into_iter().flatten() {
            self.rows -= 1;
            if row.event.take().is_some() {
                self.event_bytes -= row.bytes;
            }
        }
    }

    /// Whose rows must stay in the table.
    pub fn all_set_aside(&self) -> Vec<i64> {
        self.set_aside.iter().copied().collect()
    }

    /// What there is to pack: the entities, and the newest offset.
    pub fn unpacked(&self) -> (BTreeSet<i64>, i64) {
        let packable = self.tail.keys().filter(|no| !self.set_aside.contains(no));
        (packable.copied().collect(), self.newest_off)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn event_bytes(&self) -> usize {
        self.event_bytes
    }
}

/// Names of message types by number, and back.
#[derive(Default)]
pub struct Types {
    numbers: HashMap<Arc<str>, i64>,
    names: HashMap<i64, Arc<str>>,
    newest: i64,
}

impl Types {
    pub fn insert(&mut self, name: Arc<str>, number: i64) {
        self.newest = self.newest.max(number);
        self.numbers.insert(name.clone(), number);
        self.names.insert(number, name);
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.numbers.get(name).copied()
    }

    pub fn name(&self, number: i64) -> Option<Arc<str>> {
        self.names.get(&number).cloned()
    }

    pub fn next_number(&self) -> i64 {
        self.newest + 1
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: u64, off: i64) -> Row {
        Row { seq, off, bytes: 10, event: None }
    }

    #[test]
    fn forgets_the_entities_that_were_not_used_for_longest() {
        let mut index = Index::new(4, 0);
        for id in ["a", "b", "c", "d"] {
            index.publish(Address::new("j", id), Known { no: 1, seq: 1 });
            assert!(index.known(&Address::new("j", "a")).is_some());
        }
        index.publish(Address::new("j", "e"), Known { no: 1, seq: 1 });
        assert!(index.known(&Address::new("j", "b")).is_none());
        assert!(index.known(&Address::new("j", "a")).is_some());
    }

    #[test]
    fn a_read_that_raced_with_packing_is_not_believed() {
        let mut index = Index::new(4, 0);
        let address = Address::new("j", "a");
        index.append(1, row(1, 1));
        let mark = index.mark();
        index.packed(1, 1);
        assert_eq!(index.learn(&address, mark, Known { no: 1, seq: 0 }), None);
        let found = Known { no: 1, seq: 1 };
        assert_eq!(index.learn(&address, index.mark(), found), Some(found));
    }

    #[test]
    fn a_read_does_not_overwrite_what_a_commit_made_true() {
        let mut index = Index::new(4, 0);
        let address = Address::new("j", "a");
        let mark = index.mark();
        index.publish(address.clone(), Known { no: 1, seq: 5 });
        let learnt = index.learn(&address, mark, Known::ABSENT);
        assert_eq!(learnt, Some(Known { no: 1, seq: 5 }));
    }

    #[test]
    fn packing_leaves_newer_rows() {
        let mut index = Index::new(4, 0);
        (1..=5).for_each(|seq| index.append(1, row(seq, seq as i64)));
        index.packed(1, 3);
        assert_eq!((index.tail_first(1), index.tail_head(1), index.rows()), (Some(4), Some(5), 2));
        index.packed(1, 5);
        assert_eq!((index.tail_first(1), index.rows()), (None, 0));
    }
}
