//! gRPC without a client's good manners: any bytes as the body.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::host::Host;

/// How the call ended.
#[derive(Debug)]
pub struct Ended {
    /// `grpc-status`; empty if there was none.
    pub status: String,
    /// `grpc-message`, as it came.
    pub message: String,
}

impl Host {
    pub async fn grpc(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> Ended {
        let stream = TcpStream::connect(self.services.address()).await.expect("connects");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("speaks HTTP/2");
        tokio::spawn(connection);
        let mut request = Request::post(format!("{}{path}", self.services.base()))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a request");
        let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
        let trailers = body.collect().await.expect("a body").trailers().cloned();
        let trailers = trailers.unwrap_or_default();
        let text = |name| {
            let value = parts.headers.get(name).or(trailers.get(name));
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        Ended { status: text("grpc-status"), message: text("grpc-message") }
    }
}

/// A message as gRPC frames it.
pub fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}
