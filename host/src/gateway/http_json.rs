//! HTTP/JSON by `google.api.http`: the request's message from path, query and body; the response's
//! body from the reply or from one of its fields. `google.api.HttpBody` is a raw body.

use bytes::Bytes;
use http::Response;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::body::Incoming;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use stead_proto::google::api::HttpBody;

use crate::gateway::backend::Backend;
use crate::gateway::body::Body;
use crate::gateway::exchange::Exchange;
use crate::gateway::route::{Binding, Endpoint, RequestBody, is_http_body, is_http_body_field};
use crate::gateway::{compression, connect, error, query, stream, template, transcode};
use crate::words::Status;

pub const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

pub async fn serve<B: Backend>(exchange: &mut Exchange<'_, B>, body: Incoming) -> Response<Body> {
    let path = exchange.parts.uri.path();
    let method = exchange.parts.method.as_str();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let routes = exchange.routes;
    let Some(binding) = routes.templates.find(method, &segments) else {
        return Box::pin(refuse(exchange, &segments)).await;
    };
    match reply(exchange, binding, &segments, body).await {
        Ok(response) => response,
        Err(status) => unacceptable(error::json(&status), &status),
    }
}

/// There is nothing for this method and path: perhaps for another method, or by full name.
async fn refuse<B: Backend>(exchange: &mut Exchange<'_, B>, segments: &[&str]) -> Response<Body> {
    let path = exchange.parts.uri.path();
    let routes = exchange.routes;
    let by_name = routes.by_path.get(path);
    if let Some(endpoint) = by_name
        && exchange.parts.method == http::Method::POST
    {
        let given = exchange.head.content_type.unwrap_or("none");
        let sentence = format!(
            "content-type {given} is not supported at {}; send application/json, \
             application/proto, application/connect+json, application/grpc or \
             application/grpc-web",
            endpoint.path
        );
        let status = Status::invalid_argument(sentence).with_http(415);
        return unacceptable(error::json(&status), &status);
    }
    if let Some(endpoint) = by_name
        && endpoint.no_side_effects
        && exchange.parts.method == http::Method::GET
    {
        return connect::get(exchange, endpoint).await;
    }
    let mut methods = routes.templates.methods(segments);
    if by_name.is_some() {
        methods.push("POST");
    }
    if methods.is_empty() {
        let mut status = exchange.unknown_path();
        status.code = crate::words::Code::NotFound;
        return error::json(&status);
    }
    methods.sort_unstable();
    methods.dedup();
    let allow = methods.join(", ");
    let sentence = format!("{} is not served at {path}; use {allow}", exchange.parts.method);
    let mut response = error::json(&Status::unimplemented(sentence).with_http(405));
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// Adds to a 415 what would have been accepted.
fn unacceptable(mut response: Response<Body>, status: &Status) -> Response<Body> {
    if status.http == Some(415) {
        let known = "application/json, application/proto, application/grpc+proto, \
                     application/grpc-web+proto, application/grpc-web-text+proto";
        response.headers_mut().insert(ACCEPT_POST, HeaderValue::from_static(known));
    }
    response
}

async fn reply<B: Backend>(
    exchange: &mut Exchange<'_, B>,
    binding: &Binding,
    segments: &[&str],
    body: Incoming,
) -> Result<Response<Body>, Status> {
    let endpoint = &binding.endpoint;
    stream::check_http(endpoint)?;
    let deadline = match endpoint.server_streams {
        true => None,
        false => Some(exchange.deadline()?),
    };
    let mut message = match &binding.body {
        RequestBody::None => DynamicMessage::new(endpoint.input.clone()),
        body_rule => {
            let bytes = exchange.read(body, false).await?;
            let bytes =
                compression::decode(bytes, exchange.head.content_encoding, &mut exchange.held)?;
            from_body(endpoint, body_rule, exchange.head.content_type, bytes)?
        }
    };
    if let Some(query) = exchange.parts.uri.query() {
        let free = !matches!(binding.body, RequestBody::Whole);
        from_query(&mut message, endpoint, query, free)?;
    }
    for (variable, fields) in &binding.variables {
        let fault = |fault: &str| {
            Status::invalid_argument(format!("{} in the path {fault}", variable.field))
        };
        let text = template::value(variable, segments, binding.verb.as_deref()).map_err(fault)?;
        transcode::set_from_text(&mut message, fields, &text).map_err(|text| fault(&text))?;
    }
    let payload = message.encode_to_vec().into();
    let Some(deadline) = deadline else {
        return Box::pin(stream::http(exchange, endpoint, payload)).await;
    };
    let reply = exchange.call(endpoint, payload, deadline).await?;
    to_response(endpoint, binding, reply, exchange.head.accept_encoding)
}

fn from_body(
    endpoint: &Endpoint,
    rule: &RequestBody,
    content_type: Option<&str>,
    bytes: Bytes,
) -> Result<DynamicMessage, Status> {
    match rule {
        RequestBody::Whole if is_http_body(&endpoint.input) => {
            raw(&endpoint.input, content_type, bytes)
        }
        RequestBody::Field(field) if is_http_body_field(field) => {
            let mut message = DynamicMessage::new(endpoint.input.clone());
            if let prost_reflect::Kind::Message(inner) = field.kind() {
                message.set_field(field, Value::Message(raw(&inner, content_type, bytes)?));
            }
            Ok(message)
        }
        rule => {
            match content_type {
                Some(name) if name.eq_ignore_ascii_case("application/json") => {}
                None if bytes.is_empty() => {}
                given => {
                    return Err(Status::invalid_argument(format!(
                        "content-type {} is not supported here; send application/json",
                        given.unwrap_or("none")
                    ))
                    .with_http(415));
                }
            }
            match rule {
                RequestBody::Field(field) => {
                    transcode::field_from_json(&endpoint.input, field, &bytes)
                }
                RequestBody::Whole | RequestBody::None => {
                    transcode::from_json(&endpoint.input, &bytes)
                }
            }
        }
    }
}

fn raw(
    message: &MessageDescriptor,
    content_type: Option<&str>,
    data: Bytes,
) -> Result<DynamicMessage, Status> {
    let body = HttpBody {
        content_type: content_type.unwrap_or("application/octet-stream").into(),
        data: data.into(),
        extensions: Vec::new(),
    };
    transcode::decode(message, body.encode_to_vec().into())
}

/// Every parameter must name a field, dotted if need be; `free` is false if the body takes them all.
fn from_query(
    message: &mut DynamicMessage,
    endpoint: &Endpoint,
    query: &str,
    free: bool,
) -> Result<(), Status> {
    for pair in query::pairs(query) {
        let (name, value) = pair?;
        let fault =
            |fault: &str| Status::invalid_argument(format!("query parameter {name}: {fault}"));
        if !free {
            return Err(fault("this method takes its fields from the body"));
        }
        let fields = transcode::resolve(&endpoint.input, &name).map_err(|text| fault(&text))?;
        transcode::set_from_text(message, &fields, &value).map_err(|text| fault(&text))?;
    }
    Ok(())
}

fn to_response(
    endpoint: &Endpoint,
    binding: &Binding,
    reply: Bytes,
    accept_encoding: Option<&str>,
) -> Result<Response<Body>, Status> {
    let json = match &binding.response_body {
        Some(field) if is_http_body_field(field) => {
            let reply = transcode::decode(&endpoint.output, reply)?;
            let inner = match &*reply.get_field(field) {
                Value::Message(inner) => inner.encode_to_vec(),
                _ => Vec::new(),
            };
            return raw_response(inner.into());
        }
        Some(field) => transcode::field_to_json(&endpoint.output, field, reply)?,
        None if is_http_body(&endpoint.output) => return raw_response(reply),
        None => transcode::to_json(&endpoint.output, reply)?,
    };
    Ok(connect::ok(json.into(), error::JSON, accept_encoding))
}

fn raw_response(reply: Bytes) -> Result<Response<Body>, Status> {
    let body = HttpBody::decode(reply)
        .map_err(|_| Status::internal("the reply is not a valid google.api.HttpBody"))?;
    let content_type = HeaderValue::try_from(body.content_type.as_str())
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = Response::new(Body::full(body.data));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}
