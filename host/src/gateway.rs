//! Floor 8: the edges. HTTP/1.1 and HTTP/2 on one port; gRPC, gRPC-Web, Connect and HTTP/JSON told
//! apart by content type and path; the admin API through the same machinery.

pub mod server;

mod activity;
pub mod tls;

pub mod backend;
pub mod body;
mod cors;
mod dispatch;
mod exchange;
mod head;

mod connect;
mod grpc;
mod grpc_web;
mod http_json;
mod stream;

mod compression;
mod frame;
mod json_fault;
mod query;
pub mod transcode;

pub mod route;
pub mod template;

pub mod admin;
mod error;
mod grpc_service;
pub mod health;
pub mod reflection;
pub mod services;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
