//! Routers with real peers over loopback.

mod node;
mod peers;
mod routing;
