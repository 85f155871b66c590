//! The admin API answers for entities of every node.

use stead_tests::cart::{GUEST, SERVICE};
use stead_tests::cluster::Setup;

#[tokio::test]
async fn any_node_tells_about_entities_of_any_other() {
    let cluster = Setup::nodes(2).start(GUEST).await;
    // The first node has claimed everything; the second has its share of the cluster later.
    let users = ["ada", "grace", "linus"];
    for user in users {
        cluster.host(0).add(user, "kettle", 3).await.ok();
        cluster.host(1).add(user, "kettle", 1).await.ok();
    }
    for node in cluster.up() {
        let json = async |arguments: &[&str]| {
            let arguments = [arguments, &["--format", "json"]].concat();
            cluster.host(node).stead(&arguments).await.ok().json()
        };
        let list = json(&["entity", "list"]).await;
        let entities = list["entities"].as_array().expect("entities");
        let is_user = |entity: &&serde_json::Value| entity["id"] != "nobody";
        let entities = entities.iter().filter(is_user);
        let hot: Vec<_> = entities.map(|entity| (&entity["id"], &entity["hot"])).collect();
        assert_eq!(hot.len(), 3, "node {node}: {list}");
        for ((id, is_hot), user) in hot.into_iter().zip(users) {
            assert_eq!((id, is_hot), (&user.into(), &true.into()), "node {node}: {list}");
        }
        let entity = json(&["entity", "get", SERVICE, "ada"]).await;
        assert_eq!((&entity["hot"], &entity["seq"]), (&true.into(), &2.into()), "{entity}");
        let events = json(&["entity", "events", SERVICE, "ada"]).await;
        assert_eq!(events["events"].as_array().map(Vec::len), Some(2), "{events}");
        let state = json(&["entity", "state", SERVICE, "ada"]).await;
        assert!(state.to_string().contains("kettle"), "{state}");
        let passivated = json(&["entity", "passivate", SERVICE, "ada"]).await;
        assert_eq!(passivated["was_hot"], true, "node {node}: {passivated}");
        let entity = json(&["entity", "get", SERVICE, "ada"]).await;
        assert_eq!(entity["hot"], false, "node {node}: {entity}");
        assert_eq!(cluster.host(node).cart("ada").await["kettle"], 4);
        let unknown = cluster.host(node).stead(&["entity", "events", SERVICE, "unknown"]).await;
        assert_eq!(unknown.code, 3, "{}{}", unknown.stdout, unknown.stderr);
    }
}
