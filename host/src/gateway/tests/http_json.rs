use http::Request;
use serde_json::json;

use crate::gateway::testing::open;
use crate::words::limits;

#[tokio::test]
async fn every_binding_of_a_method_works() {
    let port = open().await;

    let answer = port.post_json("/v1/echo", json!({ "id": "ada", "large": "-5" })).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["id"], "ada");
    assert_eq!(answer.json()["large"], "-5");

    assert_eq!(port.get("/v1/echo/ada%20l").await.json()["id"], "ada l");
    assert_eq!(port.send(Request::delete("/v1/echo/ada"), "").await.json()["id"], "ada");

    let put = Request::put("/v1/echo/ada/nested").header("content-type", "application/json");
    let answer = port.send(put, r#"{"name":"n"}"#).await;
    assert_eq!(answer.json(), json!({ "name": "n" }));

    let patch = Request::patch("/v1/echo/ada/tags").header("content-type", "application/json");
    assert_eq!(port.send(patch, r#"["a","b"]"#).await.json(), json!(["a", "b"]));

    let purge = Request::builder().method("PURGE").uri("/v1/echo/ada:purge");
    assert_eq!(port.send(purge, "").await.json()["id"], "ada");

    assert_eq!(port.get("/v1/echo/ada/many").await.json(), json!([]));
    assert_eq!(port.get("/v1/shelves/7/books").await.json()["id"], "shelves/7");
    assert_eq!(port.get("/v1/files/a/b%2Fc%20d").await.json()["id"], "a/b%2Fc d");
    assert_eq!(port.get("/v1/files").await.json()["id"], "");
}

#[tokio::test]
async fn path_variables_of_all_kinds_are_read() {
    let port = open().await;
    let answer = port.get("/v1/typed/GREEN/deep/-7/true").await.json();
    assert_eq!(answer["color"], "GREEN");
    assert_eq!(answer["nested"]["inner"]["name"], "deep");
    assert_eq!(answer["small"], -7);
    assert_eq!(answer["flag"], true);
    assert_eq!(port.get("/v1/typed/1/deep/0/false").await.json()["color"], "GREEN");

    let (status, message) = port.get("/v1/typed/PINK/deep/1/true").await.error();
    assert_eq!(status, 400);
    assert!(message.contains("color") && message.contains("PINK"), "{message}");
    let (status, message) = port.get("/v1/typed/RED/deep/1x/true").await.error();
    assert_eq!(status, 400);
    assert!(message.contains("small"), "{message}");
}

#[tokio::test]
async fn query_parameters_of_all_kinds_are_read() {
    let port = open().await;
    let query = "flag=true&large=-9&ularge=18446744073709551615&ratio=0.5&data=-_8&color=GREEN\
                 &tags=a&tags=b+c&numbers=1&numbers=2&nested.inner.name=deep&twoWords=x%26y\
                 &at=2026-11-21T19:00:00Z&wait=1.5s&wrapped=12&agreed=true&text=t";
    let answer = port.get(&format!("/v1/echo/ada?{query}")).await.json();
    assert_eq!(answer["flag"], true);
    assert_eq!(answer["large"], "-9");
    assert_eq!(answer["ularge"], "18446744073709551615");
    assert_eq!(answer["ratio"], 0.5);
    assert_eq!(answer["data"], "+/8=");
    assert_eq!(answer["color"], "GREEN");
    assert_eq!(answer["tags"], json!(["a", "b c"]));
    assert_eq!(answer["numbers"], json!([1, 2]));
    assert_eq!(answer["nested"]["inner"]["name"], "deep");
    assert_eq!(answer["twoWords"], "x&y");
    assert_eq!(answer["at"], "2026-11-21T19:00:00Z");
    assert_eq!(answer["wait"], "1.500s");
    assert_eq!(answer["wrapped"], "12");
    assert_eq!(answer["agreed"], true);
    assert_eq!(answer["text"], "t");
}

#[tokio::test]
async fn bad_query_parameters_are_refused_by_name() {
    let port = open().await;
    for (query, expected) in [
        ("colour=RED", "colour"),
        ("small=two", "small"),
        ("small=4294967296", "small"),
        ("flag=yes", "flag"),
        ("nested=x", "nested"),
        ("counts=x", "counts"),
        ("tags.x=1", "tags"),
        ("id.x=1", "id"),
        ("at=yesterday", "at"),
        ("data=%ZZ", "data"),
        ("data=!", "data"),
        ("id=%ff", "id"),
        ("id=%4", "id"),
        (&"nested.inner.".repeat(200), "nested"),
    ] {
        let answer = port.get(&format!("/v1/echo/ada?{query}")).await;
        let (status, message) = answer.error();
        assert_eq!(status, 400, "{query}");
        assert!(message.contains(expected), "{query}: {message}");
        assert_eq!(answer.json()["code"], "invalid_argument");
    }
    let request = Request::post("/v1/echo?small=1").header("content-type", "application/json");
    let (status, message) = port.send(request, "{}").await.error();
    assert_eq!(status, 400);
    assert!(message.contains("small") && message.contains("body"), "{message}");
}

#[tokio::test]
async fn bad_percent_encoding_in_the_path_is_refused() {
    let port = open().await;
    for path in ["/v1/echo/%", "/v1/echo/%4", "/v1/echo/%zz", "/v1/echo/%ff", "/v1/files/a/%c3"] {
        let answer = port.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.error().1.contains("id in the path"), "{path}");
    }
}

#[tokio::test]
async fn bad_json_is_refused_in_a_sentence_that_names_the_field() {
    let port = open().await;
    for (json, expected) in [
        (r#"{"small":"two"}"#, "small"),
        (r#"{"small":1.5}"#, "small"),
        (r#"{"small":2147483648}"#, "small"),
        (r#"{"usmall":-1}"#, "usmall"),
        (r#"{"large":true}"#, "large"),
        (r#"{"flag":"true"}"#, "flag"),
        (r#"{"id":7}"#, "id"),
        (r#"{"data":"%%"}"#, "data"),
        (r#"{"color":"PINK"}"#, "PINK"),
        (r#"{"tags":"a"}"#, "tags"),
        (r#"{"numbers":[1,"x"]}"#, "numbers[1]"),
        (r#"{"counts":{"a":"b"}}"#, "counts"),
        (r#"{"nested":[]}"#, "nested"),
        (r#"{"nested":{"inner":{"nam":"x"}}}"#, "nam"),
        (r#"{"many":[{},{"name":7}]}"#, "many[1].name"),
        (r#"{"at":"yesterday"}"#, "at"),
        (r#"{"surprise":1}"#, "surprise"),
        (r#"{"text":"a","number":1}"#, "choice"),
        (r#"{"id":"a"} trailing"#, "JSON"),
        (r#"{"id":"a""#, "JSON"),
        ("[]", "object"),
        ("\u{feff}{}", "JSON"),
    ] {
        for path in ["/v1/echo", "/edge.Edge/Plain"] {
            let answer = port.post_json(path, json).await;
            let (status, message) = answer.error();
            assert_eq!(status, 400, "{json}");
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
    let request = Request::post("/v1/echo").header("content-type", "application/json");
    let (status, message) = port.send(request, &b"{\"id\":\"\xff\"}"[..]).await.error();
    assert_eq!(status, 400);
    assert!(message.contains("UTF-8"), "{message}");
    let nest = format!("{}{}", r#"{"inner":"#.repeat(5_000), "}".repeat(5_000));
    assert_eq!(port.post_json("/v1/echo", format!("{{\"nested\":{nest}}}")).await.status, 400);
}

#[tokio::test]
async fn the_json_of_a_body_field_cannot_set_other_fields() {
    let port = open().await;
    let put = Request::put("/v1/echo/ada/nested").header("content-type", "application/json");
    let answer = port.send(put, r#"{"name":"n"},"flag":true"#).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn raw_bodies_pass_both_ways() {
    let port = open().await;
    let request = Request::post("/v1/raw").header("content-type", "image/png");
    let answer = port.send(request, &b"\x89PNG\0\xff"[..]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "image/png");
    assert_eq!(answer.body, &b"\x89PNG\0\xff"[..]);

    let answer = port.get("/v1/page/x").await;
    assert_eq!(answer.header("content-type"), "text/html");
    assert_eq!(answer.body, "<p>hello</p>");
}

#[tokio::test]
async fn errors_have_code_message_and_details() {
    let port = open().await;
    let answer = port.get("/v1/fail/ada").await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json(),
        json!({
            "code": "failed_precondition",
            "message": "the cart is “closed”",
            "details": [{ "type": "edge.Nested", "value": "CgF4" }],
        })
    );
}

#[tokio::test]
async fn wrong_paths_methods_and_content_types_are_told_what_would_be_right() {
    let port = open().await;
    let answer = port.get("/nowhere").await;
    assert_eq!(answer.error().0, 404);
    assert_eq!(answer.json()["code"], "not_found");
    assert!(answer.error().1.contains("/nowhere"));

    let (status, message) = port.post_json("/edge.Edge/Ech", "{}").await.error();
    assert_eq!(status, 404);
    assert!(message.contains("Echo") && message.contains("Upload"), "{message}");

    let answer = port.post_json("/v1/echo/ada", "{}").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), "DELETE, GET");
    let answer = port.get("/edge.Edge/Plain").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), "POST");

    for path in ["/v1/echo", "/edge.Edge/Plain"] {
        for kind in ["application/x-www-form-urlencoded", "text/plain", "application/grpc+json"] {
            let answer = port.send(Request::post(path).header("content-type", kind), "{}").await;
            assert_eq!(answer.status, 415, "{path} {kind}");
        }
        let answer =
            port.send(Request::post(path).header("content-type", "text/plain"), "{}").await;
        assert!(answer.header("accept-post").contains("application/json"));
        let latin = Request::post(path).header("content-type", "application/json; charset=latin1");
        assert_eq!(port.send(latin, "{}").await.status, 415);
        let utf8 = Request::post(path).header("content-type", "application/json; charset=UTF-8");
        assert_eq!(port.send(utf8, "{}").await.status, 200);
        assert_eq!(port.send(Request::post(path), "").await.status, 200);
    }
}

#[tokio::test]
async fn oversized_bodies_are_413() {
    let port = open().await;
    let large = format!("{{\"id\":\"{}\"}}", "a".repeat(limits::BODY_BYTES_MAX));
    let answer = port.post_json("/v1/echo", &large).await;
    assert_eq!(answer.error().0, 413);
    assert_eq!(answer.json()["code"], "resource_exhausted");
}

#[tokio::test]
async fn a_reply_that_is_no_message_is_an_internal_error() {
    let port = open().await;
    let answer = port.post_json("/edge.Edge/Garbage", "{}").await;
    assert_eq!(answer.error().0, 500);
}

#[tokio::test]
async fn requests_for_the_backend_itself_reach_it() {
    let port = open().await;
    let answer = port.get("/probe").await;
    assert_eq!(answer.body, "alive");
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(port.get("/probe/other").await.status, 404);
}
