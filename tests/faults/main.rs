//! Faults of a cluster, each a test: nodes that die, stand still or are cut off, clocks that jump, stores
//! that stop or lose their newest writes, strangers on the ports.
//!
//! `cargo xtask faults` runs all of them, as root. What is not ignored takes some four minutes and is part of
//! `cargo xtask test`. They run one at a time: what is timed is the host, not its neighbours.

mod support;

mod functions;

mod kills;

mod pauses;

mod partitions;

mod networks;

mod clocks;

mod stores;

mod strangers;

mod random;
