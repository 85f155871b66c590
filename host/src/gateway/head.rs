//! What a request's headers say, read in one pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::entity::Consistency;
use crate::words::{Status, limits};

/// Borrowed from the headers, but for what the call keeps.
#[derive(Default)]
pub struct Head<'a> {
    /// Without parameters.
    pub content_type: Option<&'a str>,
    pub content_encoding: Option<&'a str>,
    pub accept_encoding: Option<&'a str>,
    pub grpc_encoding: Option<&'a str>,
    pub grpc_accept_encoding: Option<&'a str>,
    pub grpc_timeout: Option<&'a str>,
    pub connect_timeout_ms: Option<&'a str>,
    pub connect_version: Option<&'a str>,
    /// Of the messages of a stream.
    pub connect_content_encoding: Option<&'a str>,
    pub idempotency_key: Option<String>,
    pub consistency: Option<Consistency>,
    pub metadata: Vec<(String, String)>,
    /// The first thing that is wrong with the headers; told once the protocol is known.
    pub fault: Option<Status>,
}

impl<'a> Head<'a> {
    pub fn read(headers: &'a HeaderMap) -> Self {
        let mut head = Self::default();
        if headers.len() > limits::HEADERS_MAX {
            head.fail(
                Status::resource_exhausted(format!(
                    "the request has {} headers; the limit is {}",
                    headers.len(),
                    limits::HEADERS_MAX
                ))
                .with_http(431),
            );
            return head;
        }
        for (name, value) in headers {
            head.take(name.as_str(), value);
        }
        head
    }

    fn take(&mut self, name: &'a str, value: &'a HeaderValue) {
        let text = value.to_str().ok();
        let essence = |text: &'a str| text.split(';').next().unwrap_or(text).trim();
        match name {
            "content-type" => {
                if text.is_some_and(|text| !is_utf8_charset(text)) {
                    self.fail(
                        Status::invalid_argument("only the charset utf-8 is understood")
                            .with_http(415),
                    );
                }
                // A type that is not even text is certainly none that is known.
                self.content_type = Some(text.map_or("?", essence));
            }
            "content-encoding" => self.content_encoding = Some(text.unwrap_or("?")),
            "accept-encoding" => self.accept_encoding = text,
            "grpc-encoding" => self.grpc_encoding = Some(text.unwrap_or("?")),
            "grpc-accept-encoding" => self.grpc_accept_encoding = text,
            "grpc-timeout" => self.grpc_timeout = Some(text.unwrap_or("?")),
            "connect-timeout-ms" => self.connect_timeout_ms = Some(text.unwrap_or("?")),
            "connect-content-encoding" => {
                self.connect_content_encoding = Some(text.unwrap_or("?"));
            }
            "connect-protocol-version" => self.connect_version = Some(text.unwrap_or("?")),
            "idempotency-key" => match text {
                Some(_) if self.idempotency_key.is_some() => self.fail(Status::invalid_argument(
                    "header idempotency-key is there more than once; a command has one key",
                )),
                Some(key)
                    if !key.is_empty()
                        && key.len() <= limits::IDEMPOTENCY_KEY_BYTES_MAX
                        && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) =>
                {
                    self.idempotency_key = Some(key.into());
                }
                _ => self.fail(Status::invalid_argument(format!(
                    "header idempotency-key must be 1 to {} printable ASCII characters",
                    limits::IDEMPOTENCY_KEY_BYTES_MAX
                ))),
            },
            "stead-consistency" => match text.and_then(Consistency::parse) {
                Some(_) if self.consistency.is_some() => self.fail(Status::invalid_argument(
                    "header stead-consistency is there more than once",
                )),
                Some(consistency) => self.consistency = Some(consistency),
                None => self.fail(Status::invalid_argument(
                    "header stead-consistency must be leased, fenced or stale",
                )),
            },
            // What the host tells functions in this way, nobody else may.
            name if is_transport(name) || name.starts_with("stead-") => {}
            name => match text {
                Some(text) if self.metadata.len() < limits::METADATA_ENTRIES_MAX => {
                    self.metadata.push((name.into(), text.into()));
                }
                Some(_) => self.fail(
                    Status::resource_exhausted(format!(
                        "the request has more than {} entries of metadata",
                        limits::METADATA_ENTRIES_MAX
                    ))
                    .with_http(431),
                ),
                None => self.fail(Status::invalid_argument(format!(
                    "header {name} must be printable ASCII; send other values as {name}-bin in base64"
                ))),
            },
        }
    }

    fn fail(&mut self, status: Status) {
        self.fault.get_or_insert(status);
    }

    /// How long the caller wants to wait at most.
    pub fn timeout(&self) -> Result<Duration, Status> {
        let asked = self.asked()?.unwrap_or(limits::CALL_DEADLINE_DEFAULT);
        Ok(asked.min(limits::CALL_DEADLINE_MAX))
    }

    /// The same of a call that streams.
    pub fn stream_timeout(&self) -> Result<Duration, Status> {
        let asked = self.asked()?.unwrap_or(limits::STREAM_DEADLINE_MAX);
        Ok(asked.min(limits::STREAM_DEADLINE_MAX))
    }

    fn asked(&self) -> Result<Option<Duration>, Status> {
        let asked = match (self.grpc_timeout, self.connect_timeout_ms) {
            (Some(text), _) => grpc_timeout(text).ok_or_else(|| {
                Status::invalid_argument(format!(
                    "header grpc-timeout must be at most 8 digits and one of HMSmun, not {text:?}"
                ))
            })?,
            (None, Some(text)) => digits(text, 10).map(Duration::from_millis).ok_or_else(|| {
                Status::invalid_argument(format!(
                    "header connect-timeout-ms must be at most 10 digits, not {text:?}"
                ))
            })?,
            (None, None) => return Ok(None),
        };
        Ok(Some(asked))
    }
}

