//! What members tell each other beside SWIM: a note about oneself, and the request for one.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::words::NodeId;
use crate::words::limits::{NODE_VERSION_BYTES_MAX, ZONE_BYTES_MAX};

/// What a node says about itself. A hint: the store's row of the node decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Where other nodes call this one (TCP).
    pub peer: SocketAddr,
    pub zone: String,
    pub capacity: u32,
    /// Of the host.
    pub version: String,
    pub draining: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub node: NodeId,
    pub incarnation: u64,
    pub bump: u64,
    /// Stepped with each change of the rest.
    pub step: u64,
    pub meta: Meta,
}

impl Note {
    /// How new it is, among those of one node.
    pub fn age(&self) -> (u64, u64, u64) {
        (self.incarnation, self.bump, self.step)
    }
}

/// A message between members: its first byte says which.
pub enum Message<'a> {
    Swim(&'a [u8]),
    Note(Note),
    /// "Send your note to where this came from."
    Ask,
}

const SWIM: u8 = 0;
const NOTE: u8 = 1;
const ASK: u8 = 2;

impl<'a> Message<'a> {
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            SWIM => Some(Self::Swim(rest)),
            NOTE => {
                let note: Note = serde_json::from_slice(rest).ok()?;
                let fits = note.meta.zone.len() <= ZONE_BYTES_MAX
                    && note.meta.version.len() <= NODE_VERSION_BYTES_MAX;
                fits.then_some(Self::Note(note))
            }
            ASK => rest.is_empty().then_some(Self::Ask),
            _ => None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Swim(message) => {
                bytes.push(SWIM);
                bytes.extend_from_slice(message);
            }
            Self::Note(note) => {
                bytes.push(NOTE);
                // Numbers and texts in a struct: there is nothing that JSON could not say.
                bytes.extend(serde_json::to_vec(note).unwrap_or_default());
            }
            Self::Ask => bytes.push(ASK),
        }
        bytes
    }
}
