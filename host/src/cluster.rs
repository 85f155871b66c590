//! Floor 6: the cluster: who is a member, who owns which shard, and how shards change hands.

pub mod placement;

pub mod routes;
