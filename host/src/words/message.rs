//! A typed protobuf message as the host carries it: never decoded on the way.

use std::sync::Arc;

use bytes::Bytes;

/// A serialized protobuf message and the full name of its type. Events, snapshots and states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub type_name: Arc<str>,
    pub data: Bytes,
}

impl Message {
    pub fn new(type_name: impl Into<Arc<str>>, data: impl Into<Bytes>) -> Self {
        Self { type_name: type_name.into(), data: data.into() }
    }

    /// What it counts against bounds in bytes.
    pub fn size(&self) -> usize {
        self.type_name.len() + self.data.len()
    }
}
