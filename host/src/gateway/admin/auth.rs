//! Who may use the admin port.
//!
//! With a token, every request must carry it. Without one the port is bound to loopback, and what is
//! left to keep out is a web page that makes the operator's own browser call: its requests name
//! another host or another origin.

use std::net::IpAddr;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, Request, header};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::words::clock::{self, Instant};
use crate::words::config::Secret;
use crate::words::{Status, limits};

/// Cheap to ask: nothing waits but those who are refused.
pub struct Gate {
    /// SHA-256 of the token: both sides of a comparison have the same length.
    token: Option<[u8; 32]>,
    refused: Mutex<Refused>,
    /// Those who wait for their refusal.
    waiting: Semaphore,
}

struct Refused {
    count: u32,
    last: Instant,
}

impl Gate {
    pub fn new(token: Option<&Secret>) -> Self {
        Self {
            token: token.map(|token| Sha256::digest(token.expose()).into()),
            refused: Mutex::new(Refused { count: 0, last: clock::now() }),
            waiting: Semaphore::new(limits::ADMIN_REFUSALS_WAITING_MAX),
        }
    }

    /// Whether the request may go on. Wrong tokens are answered slower and slower; right ones never
    /// wait.
    pub async fn admit<B>(&self, request: &Request<B>) -> Result<(), Status> {
        let Some(expected) = &self.token else {
            return same_machine(request);
        };
        let presented = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| bearer(value.as_bytes()))
            .map(Sha256::digest);
        match presented {
            Some(presented) if equal(expected, &presented.into()) => Ok(()),
            Some(_) => {
                self.slow_down().await?;
                Err(Status::unauthenticated(
                    "the admin token is wrong; send the STEAD_ADMIN_TOKEN that the host was started with",
                ))
            }
            None => Err(Status::unauthenticated(
                "this host wants its admin token: send `authorization: Bearer` and the token (the stead command takes it from STEAD_ADMIN_TOKEN)",
            )),
        }
    }

    async fn slow_down(&self) -> Result<(), Status> {
        let delay = {
            let mut refused = self.refused.lock();
            let now = clock::now();
            if now.duration_since(refused.last) > limits::ADMIN_REFUSALS_FORGOTTEN_AFTER {
                refused.count = 0;
            }
            refused.count = refused.count.saturating_add(1);
            refused.last = now;
            if refused.count.is_power_of_two() {
                tracing::warn!(count = refused.count, "wrong admin tokens");
            }
            delay(refused.count)
        };
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(Status::resource_exhausted("too many wrong admin tokens; try again later"));
        };
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Nothing for a typing error or two, then twice as long each time.
fn delay(refusals: u32) -> Duration {
    match refusals.checked_sub(3) {
        None => Duration::ZERO,
        Some(more) => limits::ADMIN_REFUSAL_DELAY_MIN
            .saturating_mul(1_u32.checked_shl(more).unwrap_or(u32::MAX))
            .min(limits::ADMIN_REFUSAL_DELAY_MAX),
    }
}

/// The scheme's name is case-insensitive.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Takes the same time wherever the two differ.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let differences = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differences) == 0
}

fn same_machine<B>(request: &Request<B>) -> Result<(), Status> {
    let headers = request.headers();
    let authority = match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => text(headers, header::HOST).and_then(|host| host.parse::<Authority>().ok()),
    };
    let Some(authority) = authority.filter(|authority| is_loopback(authority.host())) else {
        return Err(Status::permission_denied(
            "without an admin token the admin port is for this machine only: call it as 127.0.0.1 or localhost, or set STEAD_ADMIN_TOKEN",
        )
        .with_http(403));
    };
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if is_own_origin(origin.as_bytes(), &authority) => Ok(()),
        Some(_) => Err(Status::permission_denied(
            "pages of other origins may not use the admin port of a host without an admin token",
        )
        .with_http(403)),
    }
}

fn is_own_origin(origin: &[u8], authority: &Authority) -> bool {
    let host = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_str().as_bytes()))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Code;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/v1/node");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    async fn code(gate: &Gate, headers: &[(&str, &str)]) -> Option<Code> {
        gate.admit(&request(headers)).await.err().map(|status| status.code)
    }

    #[tokio::test]
    async fn with_a_token_only_the_token_opens() {
        let gate = Gate::new(Some(&Secret::new("s3cret")));
        assert_eq!(code(&gate, &[("authorization", "Bearer s3cret")]).await, None);
        assert_eq!(code(&gate, &[("authorization", "bearer s3cret")]).await, None);
        for wrong in ["Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret", "Bearer "] {
            let headers = [("authorization", wrong), ("host", "localhost")];
            assert_eq!(code(&gate, &headers).await, Some(Code::Unauthenticated), "{wrong}");
        }
        assert_eq!(code(&gate, &[("host", "localhost")]).await, Some(Code::Unauthenticated));
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_wait_longer_and_longer_and_right_ones_never() {
        let gate = Gate::new(Some(&Secret::new("s3cret")));
        let mut waits = Vec::new();
        for _ in 0..12 {
            let start = clock::now();
            assert!(code(&gate, &[("authorization", "Bearer guess")]).await.is_some());
            waits.push(start.elapsed());
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(waits[11] >= limits::ADMIN_REFUSAL_DELAY_MAX);
        let start = clock::now();
        assert_eq!(code(&gate, &[("authorization", "Bearer s3cret")]).await, None);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait_for_their_refusal() {
        let gate = Gate::new(Some(&Secret::new("s3cret")));
        let _all = gate.waiting.acquire_many(limits::ADMIN_REFUSALS_WAITING_MAX as u32).await;
        let guess = code(&gate, &[("authorization", "Bearer guess")]).await;
        assert_eq!(guess, Some(Code::ResourceExhausted));
        assert_eq!(code(&gate, &[("authorization", "Bearer s3cret")]).await, None);
    }

    #[tokio::test]
    async fn without_a_token_other_hosts_and_origins_are_refused() {
        let gate = Gate::new(None);
        for own in ["127.0.0.1:7833", "localhost:7833", "[::1]:7833", "LOCALHOST"] {
            assert_eq!(code(&gate, &[("host", own)]).await, None, "{own}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "192.168.0.7:7833", ""] {
            let refused = code(&gate, &[("host", foreign)]).await;
            assert_eq!(refused, Some(Code::PermissionDenied), "{foreign}");
        }
        let page = [("host", "127.0.0.1:7833"), ("origin", "https://evil.example")];
        assert_eq!(code(&gate, &page).await, Some(Code::PermissionDenied));
        let console = [("host", "127.0.0.1:7833"), ("origin", "http://127.0.0.1:7833")];
        assert_eq!(code(&gate, &console).await, None);
    }
}
