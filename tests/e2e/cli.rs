//! The command line as scripts use it: exit codes and JSON.

use serde_json::Value;
use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::cli::stead;
use stead_tests::{Host, files};

fn guest() -> String {
    files::guest(GUEST).display().to_string()
}

#[tokio::test]
async fn a_session_from_deploy_to_rollback() {
    let host = Host::start().await;
    let deployed = host.stead(&["deploy", &guest(), "--yes", "--format", "json"]).await.ok().json();
    assert_eq!(deployed["revision"].to_string().trim_matches('"'), "1", "{deployed}");
    assert_eq!(deployed["changes"][0]["action"], "added", "{deployed}");

    let add = r#"{"userId":"ada","productId":"kettle","name":"Kettle","quantity":1}"#;
    let method = format!("{SERVICE}/AddItem");
    for _ in 0..2 {
        host.stead(&["call", &method, add, "--idempotency-key", "once"]).await.ok();
    }
    let cart = format!("{SERVICE}/GetCart");
    let cart = host.stead(&["call", &cart, r#"{"userId":"ada"}"#, "--format", "json"]).await.ok();
    assert_eq!(cart.json()["items"][0]["quantity"], 1, "{}", cart.stdout);

    let json = async |arguments: &[&str]| {
        let arguments = [arguments, &["--format", "json"]].concat();
        host.stead(&arguments).await.ok().json()
    };
    assert_eq!(json(&["entity", "list"]).await["entities"][0]["id"], "ada");
    assert_eq!(json(&["entity", "get", SERVICE, "ada"]).await["hot"], true);
    let events = json(&["entity", "events", SERVICE, "ada"]).await;
    assert_eq!(events["events"].as_array().map(Vec::len), Some(1), "{events}");
    json(&["entity", "state", SERVICE, "ada"]).await;
    assert_eq!(json(&["entity", "passivate", SERVICE, "ada"]).await["was_hot"], true);

    let first = deployed["modules"][0]["digest"].clone();
    let file = host.dir().join("second.wasm");
    std::fs::write(&file, files::another_version(GUEST, 2)).expect("the module is written");
    let deployed = json(&["deploy", &file.display().to_string(), "--yes"]).await;
    let second = deployed["modules"][0]["digest"].clone();
    assert_eq!(
        (&deployed["revision"], &deployed["changes"][0]["action"]),
        (&2.into(), &"replaced".into())
    );
    assert_ne!(first, second);
    assert_eq!(json(&["services"]).await["services"][0]["module_digest"], second);

    let rolled_back = json(&["rollback", "1"]).await;
    assert_eq!(rolled_back["revision"], 3, "{rolled_back}");
    assert_eq!(rolled_back["changes"][0]["module_digest"], first, "{rolled_back}");
    assert_eq!(json(&["services"]).await["services"][0]["module_digest"], first);
    let versions = json(&["versions"]).await;
    let of = |revision: &Value| {
        let digest = revision["modules"][0]["digest"].clone();
        (revision["revision"].as_u64(), revision["live"].as_bool(), digest)
    };
    let revisions: Vec<_> =
        versions["revisions"].as_array().into_iter().flatten().map(of).collect();
    let expected = [
        (Some(3), Some(true), first.clone()),
        (Some(2), Some(false), second),
        (Some(1), Some(false), first),
    ];
    assert_eq!(revisions, expected, "{versions}");
}

#[tokio::test]
async fn check_says_what_a_component_holds() {
    let checked = stead(&["check", &guest(), "--format", "json"]).await.ok().json();
    assert_eq!(checked["services"][0]["name"], SERVICE, "{checked}");
    let not_wasm = files::source("README.md").display().to_string();
    let refused = stead(&["check", &not_wasm]).await;
    assert_ne!(refused.code, 0);
    assert!(!refused.stderr.is_empty());
}

#[tokio::test]
async fn completions_are_scripts() {
    for (shell, registers) in
        [("bash", "complete -F _stead"), ("zsh", "#compdef stead"), ("fish", "complete -c stead")]
    {
        let script = stead(&["completions", shell]).await.ok().stdout;
        for wanted in [registers, "rollback", "idempotency-key"] {
            assert!(script.contains(wanted), "{wanted} is not in the script for {shell}");
        }
    }
    assert_eq!(stead(&["completions", "abacus"]).await.code, 2);
}

#[tokio::test]
async fn doctor_looks_at_this_machine() {
    let host = Host::start().await;
    let data = host.data().display().to_string();
    let doctor = async |host: &Host| {
        host.stead(&["doctor", "--data", &data, "--format", "json"]).await.json()["checks"].clone()
    };
    let check = |checks: &Value, name: &str| {
        let checks = checks.as_array().into_iter().flatten();
        let check = checks.clone().find(|check| check["name"] == name).cloned();
        let check = check.unwrap_or_else(|| panic!("{name} is not looked at: {checks:?}"));
        let message = check["message"].as_str().expect("a message").to_owned();
        (check["result"].as_str().expect("a result").to_owned(), message)
    };
    let checks = doctor(&host).await;
    let (result, message) = check(&checks, "admin_port");
    assert_eq!(result, "ok", "{message}");
    assert!(message.contains(&data), "it does not say where the data is: {message}");
    assert_eq!(check(&checks, "services_port").0, "ok");
    assert!(check(&checks, "host").1.contains("revision 0"), "{checks}");
    host.deploy(GUEST).await;
    assert!(check(&doctor(&host).await, "host").1.contains("revision 1"));

    // A services port that something else has.
    let ended = stead(&[
        "doctor",
        "--url",
        host.services.base(),
        "--admin-url",
        "http://127.0.0.1:1",
        "--format",
        "json",
    ])
    .await;
    assert_ne!(ended.code, 0);
    assert_eq!(check(&ended.json()["checks"], "services_port").0, "fail");
}

#[tokio::test]
async fn exit_code_2_is_for_usage() {
    assert_eq!(stead(&["fly"]).await.code, 2);
    assert_eq!(stead(&["call"]).await.code, 2);
}

#[tokio::test]
async fn exit_code_3_is_for_what_the_host_refuses() {
    let host = Host::with_guest(GUEST).await;
    let method = format!("{SERVICE}/RemoveItem");
    let ended = host.stead(&["call", &method, r#"{"userId":"ada","productId":"milk"}"#]).await;
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("milk"), "{}", ended.stderr);
}

#[tokio::test]
async fn exit_code_4_is_for_a_host_that_cannot_be_reached() {
    // Port 1 of loopback: nothing listens there.
    let url = ["--admin-url", "http://127.0.0.1:1"];
    let ended = stead(&[&["versions"][..], &url].concat()).await;
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("127.0.0.1:1"), "{}", ended.stderr);
}

#[tokio::test]
async fn mistakes_get_a_sentence() {
    let host = Host::with_guest(GUEST).await;
    let unknown = host.stead(&["call", &format!("{SERVICE}/Fly"), "{}"]).await;
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("Fly"), "{}", unknown.stderr);
    let broken = host.stead(&["call", &format!("{SERVICE}/GetCart"), "{userId"]).await;
    assert_ne!(broken.code, 0);
    assert!(broken.stderr.to_lowercase().contains("json"), "{}", broken.stderr);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let host = Host::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let address = host.services.address();
    let serve = ["serve", "--data", &data, "--listen", address, "--admin", "127.0.0.1:0"];
    let ended = stead(&serve).await;
    assert_ne!(ended.code, 0);
    let port = address.rsplit(':').next().expect("a port");
    assert!(ended.stderr.contains(port), "{}", ended.stderr);
}

#[tokio::test]
async fn entities_of_a_type_that_there_is_not_are_an_error_with_those_there_are() {
    let host = Host::with_guest("tck-model").await;
    let known = host.stead(&["entity", "list", "tck-model"]).await;
    assert_eq!((known.code, &*known.stdout), (0, ""), "{}", known.stderr);
    for format in [&[][..], &["--format", "json"]] {
        let typo = host.stead(&[format, &["entity", "list", "tck-modle"]].concat()).await;
        assert_eq!(typo.code, 3, "{}{}", typo.stdout, typo.stderr);
        assert!(typo.stderr.contains("tck-model"), "{}", typo.stderr);
    }
}
