//! One exchange over `wasi:http`.

use std::fmt::Debug;

use wasip2::clocks::monotonic_clock::Duration;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    Fields, IncomingBody, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

use crate::api::{HttpRequest, HttpResponse};

const TIMEOUT: Duration = 10_000_000_000;
const BODY_BYTES_MAX: usize = 1 << 20;
/// What one write takes.
const CHUNK_BYTES: usize = 4096;

pub fn fetch(request: HttpRequest) -> Result<HttpResponse, String> {
    let outgoing = head(&request)?;
    let body = outgoing.body().map_err(or("the body"))?;
    let answer = handle(outgoing, Some(options()?)).map_err(or("the request"))?;

    let stream = body.write().map_err(or("the body"))?;
    for chunk in request.body.chunks(CHUNK_BYTES) {
        stream.blocking_write_and_flush(chunk).map_err(or("the body"))?;
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(or("the body"))?;

    answer.subscribe().block();
    let answered = answer.get().ok_or("there is no answer")?.map_err(or("the answer"))?;
    let response = answered.map_err(or("the answer"))?;
    let text = |(name, value)| Some((name, String::from_utf8(value).ok()?));
    Ok(HttpResponse {
        status: response.status().into(),
        headers: response.headers().entries().into_iter().filter_map(text).collect(),
        body: read(response.consume().map_err(or("the answer"))?)?,
    })
}

fn head(request: &HttpRequest) -> Result<OutgoingRequest, String> {
    let (scheme, rest) = match request.url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((_, rest)) => (Scheme::Http, rest),
        None => return Err("the URL has no scheme".to_owned()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let headers = request.headers.iter();
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let outgoing = OutgoingRequest::new(Fields::from_list(&headers).map_err(or("the headers"))?);
    outgoing.set_method(&Method::Other(request.method.clone())).map_err(or("the method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(or("the scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(or("the host"))?;
    let path = if path.is_empty() { "/" } else { path };
    outgoing.set_path_with_query(Some(path)).map_err(or("the path"))?;
    Ok(outgoing)
}

fn options() -> Result<RequestOptions, String> {
    let options = RequestOptions::new();
    options.set_connect_timeout(Some(TIMEOUT)).map_err(or("the time-out"))?;
    options.set_first_byte_timeout(Some(TIMEOUT)).map_err(or("the time-out"))?;
    options.set_between_bytes_timeout(Some(TIMEOUT)).map_err(or("the time-out"))?;
    Ok(options)
}

fn read(body: IncomingBody) -> Result<Vec<u8>, String> {
    let stream = body.stream().map_err(or("the answer"))?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(CHUNK_BYTES as u64) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(error) => return Err(or("the answer")(error)),
        }
        if bytes.len() > BODY_BYTES_MAX {
            return Err(format!("the answer has more than {BODY_BYTES_MAX} bytes"));
        }
    }
}

/// Which part of the exchange failed.
fn or<E: Debug>(part: &str) -> impl Fn(E) -> String {
    move |error| format!("{part} failed: {error:?}")
}
