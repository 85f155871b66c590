//! A single node's journal moves into a cluster's database, and back.

use std::time::Duration;

use stead_tests::Host;
use stead_tests::cart::GUEST;
use stead_tests::cli::stead;
use stead_tests::postgres::Server;

const SHUTDOWN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_journal_moves_into_a_database_and_back() {
    let host = Host::with_guest(GUEST).await;
    for user in ["ada", "bob", "cäsar"] {
        for _ in 0..101 {
            host.add(user, "kettle", 1).await.ok();
        }
    }
    let source = format!("sqlite:{}", host.data().display());
    let database = Server::shared().database();
    let copy = async |from: &str, to: &str| {
        let arguments = ["store", "copy", "--from", from, "--to", to, "--shards", "16"];
        stead(&[&arguments[..], &["--format", "json"]].concat()).await
    };
    let refused = copy(&source, &database).await;
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("is in use by another stead"), "{}", refused.stderr);

    let stopped = host.terminate(SHUTDOWN).await;
    let counts = copy(&source, &database).await.ok().json();
    assert_eq!((&counts["entities"], &counts["events"]), (&3.into(), &303.into()), "{counts}");
    assert_eq!((&counts["modules"], &counts["revisions"]), (&1.into(), &1.into()), "{counts}");
    assert_eq!(counts["snapshots"], 3, "{counts}");

    let again = copy(&source, &database).await;
    assert_eq!(again.code, 3, "{}", again.stderr);
    assert!(again.stderr.contains("the target holds data already"), "{}", again.stderr);

    // What comes back serves as before.
    std::fs::remove_dir_all(stopped.data()).expect("the data directory");
    assert_eq!(copy(&database, &source).await.ok().json(), counts);
    let host = stopped.start().await;
    for user in ["ada", "bob", "cäsar"] {
        assert_eq!(host.cart(user).await["kettle"], 101);
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_to_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let from = format!("sqlite:{}", dir.path().display());
    let to = Server::shared().url("nowhere");
    let ended = stead(&["store", "copy", "--from", &to, "--to", &from]).await;
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("does not exist: create it"), "{}", ended.stderr);
    let ended = stead(&["store", "copy", "--from", &from, "--to", &to]).await;
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let ended = stead(&["store", "copy", "--from", "mysql://u:s3cret@h/d", "--to", &to]).await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
}
