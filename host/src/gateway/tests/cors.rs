use http::Request;
use http::request::Builder;

use crate::gateway::server::ServerOptions;
use crate::gateway::testing::{Port, open, open_with};
use crate::words::config::CorsConfig;

const SHOP: &str = "https://shop.example";

async fn for_origins(origins: &[&str]) -> Port {
    let allowed_origins = origins.iter().map(ToString::to_string).collect();
    let cors = CorsConfig { allowed_origins, max_age_seconds: 600 };
    open_with(ServerOptions { cors, ..ServerOptions::default() }).await
}

fn preflight(origin: &str) -> Builder {
    Request::options("/edge.Edge/Plain")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-tenant")
}

#[tokio::test]
async fn a_preflight_from_an_allowed_origin_is_granted() {
    let port = for_origins(&[SHOP]).await;
    let answer = port.send(preflight(SHOP), "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), SHOP);
    assert_eq!(answer.header("access-control-allow-headers"), "content-type,x-tenant");
    assert!(answer.header("access-control-allow-methods").contains("PATCH"));
    assert_eq!(answer.header("access-control-max-age"), "600");
    assert!(answer.header("vary").contains("origin"));
}

#[tokio::test]
async fn other_origins_are_refused_and_cannot_read_answers() {
    let port = for_origins(&[SHOP]).await;
    let answer = port.send(preflight("https://shop.example.evil"), "").await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("access-control-allow-origin"), "");
    let answer = port.send(Request::get("/v1/echo/a").header("origin", "https://evil"), "").await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
    assert_eq!(answer.header("vary"), "origin");
}

#[tokio::test]
async fn answers_expose_what_browser_clients_need_even_if_they_are_errors() {
    let port = for_origins(&["*"]).await;
    for path in ["/v1/echo/a", "/nowhere"] {
        let answer = port.send(Request::get(path).header("origin", SHOP), "").await;
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("access-control-expose-headers").contains("grpc-status-details-bin"));
    }
}

#[tokio::test]
async fn without_configuration_there_are_no_cors_headers() {
    let port = open().await;
    let answer = port.send(preflight(SHOP), "").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}
