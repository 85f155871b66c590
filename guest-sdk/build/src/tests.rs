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

#[test]
fn messages_with_maps_do_not_need_the_crate_prost() {
    let code = code(
        "syntax = \"proto3\"; package shop;
         message A { message B { map<string, B> bs = 1; oneof o { bool x = 2; } } }
         message C { oneof o { bool x = 1; } }",
    );
    assert_eq!(code.matches("#[derive(Debug)]").count(), 3, "A, B and its oneof: {code}");
    assert_eq!(code.matches("skip_debug").count(), 3, "{code}");
}

const ORDERS: &str = r#"
    syntax = "proto3";
    package shop;
    import "google/protobuf/empty.proto";
    import "stead/options.proto";
    import "stead/workflow/v1/workflow.proto";

    message Order { string id = 1 [(stead.entity_key) = true]; }
    message Progress { bool shipped = 1; }

    service Orders {
      rpc Place(Order) returns (stead.workflow.v1.Status);
      rpc Cancel(Order) returns (google.protobuf.Empty) {
        option (stead.workflow_role) = SIGNAL;
      }
      rpc Get(Order) returns (stead.workflow.v1.Status) { option (stead.workflow_role) = QUERY; }
      rpc Follow(Order) returns (Progress) { option (stead.workflow_role) = QUERY; }
    }
"#;

#[test]
fn a_service_with_roles_is_a_workflow_that_its_first_method_starts() {
    let code = code(ORDERS);
    assert!(code.contains("pub trait Orders: ::stead_sdk::Workflow<Input = Order>"), "{code}");
    assert!(code.contains(r#"method: "Place""#), "{code}");
    assert!(code.contains("answer: ::stead_sdk::workflow::service::Answer::Status"), "{code}");
    let wanted = "fn follow(progress: &::stead_sdk::workflow::Progress<Self::Output>";
    assert!(code.contains(wanted), "{code}");
    assert!(!code.contains("fn get(progress"), "a status needs no code: {code}");
}

#[test]
fn a_workflow_that_cannot_be_is_refused_with_the_name_of_the_method() {
    let signal = "option (stead.workflow_role) = SIGNAL;";
    let without = failure(&ORDERS.replace(signal, ""));
    assert!(without.contains("shop.Orders.Cancel: a method of a workflow needs a"), "{without}");
    let twice = failure(&ORDERS.replace("SIGNAL", "START").replace("Place", "Put"));
    assert!(twice.contains("shop.Orders.Put"), "{twice}");
    let answer = failure(&ORDERS.replace(
        "Cancel(Order) returns (google.protobuf.Empty)",
        "Cancel(Order) returns (Progress)",
    ));
    assert!(answer.contains("shop.Orders.Cancel: what starts or signals"), "{answer}");
    let streams = failure(&ORDERS.replace("Get(Order)", "Get(stream Order)"));
    assert!(streams.contains("shop.Orders.Get: it streams"), "{streams}");
}
