//! Cross-origin requests from browsers, for the origins that the configuration names.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::gateway::body::Body;
use crate::words::config::CorsConfig;

const EXPOSED: HeaderValue = HeaderValue::from_static(
    "grpc-status,grpc-message,grpc-status-details-bin,grpc-encoding,content-encoding,\
     connect-content-encoding,connect-accept-encoding,connect-protocol-version,x-request-id",
);
const METHODS: HeaderValue = HeaderValue::from_static("GET,POST,PUT,PATCH,DELETE,OPTIONS");

pub struct Cors {
    any: bool,
    origins: Vec<String>,
    max_age: HeaderValue,
}

impl Cors {
    /// None if no origin is allowed: then there are no CORS headers at all.
    pub fn new(config: &CorsConfig) -> Option<Self> {
        (!config.allowed_origins.is_empty()).then(|| Self {
            any: config.allowed_origins.iter().any(|origin| origin == "*"),
            origins: config.allowed_origins.clone(),
            max_age: HeaderValue::from(config.max_age_seconds),
        })
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.any || self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    /// The answer to a preflight, if the request is one.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        let origin = headers.get(ORIGIN)?;
        if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::new(Body::empty());
        let answer = response.headers_mut();
        answer.insert(
            VARY,
            HeaderValue::from_static(
                "origin, access-control-request-method, access-control-request-headers",
            ),
        );
        if !self.allows(origin) {
            *response.status_mut() = StatusCode::FORBIDDEN;
            return Some(response);
        }
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        // Any header may be metadata, so what is asked for is allowed.
        if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.granted(origin));
        *response.status_mut() = StatusCode::NO_CONTENT;
        Some(response)
    }

    /// Lets the page that asked read the answer.
    pub fn decorate(&self, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        response.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.granted(origin));
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    fn granted(&self, origin: &HeaderValue) -> HeaderValue {
        if self.any { HeaderValue::from_static("*") } else { origin.clone() }
    }
}
