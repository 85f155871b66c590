use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream;
use prost::Message;
use prost_types::FileDescriptorProto;
use stead_proto::grpc::reflection::v1::server_reflection_client::ServerReflectionClient;
use stead_proto::grpc::reflection::v1::server_reflection_request::MessageRequest;
use stead_proto::grpc::reflection::v1::server_reflection_response::MessageResponse;
use stead_proto::grpc::reflection::v1::{ExtensionRequest, ServerReflectionRequest};
use tonic::codegen::Service;

use super::*;
use crate::registry::descriptor;
use crate::registry::testing::compile;

const SHOP: &str = r#"
    syntax = "proto3";
    package shop;
    import "stead/options.proto";
    message Item {
        string id = 1 [(stead.entity_key) = true];
        oneof how { string colour = 2; }
        enum Size { SMALL = 0; }
    }
    enum Mood { GOOD = 0; }
    service Carts { rpc Add(Item) returns (Item); }
"#;

const BANK: &str = r#"
    syntax = "proto2";
    package bank;
    message Account { optional string iban = 1; extensions 100 to 200; }
    extend Account { optional string note = 100; }
    extend Account { optional string other = 150; }
    service Accounts { rpc Get(Account) returns (Account); }
"#;

impl Service<Request<tonic::body::Body>> for Reflection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        self.clone().serve(request).map(Ok).boxed()
    }
}

/// Two modules that both call their file `test.proto`.
fn reflection() -> Reflection {
    let module = |source| {
        let set = compile(source);
        (Digest::of(&set), descriptor::read(&set).unwrap())
    };
    Reflection::new(move || {
        let (shop, bank) = (module(SHOP), module(BANK));
        let services = [("shop.Carts", shop.0), ("bank.Accounts", bank.0)];
        Catalogue::new(&services, vec![shop, bank])
    })
}

async fn ask_all(requests: Vec<MessageRequest>) -> Vec<MessageResponse> {
    let requests = requests.into_iter().map(|request| ServerReflectionRequest {
        host: "here".to_owned(),
        message_request: Some(request),
    });
    let answers = ServerReflectionClient::new(reflection())
        .server_reflection_info(stream::iter(requests.collect::<Vec<_>>()))
        .await
        .unwrap();
    let answers: Vec<_> = answers.into_inner().collect().await;
    answers
        .into_iter()
        .map(|answer| {
            let answer = answer.unwrap();
            assert_eq!(answer.valid_host, "here");
            assert!(answer.original_request.is_some());
            answer.message_response.unwrap()
        })
        .collect()
}

async fn ask(request: MessageRequest) -> MessageResponse {
    ask_all(vec![request]).await.remove(0)
}

fn files(response: &MessageResponse) -> Vec<FileDescriptorProto> {
    let MessageResponse::FileDescriptorResponse(files) = response else {
        panic!("files, not {response:?}")
    };
    let decode = |bytes: &Vec<u8>| FileDescriptorProto::decode(bytes.as_slice()).unwrap();
    files.file_descriptor_proto.iter().map(decode).collect()
}

fn error_code(response: &MessageResponse) -> i32 {
    let MessageResponse::ErrorResponse(error) = response else {
        panic!("an error, not {response:?}")
    };
    error.error_code
}

#[tokio::test]
async fn lists_the_live_services_and_the_hosts_own() {
    let answer = ask(MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "bank.Accounts",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "shop.Carts",
        ]
    );
}

#[tokio::test]
async fn finds_every_sort_of_symbol_in_the_module_that_owns_it() {
    for (symbol, package) in [
        ("shop.Carts", "shop"),
        ("shop.Carts.Add", "shop"),
        ("shop.Item", "shop"),
        ("shop.Item.id", "shop"),
        ("shop.Item.how", "shop"),
        ("shop.Item.Size", "shop"),
        ("shop.Item.SMALL", "shop"),
        ("shop.Mood.GOOD", "shop"),
        ("shop.GOOD", "shop"),
        (".shop.Item", "shop"),
        ("bank.Accounts.Get", "bank"),
        ("bank.Account", "bank"),
        ("bank.note", "bank"),
        ("grpc.health.v1.Health", "grpc.health.v1"),
    ] {
        let answer = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
        assert_eq!(files(&answer)[0].package(), package, "{symbol}");
    }
    for symbol in ["shop.Nothing", "shop.Carts.Nothing", "nothing", "", ".", "stead.admin.v1.Admin"]
    {
        let answer = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
        assert_eq!(error_code(&answer), 5, "{symbol}");
    }
}

