//! Effects: calls that a command asks for, which stay in the outbox until they are delivered.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use crate::words::{Address, Shard};

/// Which effect: 8 bytes of a clock and 8 random ones. Ordered as bytes, which is the order in which a process
/// made them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(pub [u8; 16]);

impl EffectId {
    /// `nanos` comes first, so that ids are ordered by it.
    pub fn new(nanos: u64, random: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&nanos.to_be_bytes());
        bytes[8..].copy_from_slice(&random.to_be_bytes());
        Self(bytes)
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// An effect of a command that is being stored. It is due at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEffect {
    /// Unique over all entities.
    pub id: EffectId,
    pub call: StoredCall,
}

/// A call as it waits to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCall {
    pub service: String,
    pub method: String,
    pub payload: Bytes,
    pub metadata: Vec<(String, String)>,
    /// Functions that the call came through before.
    pub hops: u32,
    /// Their names, oldest first; those that are not known are left out.
    pub through: Vec<String>,
    /// What one try may take.
    pub timeout_ms: u64,
    /// The token with which the result goes back to the source.
    pub result_to: Option<String>,
    pub request_id: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// An effect that is not delivered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    pub shard: Shard,
    /// Whose command asked for it.
    pub source: Address,
    pub id: EffectId,
    pub call: StoredCall,
    /// Tries that failed.
    pub tries: u32,
    /// Not before this time, milliseconds since 1970; 0 before the first try.
    pub due_ms: u64,
    /// Of the last try; empty before there was one.
    pub error: String,
    /// Given up, until an operator decides.
    pub parked: bool,
}

impl StoredCall {
    /// What it counts against bounds in bytes.
    pub fn size(&self) -> usize {
        let metadata: usize =
            self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let texts = self.service.len() + self.method.len() + self.request_id.len();
        let through: usize = self.through.iter().map(String::len).sum();
        texts
            + through
            + self.payload.len()
            + metadata
            + self.result_to.as_ref().map_or(0, String::len)
    }

    pub(in crate::journal) fn encode(&self) -> Vec<u8> {
        let entry =
            |(name, value): &(String, String)| Entry { name: name.clone(), value: value.clone() };
        let record = Record {
            service: self.service.clone(),
            method: self.method.clone(),
            payload: self.payload.clone(),
            metadata: self.metadata.iter().map(entry).collect(),
            hops: self.hops,
            through: self.through.clone(),
            timeout_ms: self.timeout_ms,
            result_to: self.result_to.clone(),
            request_id: self.request_id.clone(),
            created_ms: self.created_ms,
        };
        record.encode_to_vec()
    }

    /// None for bytes that [`encode`](Self::encode) did not make.
    pub(in crate::journal) fn decode(bytes: Bytes) -> Option<Self> {
        let record = Record::decode(bytes).ok()?;
        Some(Self {
            service: record.service,
            method: record.method,
            payload: record.payload,
            metadata: record.metadata.into_iter().map(|entry| (entry.name, entry.value)).collect(),
            hops: record.hops,
            through: record.through,
            timeout_ms: record.timeout_ms,
            result_to: record.result_to,
            request_id: record.request_id,
            created_ms: record.created_ms,
        })
    }
}

/// The form in which a call lies in a column.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "bytes", tag = "3")]
    payload: Bytes,
    #[prost(message, repeated, tag = "4")]
    metadata: Vec<Entry>,
    #[prost(uint32, tag = "5")]
    hops: u32,
    #[prost(uint64, tag = "6")]
    timeout_ms: u64,
    #[prost(string, optional, tag = "7")]
    result_to: Option<String>,
    #[prost(string, tag = "8")]
    request_id: String,
    #[prost(uint64, tag = "9")]
    created_ms: u64,
    #[prost(string, repeated, tag = "10")]
    through: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_call_round_trips(
            texts in prop::collection::vec(any::<String>(), 4),
            payload in prop::collection::vec(any::<u8>(), 0..100),
            metadata in prop::collection::vec((any::<String>(), any::<String>()), 0..4),
            hops: u32,
            through in prop::collection::vec(any::<String>(), 0..4),
            times: (u64, u64),
            has_token: bool,
        ) {
            let call = StoredCall {
                service: texts[0].clone(),
                method: texts[1].clone(),
                payload: payload.into(),
                metadata,
                hops,
                through,
                timeout_ms: times.0,
                result_to: has_token.then(|| texts[2].clone()),
                request_id: texts[3].clone(),
                created_ms: times.1,
            };
            prop_assert_eq!(StoredCall::decode(call.encode().into()), Some(call));
        }
    }

    #[test]
    fn bytes_of_something_else_are_no_call() {
        assert_eq!(StoredCall::decode(Bytes::from_static(b"\xff\xff")), None);
    }

    #[test]
    fn an_id_round_trips_as_text_and_is_ordered_by_its_time() {
        let (early, late) = (EffectId::new(1, u64::MAX), EffectId::new(2, 0));
        assert!(early < late);
        assert_eq!(EffectId::parse(&early.to_string()), Some(early));
        assert_eq!(EffectId::parse("01"), None);
    }
}
