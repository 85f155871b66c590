//! Stead from outside: the real binary, real clients, real signals, real disks.
//!
//! Run by `cargo xtask test`, which builds the guests and installs the clients first.

mod guests;

mod cart;

mod clients;

mod rows;

mod event_sourced;

mod value_entities;

mod examples;

mod actions;

mod idempotency;

mod deploy;

mod consumers;

mod forwards;

mod traps;

mod feed;

mod views;

mod lifecycle;

mod admin;

mod cli;

mod edges;

mod protocol_abuse;

mod bad_requests;

mod bad_modules;

mod bad_guests;

mod bad_disks;

mod crash;

mod store_copy;

mod cluster;
