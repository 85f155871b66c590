use prost_reflect::DescriptorPool;
use tempfile::TempDir;

use super::*;

const CART: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/api/annotations.proto";
    import "google/protobuf/empty.proto";
    import "stead/options.proto";

    message Add { string cart = 1 [(stead.entity_key) = true]; }

    service Carts {
      rpc AddItem(Add) returns (google.protobuf.Empty) {
        option (google.api.http) = {post: "/carts/{cart}"};
      }
    }
"#;

/// Compiles one file in a folder of its own.
fn compiled(source: &str, messages_only: bool) -> (TempDir, Result<(), Error>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cart.proto"), source).unwrap();
    let mut config = Config::new();
    config.file("cart.proto").include(folder.path()).out_dir(folder.path());
    if messages_only {
        config.messages_only();
    }
    let result = config.compile();
    (folder, result)
}

fn failure(source: &str) -> String {
    compiled(source, false).1.unwrap_err().to_string()
}

#[test]
fn the_options_survive_in_the_descriptors() {
    let (folder, result) = compiled(CART, false);
    result.unwrap();
    let bytes = fs::read(folder.path().join("cart.bin")).unwrap();
    let pool = DescriptorPool::decode(&*bytes).unwrap();

    let key = pool.get_extension_by_name("stead.entity_key").unwrap();
    let field = pool.get_message_by_name("shop.Add").unwrap().get_field_by_name("cart").unwrap();
    assert_eq!(field.options().get_extension(&key).as_bool(), Some(true));

    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let method = pool.get_service_by_name("shop.Carts").unwrap().methods().next().unwrap();
    let rule = method.options().get_extension(&http).into_owned();
    let post = rule.as_message().unwrap().get_field_by_name("post").unwrap().into_owned();
    assert_eq!(post.as_str(), Some("/carts/{cart}"));
}

#[test]
fn a_service_becomes_a_trait_with_empty_as_unit() {
    let (folder, result) = compiled(CART, false);
    result.unwrap();
    let code = fs::read_to_string(folder.path().join("shop.rs")).unwrap();
    assert!(code.contains("pub trait Carts: Sized + 'static"), "{code}");
    assert!(code.contains("command: Add) -> ::stead_sdk::Outcome<Self, ()>;"), "{code}");
}

#[test]
fn messages_alone_need_only_prost() {
    let (folder, result) = compiled(CART, true);
    result.unwrap();
    let code = fs::read_to_string(folder.path().join("shop.rs")).unwrap();
    assert!(!code.contains("stead_sdk"), "{code}");
}

#[test]
fn a_fault_is_told_with_file_and_line() {
    let error = failure("syntax = \"proto3\";\nmessage Add {\n  strnig cart = 1;\n}\n");
    assert!(error.contains("cart.proto:3"), "{error}");
    assert!(error.contains("strnig"), "{error}");
}

#[test]
fn a_missing_import_is_named() {
    let error = failure("syntax = \"proto3\";\nimport \"shop/other.proto\";\n");
    assert!(error.contains("shop/other.proto"), "{error}");
}

fn code(source: &str) -> String {
    let (folder, result) = compiled(source, false);
    result.unwrap();
    fs::read_to_string(folder.path().join("shop.rs")).unwrap()
}

#[test]
fn a_streaming_method_takes_and_gives_streams() {
    let code = code(
        &CART
            .replace("AddItem(Add)", "AddItem(stream Add)")
            .replace("(google.protobuf.Empty)", "(stream Add)"),
    );
    let wanted = "requests: ::stead_sdk::Requests<Add>, responses: ::stead_sdk::Responses<Add>) \
                  -> ::core::result::Result<(), ::stead_sdk::Rejection>;";
    assert!(code.contains(wanted), "{code}");
    assert!(!code.contains("pub fn add_item"), "what streams has no call: {code}");
}

#[test]
fn every_unary_method_has_a_typed_call() {
    let code = code(CART);
    assert!(code.contains("pub struct CartsClient;"), "{code}");
    assert!(code.contains("pub fn add_item(request: Add) -> ::stead_sdk::Call<()>"), "{code}");
}