fn digits(text: &str, most: usize) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() <= most;
    text.parse().ok().filter(|_| plain)
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits(number, 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn is_utf8_charset(content_type: &str) -> bool {
    content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('=')).all(
        |(name, value)| {
            let value = value.trim().trim_matches('"');
            !name.trim().eq_ignore_ascii_case("charset")
                || value.eq_ignore_ascii_case("utf-8")
                || value.eq_ignore_ascii_case("utf8")
                || value.eq_ignore_ascii_case("us-ascii")
        },
    )
}

/// What belongs to the transport, or is a secret between caller and edge: guests never see it.
fn is_transport(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "user-agent"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "connection"
            | "keep-alive"
            | "upgrade"
            | "http2-settings"
            | "expect"
            | "date"
            | "via"
            | "origin"
            | "referer"
            | "cookie"
            | "authorization"
            | "priority"
            | "pragma"
            | "cache-control"
            | "dnt"
            | "range"
            | "x-request-id"
            | "x-grpc-web"
            | "x-user-agent"
    ) || ["content-", "accept", "grpc-", "connect-", "proxy-", "sec-", "if-", "access-control-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// The caller's own id, if it can stand in a log line, or a new one.
pub fn request_id(headers: &HeaderMap) -> Arc<str> {
    let sane = |text: &str| {
        (1..=limits::REQUEST_ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/')
            })
    };
    match headers.get("x-request-id").and_then(|value| value.to_str().ok()) {
        Some(text) if sane(text) => text.into(),
        _ => new_request_id(),
    }
}

fn new_request_id() -> Arc<str> {
    /// Starts at a random number, so that ids of two runs do not meet.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut number = NEXT.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        let seed = getrandom::u64().unwrap_or_else(|_| crate::words::clock::unix_ms() << 20) >> 1;
        NEXT.fetch_add(seed, Ordering::Relaxed);
        number = seed;
    }
    let mut text = [0; 16];
    // 8 bytes are exactly 16 digits of ASCII.
    let _ = hex::encode_to_slice(number.to_be_bytes(), &mut text);
    std::str::from_utf8(&text).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_have_digits_and_a_unit() {
        assert_eq!(grpc_timeout("10S"), Some(Duration::from_secs(10)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        for wrong in ["", "S", "10", "10x", "-1S", "+1S", "123456789S", "1 S", "1é"] {
            assert_eq!(grpc_timeout(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn long_timeouts_are_cut_to_the_limit() {
        let head = Head { grpc_timeout: Some("99999999H"), ..Head::default() };
        assert_eq!(head.timeout().unwrap(), limits::CALL_DEADLINE_MAX);
        let head = Head { connect_timeout_ms: Some("5"), ..Head::default() };
        assert_eq!(head.timeout().unwrap(), Duration::from_millis(5));
    }

    #[test]
    fn the_consistency_is_one_of_three_words() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("stead-consistency", HeaderValue::from_static(value));
            }
            let head = Head::read(&headers);
            assert!(head.metadata.is_empty());
            head.fault.map_or(Ok(head.consistency), |fault| Err(fault.message))
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["leased"]), Ok(Some(Consistency::Leased)));
        assert_eq!(read(&["fenced"]), Ok(Some(Consistency::Fenced)));
        assert_eq!(read(&["stale"]), Ok(Some(Consistency::Stale)));
        for wrong in ["", "Stale", "strong"] {
            let sentence = read(&[wrong]).unwrap_err();
            assert!(sentence.contains("must be leased, fenced or stale"), "{sentence}");
        }
        assert!(read(&["stale", "stale"]).unwrap_err().contains("more than once"));
    }

    #[test]
    fn guests_see_metadata_but_neither_transport_headers_nor_credentials() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("cookie", "session=1"),
            ("grpc-timeout", "1S"),
            ("content-length", "3"),
            ("sec-fetch-mode", "cors"),
            ("x-tenant", "acme"),
            ("stead-timer", "reminder"),
            ("trace-bin", "AAEC"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let head = Head::read(&headers);
        let mut names: Vec<_> = head.metadata.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["trace-bin", "x-tenant"]);
        assert!(head.fault.is_none());
    }

    #[test]
    fn request_ids_are_kept_only_if_they_are_fit_for_a_log() {
        let with = |value: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_bytes(value).unwrap());
            request_id(&headers).to_string()
        };
        assert_eq!(with(b"abc-1"), "abc-1");
        assert_ne!(with(b"a b"), "a b");
        assert_ne!(with(b"caf\xc3\xa9"), with(b"caf\xc3\xa9"));
        assert_eq!(with(&[b'a'; 129]).len(), 16);
    }
}
