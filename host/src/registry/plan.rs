//! What a deployment would change, as pure code over the entity types of modules.

use crate::registry::live::Kind;
use crate::words::{Digest, JournalName, Revision, ServiceName};

/// What a deployment changes (or would change).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub revision: Revision,
    /// Ordered by service.
    pub changes: Vec<Change>,
}

/// What a deployment does to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub action: Action,
    /// As it will be; of a removed service, as it was.
    pub entity_type: TypeName,
    /// The module that serves it from now on; of a removed service, the one that did.
    pub module: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Added,
    /// Another module serves it now.
    Replaced,
    Removed,
    Unchanged,
}

/// An entity type in three words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    pub service: ServiceName,
    pub kind: Kind,
    pub journal: JournalName,
}
