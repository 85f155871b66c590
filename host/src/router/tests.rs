//! Routers with real peers over loopback.

mod callers;
mod node;
mod peers;
mod routing;
