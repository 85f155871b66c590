//! Floor 4: the rules of each kind of function, as pure code from (state, input) to what it leads to.

pub mod event_sourced;
