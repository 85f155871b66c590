//! What is wrong with a cluster's settings is said in a sentence, and no password with it.

use stead_tests::cli::{Ended, run};
use stead_tests::files;
use stead_tests::postgres::Server;
use tokio::process::Command;

const KEY: &str = "a cluster key for tests, of no value";
const PASSWORD: &str = "s3cret-passw0rd";

async fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(files::binary());
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--peer", "127.0.0.1:0", "--data"])
        .arg(dir.path().join("data"))
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(dir.path());
    run(&mut command).await
}

#[track_caller]
fn refused(ended: &Ended, code: i32, sentence: &str) {
    assert_eq!(ended.code, code, "{}", ended.stderr);
    assert!(ended.stderr.contains(sentence), "{sentence:?} is not in {}", ended.stderr);
    assert!(!ended.stderr.contains(PASSWORD), "{}", ended.stderr);
    let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains(sentence), "{}", ended.stderr);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_usage() {
    let url = format!("postgres://stead:{PASSWORD}@127.0.0.1:1/stead");
    let ended = serve(&["--store", &url], &[]).await;
    refused(&ended, 2, "set STEAD_CLUSTER_KEY on each of them");
    let ended = serve(&["--store", &url], &[("STEAD_CLUSTER_KEY", "short")]).await;
    refused(&ended, 2, "a cluster key has at least");
    let key = [("STEAD_CLUSTER_KEY", KEY)];
    let other = url.replace("postgres:", "mysql:");
    let ended = serve(&["--store", &other], &key).await;
    refused(&ended, 2, "--store: the store must be postgres://user@host/database");
    for broken in ["postgres://stead:{}@127.0.0.1:port/stead", "postgres://stead:{}@[::1/stead"] {
        let ended = serve(&["--store", &broken.replace("{}", PASSWORD)], &key).await;
        refused(&ended, 2, "write it like postgres://user@host:5432/database");
    }
    let ended = serve(&["--zone", "a"], &key).await;
    refused(&ended, 2, "is for a node of a cluster");
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_said_to_be() {
    let key = [("STEAD_CLUSTER_KEY", KEY)];
    // Port 1 of loopback: nothing listens there.
    let url = format!("postgres://stead:{PASSWORD}@127.0.0.1:1/stead");
    let ended = serve(&["--store", &url], &key).await;
    refused(
        &ended,
        1,
        "the database stead on 127.0.0.1:1 cannot be reached: check the store's URL",
    );

    let ended = serve(&["--store", &Server::shared().url("nowhere")], &key).await;
    refused(&ended, 1, "does not exist: create it");

    // The server trusts everyone it knows.
    let port = Server::shared().port();
    let url = format!("postgres://stranger:{PASSWORD}@127.0.0.1:{port}/postgres");
    let ended = serve(&["--store", &url], &key).await;
    refused(&ended, 1, "refuses the user: check user and password");
}
