//! Rows of views: made of events, to be queried by key or in the order of an indexed field.

use std::ops::Bound;

use crate::words::Message;
use crate::words::limits::VIEW_VALUE_BYTES_MAX;

/// A row of a view becomes another, or is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// Which view, and which making of it: 1 to 256 bytes.
    pub view: String,
    /// The entity's id.
    pub key: String,
    pub row: Option<NewRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    pub message: Message,
    /// Names of fields, and their values as bytes that are ordered like the values. A field without a value has
    /// no entry. Of a value the first [`VIEW_VALUE_BYTES_MAX`] bytes count.
    pub index: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRow {
    pub key: String,
    pub message: Message,
    /// Of the field by which the rows are listed; empty for a list by key.
    pub value: Vec<u8>,
}

/// Which rows of a view, and in which order.
#[derive(Clone, Debug, Default)]
pub struct ViewQuery {
    /// By a field, in the order of its values and then of keys: rows without a value are left out. None: all
    /// rows, by key (bytewise).
    pub index: Option<(String, ViewRange)>,
    pub descending: bool,
    /// From after this row on, in the order asked for: the value and the key of the last row of the page before.
    pub after: Option<(Vec<u8>, String)>,
    pub limit: usize,
}

/// Values of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRange {
    pub from: Bound<Vec<u8>>,
    pub to: Bound<Vec<u8>>,
}

impl ViewRange {
    pub const ALL: ViewRange = ViewRange { from: Bound::Unbounded, to: Bound::Unbounded };

    /// Whether it holds the bytes, of which as many count as of a value.
    pub(in crate::journal) fn contains(&self, value: &[u8]) -> bool {
        let is_after = match &self.from {
            Bound::Included(from) => value >= indexed(from),
            Bound::Excluded(from) => value > indexed(from),
            Bound::Unbounded => true,
        };
        let is_before = match &self.to {
            Bound::Included(to) => value <= indexed(to),
            Bound::Excluded(to) => value < indexed(to),
            Bound::Unbounded => true,
        };
        is_after && is_before
    }

    pub fn equal(value: impl Into<Vec<u8>>) -> Self {
        let value = value.into();
        Self { from: Bound::Included(value.clone()), to: Bound::Included(value) }
    }
}

impl RowChange {
    pub(super) fn rows(&self) -> usize {
        1 + self.row.as_ref().map_or(0, |row| row.index.len())
    }

    pub(in crate::journal) fn size(&self) -> usize {
        let index = |row: &NewRow| {
            row.index.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let row = self.row.as_ref().map_or(0, |row| row.message.size() + index(row));
        self.view.len() + self.key.len() + row
    }
}

/// What counts of a value.
pub(in crate::journal) fn indexed(value: &[u8]) -> &[u8] {
    &value[..value.len().min(VIEW_VALUE_BYTES_MAX)]
}
