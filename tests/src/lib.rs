//! The real `stead` binary as tests and the bench use it: started on free ports and a directory of
//! its own, called like any client would, stopped, killed, started again.
//!
//! `cargo xtask test` builds the binary and the guests and says where they are.

pub mod files;

pub mod host;

pub mod postgres;

pub mod client;

pub mod grpc;

pub mod admin;

pub mod cli;

pub mod cart;

pub mod eventually;

pub mod model;

pub mod certificates;

pub mod rng;

pub mod functions;

pub mod linear;

pub mod cluster;

pub mod load;

pub use client::{Answer, Client};
pub use host::Host;

/// The cart's public messages and its gRPC client.
pub mod proto {
    tonic::include_proto!("com.example.shoppingcart");
}

/// The messages of the model action and its gRPC client.
pub mod tck {
    tonic::include_proto!("stead.tck.v1");
}

/// The `FileDescriptorSet` of the model action.
pub const TCK_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tck.binpb"));

/// The `FileDescriptorSet` of the fraud check.
pub const FRAUD_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fraud.binpb"));

/// The `FileDescriptorSet` of the cart's public API, for clients that want one.
pub const CART_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cart.binpb"));