#[tokio::test]
async fn an_answer_is_complete_and_keeps_custom_options() {
    let answer = ask(MessageRequest::FileContainingSymbol("shop.Carts".to_owned())).await;
    let names: Vec<_> = files(&answer).iter().map(|file| file.name().to_owned()).collect();
    assert_eq!(names, ["test.proto", "stead/options.proto", "google/protobuf/descriptor.proto"]);

    let MessageResponse::FileDescriptorResponse(answer) = answer else { unreachable!() };
    let mut set = Vec::new();
    for file in &answer.file_descriptor_proto {
        prost::encoding::bytes::encode(1, file, &mut set);
    }
    let pool = DescriptorPool::decode(set.as_slice()).unwrap();
    let item = pool.get_message_by_name("shop.Item").unwrap();
    assert!(descriptor::is_entity_key(&item.get_field(1).unwrap()));
}

#[tokio::test]
async fn a_file_name_that_two_modules_have_means_the_one_asked_about_before() {
    let name = || MessageRequest::FileByFilename("test.proto".to_owned());
    let symbol = |symbol: &str| MessageRequest::FileContainingSymbol(symbol.to_owned());
    let answers = ask_all(vec![
        symbol("bank.Account"),
        name(),
        symbol("shop.Item"),
        name(),
        MessageRequest::FileByFilename("gone.proto".to_owned()),
    ])
    .await;
    let packages: Vec<_> =
        answers[..4].iter().map(|answer| files(answer)[0].package().to_owned()).collect();
    assert_eq!(packages, ["bank", "bank", "shop", "shop"]);
    assert_eq!(error_code(&answers[4]), 5);
}

#[tokio::test]
async fn finds_extensions() {
    let extension = |containing_type: &str, extension_number| {
        MessageRequest::FileContainingExtension(ExtensionRequest {
            containing_type: containing_type.to_owned(),
            extension_number,
        })
    };
    let found = ask(extension("bank.Account", 150)).await;
    assert_eq!(files(&found)[0].package(), "bank");
    assert_eq!(error_code(&ask(extension("bank.Account", 151)).await), 5);
    assert_eq!(error_code(&ask(extension("bank.Account", -1)).await), 5);
    assert_eq!(error_code(&ask(extension("bank.Gone", 1)).await), 5);

    let numbers = |name: &str| MessageRequest::AllExtensionNumbersOfType(name.to_owned());
    let answer = ask(numbers("bank.Account")).await;
    let MessageResponse::AllExtensionNumbersResponse(found) = answer else { panic!("{answer:?}") };
    assert_eq!(found.extension_number, [100, 150]);
    assert_eq!(error_code(&ask(numbers("bank.Gone")).await), 5);
}

#[tokio::test]
async fn v1alpha_answers_the_same() {
    use stead_proto::grpc::reflection::v1alpha;
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "shop.Item".to_owned(),
            ),
        ),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(reflection());
    let answers = client.server_reflection_info(stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    let response = answer.message_response.unwrap();
    assert!(matches!(
        response,
        v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)
    ));
}

#[tokio::test]
async fn requests_that_are_empty_or_too_large_are_refused() {
    let ask = |request| async {
        let mut client = ServerReflectionClient::new(reflection());
        let answers = client.server_reflection_info(stream::iter([request])).await?;
        answers.into_inner().next().await.unwrap()
    };
    let empty = ask(ServerReflectionRequest::default()).await.unwrap();
    assert_eq!(error_code(&empty.message_response.unwrap()), 3);

    let host = "x".repeat(REFLECTION_REQUEST_BYTES_MAX);
    let large = ask(ServerReflectionRequest { host, message_request: None }).await;
    assert_eq!(large.unwrap_err().code(), tonic::Code::OutOfRange);
}

#[tokio::test]
async fn other_protocols_are_told_to_use_grpc() {
    let request = Request::post("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        .header("content-type", "application/json")
        .body(tonic::body::Body::empty())
        .unwrap();
    assert_eq!(reflection().serve(request).await.status(), 415);
}
