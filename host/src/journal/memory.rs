//! A store in memory, for tests.

/// Cheap to clone; clones share the data.
#[derive(Clone, Default)]
pub struct MemoryStore {}
