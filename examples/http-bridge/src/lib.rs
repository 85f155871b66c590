//! Calls of the outside world, as far as they were granted at deployment.
//!
//! Outgoing HTTP is WASI's, so this is built for wasm32-wasip2: `cargo build --release --target
//! wasm32-wasip2 -p http-bridge`.

mod api {
    stead_sdk::include_proto!("com.example.bridge");
}

use api::{HttpBridge, HttpRequest, HttpResponse};
use stead_sdk::{Action, Context, Outcome, reject};

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
            Ok(response) => ctx.reply(response),
            Err(error) => reject!(Unavailable, "{error}"),
        }
    }
}

#[cfg(target_os = "wasi")]
mod outgoing;

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
