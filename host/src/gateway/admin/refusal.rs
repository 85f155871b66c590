//! Errors of requests that never reach the edge's protocols: in the form that the client reads.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::gateway::body::Body;
use crate::gateway::error;
use crate::words::Status;

/// A gRPC status for gRPC and gRPC-Web; JSON for all others, Connect included.
pub fn answer(request: &HeaderMap, status: &Status) -> Response<Body> {
    let content_type = request.get(header::CONTENT_TYPE);
    if let Some(kind) = content_type.filter(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    {
        let mut response = error::grpc(status);
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
        return response;
    }
    let mut response = error::json(status);
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_gets_the_error_that_it_can_read() {
        let status = Status::unauthenticated("wrong token");
        let mut headers = HeaderMap::new();
        let response = answer(&headers, &status);
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        for kind in ["application/grpc+proto", "application/grpc-web"] {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            let response = answer(&headers, &status);
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], kind);
            assert_eq!(response.headers()["grpc-status"], "16");
        }
    }
}
