//! Floor 4: the rules of each kind of function, as pure code from (state, input) to effects.

pub mod event_sourced;
