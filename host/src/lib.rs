//! Stead: a host for stateful functions in WebAssembly.
//!
//! The modules are floors, from the ground up. A module names only its own floor or lower ones;
//! `tests/tidy.rs` keeps that true. ARCHITECTURE.md is the map.

pub mod words;

pub mod journal;

pub mod wasm;

pub mod registry;

pub mod kind;

pub mod entity;

pub mod action;

pub mod cluster;

pub mod consumer;

pub mod router;

pub mod gateway;

pub mod node;

pub mod cli;
