//! The body of every response.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

use crate::words::Status;

pub type Body = UnsyncBoxBody<Bytes, Status>;
