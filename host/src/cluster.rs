//! Floor 6: the cluster: who is a member, who owns which shard, and how shards change hands.

pub mod members;

pub mod ownership;

pub mod placement;

pub mod routes;

pub mod identity;

pub mod truth;

pub mod handle;

mod newcomer;

mod grants;

mod lease_thread;

mod keeper;

mod hand_off;

pub mod status;

#[cfg(test)]
mod tests;

pub use handle::{Cluster, Handed, Messenger, Setup, StartError};
pub use identity::Identity;
pub use newcomer::Greeting;
pub use status::{ClusterStatus, Liveness, MemberStatus};
