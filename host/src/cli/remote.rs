//! A connection to a host, and what its failures mean to a person.

mod tls;

use std::error::Error;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use crate::cli::args::{AdminPort, ServicesPort};
use crate::cli::failed::Failed;
use crate::cli::remote::tls::Tls;
use crate::words::{Code, limits};

/// Which port of the host; they are named in messages by the flag that sets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Services,
    Admin,
}

impl Port {
    fn flag(self) -> &'static str {
        match self {
            Port::Services => "--url",
            Port::Admin => "--admin-url",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Remote {
    pub channel: Channel,
    pub url: String,
    pub port: Port,
}

impl Remote {
    pub async fn services(port: &ServicesPort) -> Result<Self, Failed> {
        let url = normalize(&port.url, Port::Services)?;
        let tls = if url.starts_with("https:") { Some(Tls::trusting(&port.ca)?) } else { None };
        Self::connect(url, Port::Services, tls).await
    }

    pub async fn admin(port: &AdminPort) -> Result<Self, Failed> {
        Self::connect(normalize(&port.admin_url, Port::Admin)?, Port::Admin, None).await
    }

    async fn connect(url: String, port: Port, tls: Option<Tls>) -> Result<Self, Failed> {
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| bad_url(&url, port, &error.to_string()))?
            .connect_timeout(limits::CLIENT_CONNECT_TIMEOUT)
            .user_agent(concat!("stead/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| Failed::local(error.to_string()))?;
        let channel = match tls {
            Some(tls) => endpoint.connect_with_connector(tls).await,
            None => endpoint.connect().await,
        };
        match channel {
            Ok(channel) => Ok(Self { channel, url, port }),
            Err(error) => Err(unreachable_host(&url, port, &error)),
        }
    }

    /// What a status means here. A broken connection is not an answer of the host.
    pub fn failed(&self, status: &tonic::Status) -> Failed {
        if let Some(cause) = status.source() {
            return self.broken(cause);
        }
        let code = Code::from_u32(status.code() as u32).unwrap_or(Code::Unknown);
        if status.message().starts_with("grpc-status header missing") {
            return Failed::unreachable(format!(
                "what answers at {} does not speak gRPC; name a stead with {}",
                self.url,
                self.port.flag()
            ));
        }
        let message = match status.message() {
            "" => "the host gave no reason",
            message => message,
        };
        Failed::status(code, message)
    }

    fn broken(&self, cause: &(dyn Error + 'static)) -> Failed {
        let reason = innermost(cause);
        if reason.contains("Timeout expired") {
            return Failed::status(
                Code::DeadlineExceeded,
                "no answer within the time-out; the command may have taken effect: send it again with the same --idempotency-key, or wait longer with --timeout",
            );
        }
        Failed::unreachable(format!(
            "the connection to {} broke: {reason}; is this the address to give with {}?",
            self.url,
            self.port.flag()
        ))
    }
}

/// A bearer token as a header, or a sentence.
pub fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Failed> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| Failed::usage("the admin token may only hold visible ASCII characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn normalize(url: &str, port: Port) -> Result<String, Failed> {
    let url = url.trim();
    match url.split_once("://") {
        Some(("http", host)) if !host.is_empty() => Ok(url.trim_end_matches('/').into()),
        Some(("https", host)) if !host.is_empty() && port == Port::Services => {
            Ok(url.trim_end_matches('/').into())
        }
        Some(("https", _)) if port == Port::Admin => {
            Err(bad_url(url, port, "the admin API is not encrypted; write http://"))
        }
        None if !url.is_empty() => Ok(format!("http://{}", url.trim_end_matches('/'))),
        _ => Err(bad_url(url, port, "write it like http://127.0.0.1:7832")),
    }
}

fn bad_url(url: &str, port: Port, reason: &str) -> Failed {
    Failed::usage(format!("{} {url:?} is not an address of a host: {reason}", port.flag()))
}

fn unreachable_host(url: &str, port: Port, error: &(dyn Error + 'static)) -> Failed {
    let reason = innermost(error);
    if reason.contains("onnection refused") {
        return Failed::unreachable(format!(
            "no stead answers at {url}; start one with `stead serve`, or name another with {}",
            port.flag()
        ));
    }
    if reason.contains("certificate") {
        return Failed::unreachable(format!(
            "cannot trust {url}: {reason}; name the certificate that it is to be trusted by with --ca"
        ));
    }
    Failed::unreachable(format!(
        "cannot reach {url}: {reason}; name another host with {}",
        port.flag()
    ))
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Messages as they are: the schema is only known at run time.
#[derive(Clone, Copy, Debug, Default)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> Self {
        BytesCodec
    }

    fn decoder(&mut self) -> Self {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A raw gRPC client on the channel.
pub fn raw(channel: Channel) -> tonic::client::Grpc<Channel> {
    tonic::client::Grpc::new(channel)
        .max_decoding_message_size(limits::CLIENT_ANSWER_BYTES_MAX)
        .max_encoding_message_size(limits::CLIENT_ANSWER_BYTES_MAX)
}

/// A deadline as a `grpc-timeout` header and on this side.
pub fn with_timeout<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failed::Exit;

    #[test]
    fn urls_may_leave_the_scheme_out() {
        assert_eq!(normalize("127.0.0.1:7832", Port::Services).unwrap(), "http://127.0.0.1:7832");
        assert_eq!(normalize("http://h:1/", Port::Services).unwrap(), "http://h:1");
        assert_eq!(normalize("https://h/", Port::Services).unwrap(), "https://h");
        for url in ["", "http://", "ftp://h", "https://h"] {
            let failed = normalize(url, Port::Admin).unwrap_err();
            assert_eq!(failed.exit, Exit::Usage);
            assert!(failed.message.starts_with("--admin-url"), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_says_how_to_start_a_host() {
        // Bound and dropped: nothing listens there any more.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = AdminPort { admin_url: format!("http://{free}"), admin_token: None };
        let failed = Remote::admin(&port).await.unwrap_err();
        assert_eq!(failed.exit, Exit::Unreachable);
        assert_eq!(
            failed.message,
            format!(
                "no stead answers at http://{free}; start one with `stead serve`, or name another with --admin-url"
            )
        );
    }

    #[test]
    fn tokens_that_cannot_be_a_header_are_refused() {
        assert!(bearer("secret").unwrap().is_sensitive());
        assert_eq!(bearer("line\nbreak").unwrap_err().exit, Exit::Usage);
    }
}
