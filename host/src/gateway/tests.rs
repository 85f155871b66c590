//! The edges over real sockets.

mod connect;
mod cors;
mod grpc;
mod grpc_web;
mod http_json;
mod mapping;
mod measure;
mod routing;
mod server;
mod tls;
