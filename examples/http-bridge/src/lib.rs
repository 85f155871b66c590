//! Calls of the outside world, as far as they were granted at deployment.
//!
//! Outgoing HTTP is WASI's, so this is built for wasm32-wasip2: `cargo build --release --target
//! wasm32-wasip2 -p http-bridge`.

mod api {
    stead_sdk::include_proto!("com.example.bridge");
}

use api::{HttpBridge, HttpRequest, HttpResponse};
use stead_sdk::{Action, Context, Outcome, reject};

const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
pub struct Bridge;

impl Action for Bridge {}

impl HttpBridge for Bridge {
    fn fetch(
        &self,
        ctx: &mut Context<Self>,
        mut request: HttpRequest,
    ) -> Outcome<Self, HttpResponse> {
        if request.method.is_empty() {
            request.method = "GET".to_owned();
        }
        if !request.url.starts_with("http://") && !request.url.starts_with("https://") {
            reject!(InvalidArgument, "{:?} is not the URL of something to fetch", request.url);
        }
        match outgoing::fetch(request) {
            Ok(response) if response.body.len() > BODY_BYTES_MAX => {
                reject!(OutOfRange, "the answer has more than {BODY_BYTES_MAX} bytes")
            }
            Ok(response) => ctx.reply(response),
            Err(error) => reject!(Unavailable, "{error}"),
        }
    }
}

#[cfg(target_os = "wasi")]
mod outgoing {
    use std::time::Duration;

    use wstd::http::{Body, Client, Error, Request};

    use crate::api::{HttpRequest, HttpResponse};

    const TIMEOUT: Duration = Duration::from_secs(10);

    pub fn fetch(request: HttpRequest) -> Result<HttpResponse, String> {
        wstd::runtime::block_on(exchange(request)).map_err(|error| format!("{error:#}"))
    }

    async fn exchange(request: HttpRequest) -> Result<HttpResponse, Error> {
        let mut outgoing = Request::builder().method(&*request.method).uri(request.url);
        for (name, value) in request.headers {
            outgoing = outgoing.header(name, value);
        }
        let mut client = Client::new();
        client.set_connect_timeout(TIMEOUT);
        client.set_first_byte_timeout(TIMEOUT);
        client.set_between_bytes_timeout(TIMEOUT);
        let response = client.send(outgoing.body(Body::from(request.body))?).await?;
        let (head, mut body) = response.into_parts();
        let header = |(name, value): (&_, &_)| text(name, value);
        Ok(HttpResponse {
            status: head.status.as_u16().into(),
            headers: head.headers.iter().filter_map(header).collect(),
            body: body.contents().await?.to_vec(),
        })
    }

    fn text(
        name: &wstd::http::HeaderName,
        value: &wstd::http::HeaderValue,
    ) -> Option<(String, String)> {
        Some((name.to_string(), value.to_str().ok()?.to_owned()))
    }
}

/// Outside of WASI there is nobody to ask.
#[cfg(not(target_os = "wasi"))]
mod outgoing {
    use crate::api::{HttpRequest, HttpResponse};

    pub fn fetch(request: HttpRequest) -> Result<HttpResponse, String> {
        Err(format!("{} {}: there is no network here", request.method, request.url))
    }
}

stead_sdk::export!(action Bridge: HttpBridge, deadline_ms = 30_000);

#[cfg(test)]
mod tests;
