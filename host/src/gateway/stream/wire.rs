//! How the messages of a streamed answer look on the wire, and how it ends.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use prost_reflect::MessageDescriptor;
use serde_json::json;

use crate::gateway::connect::Codec;
use crate::gateway::{error, frame, transcode};
use crate::words::Status;

const GRPC_WEB_END: u8 = 0x80;
const CONNECT_END: u8 = 0x02;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Grpc {
        gzip: bool,
    },
    GrpcWeb {
        gzip: bool,
        /// In base64.
        text: bool,
    },
    Connect {
        codec: Codec,
    },
    /// One JSON text a line.
    Lines,
    /// Server-sent events.
    Events,
}

impl Wire {
    /// One message of the answer.
    pub fn message(self, output: &MessageDescriptor, message: Bytes) -> Result<Bytes, Status> {
        Ok(match self {
            Self::Grpc { gzip } => frame::frame(&message, gzip, 0).0.freeze(),
            Self::GrpcWeb { gzip, text } => {
                in_text(text, frame::frame(&message, gzip, 0).0.freeze())
            }
            Self::Connect { codec: Codec::Proto } => frame::frame(&message, false, 0).0.freeze(),
            Self::Connect { codec: Codec::Json } => {
                frame::frame(&transcode::to_json(output, message)?, false, 0).0.freeze()
            }
            Self::Lines => {
                let mut line = transcode::to_json(output, message)?;
                line.push(b'\n');
                line.into()
            }
            Self::Events => event(None, &transcode::to_json(output, message)?),
        })
    }

    /// What comes after the last message. gRPC says it in trailers instead.
    pub fn end(self, status: Option<&Status>) -> Bytes {
        match self {
            Self::Grpc { .. } => Bytes::new(),
            Self::GrpcWeb { text, .. } => {
                let mut trailers = BytesMut::new();
                error::grpc_web_trailers(status, &mut trailers);
                in_text(text, flagged(GRPC_WEB_END, &trailers))
            }
            Self::Connect { .. } => {
                let end = match status {
                    Some(status) => json!({ "error": error::json_value(status) }),
                    None => json!({}),
                };
                flagged(CONNECT_END, end.to_string().as_bytes())
            }
            Self::Lines => match status {
                // No field of a protobuf message is called so.
                Some(status) => {
                    format!("{}\n", json!({ "@error": error::json_value(status) })).into()
                }
                None => Bytes::new(),
            },
            Self::Events => match status {
                Some(status) => {
                    event(Some("error"), error::json_value(status).to_string().as_bytes())
                }
                None => event(Some("end"), b"{}"),
            },
        }
    }
}

fn flagged(flags: u8, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(frame::PREFIX_BYTES + bytes.len());
    out.put_u8(flags);
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
    out.freeze()
}

/// Each piece is padded on its own, which clients accept in the middle.
fn in_text(text: bool, bytes: Bytes) -> Bytes {
    if text { BASE64_STANDARD.encode(&bytes).into() } else { bytes }
}

/// The JSON has no line ends, because our writer makes none.
fn event(name: Option<&str>, json: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len() + 32);
    if let Some(name) = name {
        out.put_slice(b"event: ");
        out.put_slice(name.as_bytes());
        out.put_slice(b"\n");
    }
    out.put_slice(b"data: ");
    out.put_slice(json);
    out.put_slice(b"\n\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(wire: Wire, status: Option<&Status>) -> String {
        String::from_utf8(wire.end(status).to_vec()).expect("text")
    }

    #[test]
    fn every_protocol_tells_an_error_in_its_own_way() {
        let status = Status::not_found("no cart");
        let told = r#"{"code":"not_found","message":"no cart"}"#;
        assert_eq!(text(Wire::Lines, Some(&status)), format!("{{\"@error\":{told}}}\n"));
        let event = format!("event: error\ndata: {told}\n\n");
        assert_eq!(text(Wire::Events, Some(&status)), event);
        let end = Wire::Connect { codec: Codec::Json }.end(Some(&status));
        let json = format!("{{\"error\":{told}}}");
        assert_eq!(end[..5], [2, 0, 0, 0, json.len() as u8]);
        assert_eq!(end[5..], *json.as_bytes());
        let end = Wire::GrpcWeb { gzip: false, text: false }.end(Some(&status));
        assert_eq!(end[0], 0x80);
        assert_eq!(end[5..], *b"grpc-status:5\r\ngrpc-message:no cart\r\n");
    }

    #[test]
    fn a_success_ends_as_the_protocol_says() {
        assert_eq!(text(Wire::Lines, None), "");
        assert_eq!(text(Wire::Events, None), "event: end\ndata: {}\n\n");
        assert_eq!(Wire::Connect { codec: Codec::Proto }.end(None)[..], *b"\x02\0\0\0\x02{}");
        let end = Wire::GrpcWeb { gzip: false, text: true }.end(None);
        let end = BASE64_STANDARD.decode(end).expect("base64");
        assert_eq!(end[5..], *b"grpc-status:0\r\n");
    }
}
