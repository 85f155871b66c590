//! Floor 9: the commands of the `stead` binary.

pub mod build;
