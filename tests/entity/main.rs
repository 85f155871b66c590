//! The entity floor with real components over a store in memory, whose commits can be held or made to
//! fail: what must hold at moments that a test from outside cannot catch.

mod bounds;
mod deployment;
mod effects;
mod forwards;
mod house;
mod lifecycle;
mod order;
mod ownership;
mod receipts;
mod store_faults;
mod supervision;
mod timers;
mod values;
mod workflows;
