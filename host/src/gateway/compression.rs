//! gzip, the one compression that the edges speak.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::words::{Status, limits};

/// Stops as soon as the result is larger than a body may be.
pub fn gunzip(bytes: &[u8]) -> Result<Bytes, Status> {
    let mut out = Vec::with_capacity((bytes.len() * 4).min(limits::BODY_BYTES_MAX));
    GzDecoder::new(bytes)
        .take(limits::BODY_BYTES_MAX as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|_| Status::invalid_argument("the request is not valid gzip"))?;
    if out.len() > limits::BODY_BYTES_MAX {
        return Err(Status::resource_exhausted(format!(
            "the request has more than {} bytes when decompressed",
            limits::BODY_BYTES_MAX
        ))
        .with_http(413));
    }
    Ok(out.into())
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
pub fn decode(bytes: Bytes, encoding: Option<&str>) -> Result<Bytes, Status> {
    match encoding {
        None | Some("identity" | "") => Ok(bytes),
        Some(name) if name.eq_ignore_ascii_case("gzip") => gunzip(&bytes),
        Some(name) => Err(Status::unimplemented(format!(
            "content-encoding {name:?} is not supported; use gzip or identity"
        ))
        .with_http(415)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_what_is_worth_compressing() {
        let text = "cart ".repeat(1_000);
        assert_eq!(gunzip(&gzip(text.as_bytes()).unwrap()).unwrap(), text);
        assert_eq!(gzip(b"cart"), None);
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
