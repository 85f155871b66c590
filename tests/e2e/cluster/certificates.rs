//! Nodes that know each other by certificates.

use std::time::Duration;

use stead_tests::cart::GUEST;
use stead_tests::certificates::Certificates;
use stead_tests::cluster::{Cluster, Setup};
use stead_tests::host::Options;

use crate::cluster::until;

const OWNED_WITHIN: Duration = Duration::from_secs(60);
const SHARED_WITHIN: Duration = Duration::from_secs(90);

/// What a node is told of certificates: its own, and the authority of another's.
fn given(own: &Certificates, authority: &Certificates, options: Options) -> Options {
    let file = |of: &Certificates, name: &str| of.file(name).display().to_string();
    options
        .env("STEAD_PEER_TLS_CERTIFICATE", &file(own, "node.pem"))
        .env("STEAD_PEER_TLS_KEY", &file(own, "node.key"))
        .env("STEAD_PEER_TLS_CA", &file(authority, "ca.pem"))
}

async fn cluster(certificates: &Certificates) -> Cluster {
    let mut cluster = Setup::nodes(0).prepare();
    for _ in 0..2 {
        let added = cluster.try_add(|options| given(certificates, certificates, options)).await;
        added.unwrap_or_else(|refused| panic!("{refused}"));
    }
    cluster.host(0).deploy(GUEST).await;
    cluster.all_owned(OWNED_WITHIN).await;
    cluster
}

#[tokio::test]
async fn nodes_with_certificates_of_one_authority_are_a_cluster() {
    let certificates = Certificates::new();
    let cluster = cluster(&certificates).await;
    let owned = async || (cluster.owned(0), cluster.owned(1));
    until("both own shards", SHARED_WITHIN, owned, |(one, other)| *one > 0 && *other > 0).await;
    // Some of these are on their way over a connection between the two.
    for number in 0..20 {
        let user = format!("user-{number}");
        for node in cluster.up() {
            cluster.host(node).add(&user, "tea", 1).await.ok();
        }
        for node in cluster.up() {
            assert_eq!(cluster.host(node).cart(&user).await["tea"], 2);
        }
    }
    for node in cluster.up() {
        assert!(cluster.host(node).metric("stead_forwards_total").await > 0.0);
    }
    cluster.check_rows();
}

#[tokio::test]
async fn a_node_with_a_certificate_of_another_authority_is_refused() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let mut cluster = cluster(&certificates).await;
    let strangers = [
        ("another authority", Some((&others, &others))),
        ("another's certificate", Some((&others, &certificates))),
        ("trust in another", Some((&certificates, &others))),
        ("no certificate", None),
    ];
    for (what, stranger) in strangers {
        let options = |options| match stranger {
            Some((own, authority)) => given(own, authority, options),
            None => options,
        };
        let refused = cluster.try_add(options).await.expect_err(what);
        assert_eq!(refused.status.code(), Some(1), "{what}: {refused}");
        let sentence = "no member of the cluster lets this node in: the handshake failed";
        assert!(refused.log.contains(sentence), "{what}: {refused}");
        assert!(refused.log.contains("certificates"), "{what}: {refused}");
    }
    // None of them has registered, and the members say who came.
    assert_eq!(cluster.number("SELECT count(*) FROM node"), 2);
    for node in cluster.up() {
        let log = cluster.host(node).log();
        assert!(log.contains("refused a connection to the peer port"), "{log}");
        cluster.host(node).add("ada", "kettle", 1).await.ok();
    }
    assert_eq!(cluster.host(0).cart("ada").await["kettle"], 2);
}
