//! Floor 0: the words that every other floor speaks. No I/O but reading configuration.

pub mod budget;
pub mod clock;
pub mod config;
mod grant;
pub mod id;
pub mod limits;
pub mod message;
mod sparing;
pub mod status;
pub mod telemetry;
mod trail;

pub use grant::{Grants, Origin};
pub use id::{
    Address, Digest, EntityId, Epoch, Incarnation, JournalName, NodeId, Revision, Seq, ServiceName,
    Shard,
};
pub use message::Message;
pub use sparing::Sparing;
pub use status::{Code, Status};
pub use trail::Trail;
