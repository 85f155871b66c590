//! Floor 9: a node, assembled in reading order.
