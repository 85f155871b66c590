//! Ids and counters, each a type of its own so that none is taken for another.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text itself, for metric labels.
            pub fn to_arc(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// Full name of a protobuf service, without a leading dot.
    ServiceName
}
name! {
    /// The stable name under which the entities of a type are stored.
    JournalName
}
name! {
    /// What distinguishes an entity from the others of its type.
    EntityId
}

/// Which entity: the journal of its type, and its id. What the journal floor keys everything by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub journal: JournalName,
    pub id: EntityId,
}

impl Address {
    pub fn new(journal: impl Into<JournalName>, id: impl Into<EntityId>) -> Self {
        Self { journal: journal.into(), id: id.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.journal, self.id)
    }
}

/// How many events an entity has: the sequence number of its newest event, 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    pub const ZERO: Seq = Seq(0);

    pub fn plus(self, events: usize) -> Seq {
        Seq(self.0 + events as u64)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a deployment; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of a module's bytes: its name in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits, with or without the prefix `sha256:`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

/// A slice of the entities: the unit of placement. Numbered from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u32);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Address {
    /// Which of `count` shards the entity belongs to: the XXH3 64-bit hash (seed 0) of the length of the
    /// journal's name as a little-endian u32, the journal's name, and the id, modulo `count`. Part of the
    /// format of a cluster's data: it never changes.
    pub fn shard(&self, count: u32) -> Shard {
        let mut hash = xxhash_rust::xxh3::Xxh3Default::new();
        hash.update(&(self.journal.as_str().len() as u32).to_le_bytes());
        hash.update(self.journal.as_str().as_bytes());
        hash.update(self.id.as_str().as_bytes());
        Shard((hash.digest() % u64::from(count.max(1))) as u32)
    }
}

/// The fencing token of a shard's ownership: each change of owner steps it, and it never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a node for as long as its data directory lives. Random; written as a UUID.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// Reads the 36 characters of a UUID, or its 32 hexadecimal digits alone.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let mut bytes = [0; 16];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The first 8 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = hex::encode(self.0);
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        f.write_str(&parts.join("-"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Which life of a node: one more each time it registers with the store.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_text_round_trips_with_and_without_prefix() {
        let digest = Digest::of(b"cart");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse(&format!("sha256:{digest}")), Some(digest));
        assert_eq!(Digest::parse("cart"), None);
    }

    #[test]
    fn entities_belong_to_the_shards_that_they_always_did() {
        let shard = |journal: &str, id: &str, count| Address::new(journal, id).shard(count).0;
        // Made with python-xxhash. Entities of a running cluster would be lost from sight if one of these changed.
        let vectors = [("carts", "ada"), ("carts", ""), ("", "cartsada"), ("carts", "\u{e9}\0/..")];
        assert_eq!(vectors.map(|(journal, id)| shard(journal, id, 1_024)), [81, 599, 729, 137]);
        assert_eq!(vectors.map(|(journal, id)| shard(journal, id, 7)), [2, 5, 6, 2]);
        assert_eq!(shard("carts", "ada", 1), 0);
    }

    #[test]
    fn a_node_id_round_trips_as_a_uuid() {
        let id = NodeId(std::array::from_fn(|i| i as u8 * 16 + 1));
        assert_eq!(id.to_string(), "01112131-4151-6171-8191-a1b1c1d1e1f1");
        assert_eq!(NodeId::parse(&id.to_string()), Some(id));
        assert_eq!(NodeId::parse("0111"), None);
    }
}
