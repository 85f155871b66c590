//! gzip, the one compression that the edges speak.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::words::budget::Held;
use crate::words::{Status, limits};

/// Stops as soon as the result is larger than a body may be, or than the port has room for.
pub fn gunzip(bytes: &[u8], held: &mut Held<'_>) -> Result<Bytes, Status> {
    let most = limits::BODY_BYTES_MAX + 1;
    let mut decoder = GzDecoder::new(bytes);
    let mut out = Vec::new();
    let mut room = (bytes.len() * 4).clamp(64, most);
    loop {
        held.add(room)?;
        out.reserve_exact(room);
        let read = (&mut decoder)
            .take(room as u64)
            .read_to_end(&mut out)
            .map_err(|_| Status::invalid_argument("the request is not valid gzip"))?;
        if out.len() > limits::BODY_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the request has more than {} bytes when decompressed",
                limits::BODY_BYTES_MAX
            ))
            .with_http(413));
        }
        if read < room {
            // What follows would be lost without a word.
            if !decoder.get_ref().is_empty() {
                return Err(Status::invalid_argument(
                    "the request goes on after the end of its gzip member; send it as one member",
                ));
            }
            return Ok(out.into());
        }
        room = out.len().min(most - out.len());
    }
}

/// None if it would not become smaller.
pub fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < limits::COMPRESS_BYTES_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().filter(|out| out.len() < bytes.len())
}

pub fn accepts_gzip(header: Option<&str>) -> bool {
    header.is_some_and(|header| {
        header.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let refused =
                parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32)));
            (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
        })
    })
}

/// What the body of a request is when its `content-encoding` is undone.
pub fn decode(bytes: Bytes, encoding: Option<&str>, held: &mut Held<'_>) -> Result<Bytes, Status> {
    match encoding {
        None | Some("identity" | "") => Ok(bytes),
        Some(name) if name.eq_ignore_ascii_case("gzip") => gunzip(&bytes, held),
        Some(name) => Err(Status::unimplemented(format!(
            "content-encoding {name:?} is not supported; use gzip or identity"
        ))
        .with_http(415)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::gunzip;
    use crate::words::budget::Budget;

    #[test]
    fn round_trips_what_is_worth_compressing() {
        let text = "cart ".repeat(1_000);
        assert_eq!(gunzip(&gzip(text.as_bytes()).unwrap()).unwrap(), text);
        assert_eq!(gzip(b"cart"), None);
        // Exactly what was made room for, and what needs more of it.
        for length in [2_048, 4_096, limits::BODY_BYTES_MAX] {
            let zeros = vec![0; length];
            assert_eq!(gunzip(&gzip(&zeros).unwrap()).unwrap(), zeros);
        }
        assert_eq!(gunzip(b"").unwrap_err().http_status(), 400);
    }

    #[test]
    fn what_follows_the_first_member_is_not_dropped_silently() {
        let member = gzip(&[0; 2_048]).unwrap();
        for rest in [&member[..], b"x"] {
            let error = gunzip(&[&member[..], rest].concat()).unwrap_err();
            assert!(error.message.contains("gzip member"), "{error}");
        }
    }

    #[test]
    fn what_is_decompressed_is_counted() {
        let budget = Budget::new(limits::MIB);
        let small = gzip(&[0; 2_048]).unwrap();
        let large = gzip(&vec![0; 2 * limits::MIB]).unwrap();
        super::gunzip(&small, &mut budget.hold()).unwrap();
        assert_eq!(super::gunzip(&large, &mut budget.hold()).unwrap_err().http_status(), 429);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![0; limits::BODY_BYTES_MAX * 16]).unwrap();
        assert!(bomb.len() < limits::BODY_BYTES_MAX);
        assert_eq!(gunzip(&bomb).unwrap_err().http_status(), 413);
    }

    #[test]
    fn accept_encoding_is_read_with_its_weights() {
        assert!(accepts_gzip(Some("br, gzip;q=0.5")));
        assert!(accepts_gzip(Some("*")));
        assert!(!accepts_gzip(Some("gzip;q=0, br")));
        assert!(!accepts_gzip(None));
    }
}
