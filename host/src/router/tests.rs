//! Routers with real peers over loopback.

mod callers;
pub mod node;
mod peers;
mod routing;
