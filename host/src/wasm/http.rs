//! `wasi:http/outgoing-handler` for actions: to the origins that the deployment granted, and nowhere else.
//!
//! Redirects are not followed. Requests and answers have bounds of time, size and number.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    default_send_request, p2,
};

use crate::wasm::limits::Data;
use crate::wasm::wasi;
use crate::words::{Origin, limits};

/// The interfaces that need a grant, at any version 0.2.x.
const INTERFACES: [&str; 2] = ["wasi:http/outgoing-handler", "wasi:http/types"];

pub fn is_http(import: &str) -> bool {
    import.split_once('@').is_some_and(|(interface, version)| {
        INTERFACES.contains(&interface) && version.starts_with("0.2.")
    })
}

/// Where a module's actions may send requests. A deployment may change it while they run. Cheap to clone.
#[derive(Clone)]
pub struct Granted {
    origins: Arc<ArcSwap<Vec<Origin>>>,
    at_once: Arc<Semaphore>,
}

impl Default for Granted {
    fn default() -> Self {
        Self {
            origins: Arc::default(),
            at_once: Arc::new(Semaphore::new(limits::HTTP_REQUESTS_AT_ONCE_MAX)),
        }
    }
}

impl Granted {
    pub fn set(&self, origins: Vec<Origin>) {
        self.origins.store(Arc::new(origins));
    }

    fn has(&self, uri: &http::Uri) -> bool {
        Origin::of(uri).is_some_and(|origin| self.origins.load().contains(&origin))
    }
}

/// The state of one store. By default nothing is granted.
pub struct Http {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

impl Http {
    pub fn new(granted: Granted) -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(limits::HTTP_FIELDS_BYTES_MAX);
        Self { ctx, hooks: Hooks { granted } }
    }
}

/// For everything but actions: they can be linked, and are refused every request.
pub fn add_closed_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    p2::add_only_http_to_linker_sync(linker)
}

/// For actions, over [`wasi::add_open_io_to_linker`].
pub fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    p2::add_only_http_to_linker_async(linker)
}

impl WasiHttpView for Data {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let http = self.http.get_or_insert_with(|| Box::new(Http::new(Granted::default())));
        let table = wasi::table(&mut self.wasi);
        WasiHttpCtxView { ctx: &mut http.ctx, table, hooks: &mut http.hooks }
    }
}

/// What the host has to say about each request.
struct Hooks {
    granted: Granted,
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _fut: Io,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io), Error>> + Send> {
        if !self.granted.has(request.uri()) {
            let (scheme, authority) = (request.uri().scheme_str(), request.uri().authority());
            tracing::warn!(
                ?scheme,
                ?authority,
                "a request of an action was refused: its origin is not granted"
            );
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let at_once = self.granted.at_once.clone();
        Box::new(async move {
            let Ok(permit) = at_once.try_acquire_owned() else {
                return Err(Error::ConnectionLimitReached);
            };
            let request = request.map(|body| bounded(body, Error::HttpRequestBodySize));
            let (response, io) = default_send_request(request, Some(capped(options))).await?;
            let response =
                response.map(|body| bounded(body.boxed_unsync(), Error::HttpResponseBodySize));
            let io: Io = Box::new(async move {
                let _permit = permit;
                io.await
            });
            Ok((response, io))
        })
    }
}

fn capped(options: Option<RequestOptions>) -> RequestOptions {
    let asked = options.unwrap_or_default();
    let most = |asked: Option<Duration>| {
        Some(asked.map_or(limits::HTTP_TIMEOUT_MAX, |asked| asked.min(limits::HTTP_TIMEOUT_MAX)))
    };
    RequestOptions {
        connect_timeout: most(asked.connect_timeout),
        first_byte_timeout: most(asked.first_byte_timeout),
        between_bytes_timeout: most(asked.between_bytes_timeout),
    }
}

fn bounded(body: WasiBody, too_large: fn(Option<u64>) -> Error) -> WasiBody {
    let most = limits::HTTP_BODY_BYTES_MAX;
    Limited::new(body, most)
        .map_err(move |error| match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(_) => too_large(Some(most as u64)),
        })
        .boxed_unsync()
}
