//! Floor 8: the edges. HTTP/1.1 and HTTP/2 on one port; gRPC, gRPC-Web, Connect and HTTP/JSON told
//! apart by content type and path; the admin API through the same machinery.

pub mod backend;
pub mod body;
pub mod json_fault;
pub mod route;
pub mod template;
pub mod transcode;
