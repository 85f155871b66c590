//! gRPC's framing of a unary message: one byte of flags, four of length, the message.

use bytes::{BufMut, Bytes, BytesMut};

use crate::gateway::compression;
use crate::words::budget::Held;
use crate::words::{Status, limits};

pub const PREFIX_BYTES: usize = 5;

/// The length that a frame's first bytes announce, refused if it is too large to be read at all.
pub fn announced(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if length > limits::BODY_BYTES_MAX {
        return Err(Status::resource_exhausted(format!(
            "the message has {length} bytes; the limit is {}",
            limits::BODY_BYTES_MAX
        )));
    }
    Ok(Some(length))
}

/// The only message of a body.
pub fn unframe(
    mut body: Bytes,
    encoding: Option<&str>,
    held: &mut Held<'_>,
) -> Result<Bytes, Status> {
    let Some(length) = announced(&body)? else {
        return Err(Status::invalid_argument(match body.len() {
            0 => "the request has no message; a unary call has exactly one".into(),
            bytes => format!("the request ends after {bytes} bytes of a 5-byte frame header"),
        }));
    };
    let flags = body[0];
    let message = body.split_off(PREFIX_BYTES);
    if message.len() < length {
        return Err(Status::invalid_argument(format!(
            "the request ends after {} of the {length} bytes that its frame announces",
            message.len()
        )));
    }
    if message.len() > length {
        return Err(Status::invalid_argument(
            "the request goes on after its message; a unary call has exactly one",
        ));
    }
    match (flags, encoding) {
        (0, _) => Ok(message),
        (1, Some(name)) if name.eq_ignore_ascii_case("gzip") => compression::gunzip(&message, held),
        (1, None | Some("identity")) => Err(Status::invalid_argument(
            "the message is flagged as compressed, but there is no grpc-encoding",
        )),
        (1, Some(name)) => Err(unknown_encoding(name)),
        (flags, _) => Err(Status::invalid_argument(format!(
            "the frame has the flags {flags:#04x}; only 0 and 1 are known"
        ))),
    }
}

pub fn unknown_encoding(name: &str) -> Status {
    Status::unimplemented(format!("grpc-encoding {name:?} is not supported; use gzip or identity"))
}

/// Frames a message; true if it was compressed on the way.
pub fn frame(message: &[u8], may_compress: bool, room: usize) -> (BytesMut, bool) {
    let compressed = if may_compress { compression::gzip(message) } else { None };
    let is_compressed = compressed.is_some();
    let message = compressed.as_deref().unwrap_or(message);
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.len() + room);
    out.put_u8(is_compressed.into());
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    (out, is_compressed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::unframe;
    use crate::words::Code;

    fn code(bytes: &'static [u8], encoding: Option<&str>) -> Code {
        unframe(Bytes::from_static(bytes), encoding).unwrap_err().code
    }

    #[test]
    fn frames_round_trip() {
        let large = vec![7; 10_000];
        for (message, gzip) in [(&b""[..], false), (b"cart", true), (&large, true), (&large, false)]
        {
            let (framed, compressed) = frame(message, gzip, 0);
            assert_eq!(compressed, gzip && message.len() > 1_000);
            assert_eq!(unframe(framed.freeze(), Some("gzip")).unwrap(), message);
        }
    }

    #[test]
    fn anything_but_exactly_one_message_is_refused() {
        assert_eq!(code(b"", None), Code::InvalidArgument);
        assert_eq!(code(b"\0\0\0", None), Code::InvalidArgument);
        assert_eq!(code(b"\0\0\0\0\x02a", None), Code::InvalidArgument);
        assert_eq!(code(b"\0\0\0\0\x01ab", None), Code::InvalidArgument);
        assert_eq!(code(b"\x02\0\0\0\x01a", None), Code::InvalidArgument);
        assert_eq!(code(b"\x01\0\0\0\x01a", None), Code::InvalidArgument);
        assert_eq!(code(b"\x01\0\0\0\x01a", Some("gzip")), Code::InvalidArgument);
        assert_eq!(code(b"\x01\0\0\0\x01a", Some("zstd")), Code::Unimplemented);
        assert_eq!(code(b"\0\xff\xff\xff\xff", None), Code::ResourceExhausted);
    }
}
