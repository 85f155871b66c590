use stead_sdk::Code;
use stead_sdk::testing::ActionScenario;

use super::*;

fn get(url: &str) -> HttpRequest {
    HttpRequest { url: url.into(), ..HttpRequest::default() }
}

#[test]
fn what_is_no_url_is_refused() {
    for url in ["", "example.com", "file:///etc/passwd"] {
        ActionScenario::<Bridge>::new()
            .when(Bridge::fetch, get(url))
            .then_rejected(Code::InvalidArgument);
    }
}

#[test]
fn a_failure_names_what_was_asked() {
    let then =
        ActionScenario::<Bridge>::new().when(Bridge::fetch, get("https://api.example.com/a"));
    let rejection = then.rejection().expect("a rejection");
    assert_eq!(rejection.code, Code::Unavailable);
    assert!(rejection.message.starts_with("GET https://api.example.com/a"), "{rejection}");
}
