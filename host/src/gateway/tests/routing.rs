use proptest::prelude::*;

use crate::gateway::template::{self, Template, Tree};
use crate::gateway::testing::routes;

fn tree(templates: &[&'static str]) -> Tree<&'static str> {
    let mut tree = Tree::default();
    for text in templates {
        tree.insert("GET", &Template::parse(text).unwrap(), *text).unwrap();
    }
    tree
}

/// What matches, and the values of its variables.
fn find(tree: &Tree<&'static str>, path: &str) -> Option<(&'static str, Vec<String>)> {
    let segments: Vec<&str> = path[1..].split('/').collect();
    let text = *tree.find("GET", &segments)?;
    let found = Template::parse(text).unwrap();
    let values = found
        .variables
        .iter()
        .map(|variable| template::value(variable, &segments, found.verb.as_deref()).unwrap());
    Some((text, values.collect()))
}

#[test]
fn paths_find_their_template() {
    let tree = tree(&[
        "/carts",
        "/carts/{id}",
        "/carts/{id}/items",
        "/carts/special/items",
        "/carts/{id}:close",
        "/{name=shelves/*/books/*}",
        "/{name=shelves/*}/copies",
        "/files/{path=**}",
        "/files/{path=**}:lock",
        "/files/a/{rest=b/**}",
        "/a/*/c",
    ]);
    for (path, expected) in [
        ("/carts", Some(("/carts", vec![]))),
        ("/carts/ada", Some(("/carts/{id}", vec!["ada"]))),
        ("/carts/a%2Fb%20c", Some(("/carts/{id}", vec!["a/b c"]))),
        ("/carts/ada:close", Some(("/carts/{id}:close", vec!["ada"]))),
        ("/carts/ada:open", Some(("/carts/{id}", vec!["ada:open"]))),
        ("/carts/a:b:close", Some(("/carts/{id}:close", vec!["a:b"]))),
        ("/carts/ada/items", Some(("/carts/{id}/items", vec!["ada"]))),
        ("/carts/special/items", Some(("/carts/special/items", vec![]))),
        ("/carts/sp%65cial/items", Some(("/carts/special/items", vec![]))),
        ("/shelves/1/books/2", Some(("/{name=shelves/*/books/*}", vec!["shelves/1/books/2"]))),
        ("/shelves/1/copies", Some(("/{name=shelves/*}/copies", vec!["shelves/1"]))),
        ("/files/x", Some(("/files/{path=**}", vec!["x"]))),
        ("/files/x/y%2Fz/%41", Some(("/files/{path=**}", vec!["x/y%2Fz/A"]))),
        ("/files/x/y:lock", Some(("/files/{path=**}:lock", vec!["x/y"]))),
        ("/files", Some(("/files/{path=**}", vec![""]))),
        ("/files/a/b/c", Some(("/files/a/{rest=b/**}", vec!["b/c"]))),
        ("/files/a/c", Some(("/files/{path=**}", vec!["a/c"]))),
        ("/a/b/c", Some(("/a/*/c", vec![]))),
        ("/carts/", None),
        ("/carts//items", None),
        ("/carts/ada/items/", None),
        ("/a/b", None),
        ("/", None),
    ] {
        let expected =
            expected.map(|(text, values)| (text, values.into_iter().map(String::from).collect()));
        assert_eq!(find(&tree, path), expected, "{path}");
    }
}

#[test]
fn malformed_templates_are_refused() {
    for text in [
        "",
        "carts",
        "/",
        "/a//b",
        "/{",
        "/{}",
        "/{=a}",
        "/{a.}",
        "/{a}b",
        "/a{b}",
        "/**/b",
        "/{a=**}/b",
        "/a:",
        "/a:b/c",
        "/{a}/{a}",
        "/a*",
        "/{a={b}}",
        "/{a=}",
    ] {
        assert!(Template::parse(text).is_err(), "{text}");
    }
    assert!(Template::parse(&"/a".repeat(1_000)).is_err());
}

#[test]
fn a_search_is_bounded_by_the_tree_whatever_the_path() {
    let mut tree = Tree::default();
    // Each level can be taken as a literal or as a variable.
    for bits in 0..1_u32 << 10 {
        let segments = (0..10).map(|bit| if bits >> bit & 1 == 0 { "/a" } else { "/*" });
        let text: String = segments.chain(["/end"]).collect();
        tree.insert("GET", &Template::parse(&text).unwrap(), ()).unwrap();
    }
    let path = vec!["a"; 2_000];
    assert!(tree.find("GET", &path).is_none());
}

#[test]
fn conflicts_and_faults_are_told_and_the_first_service_wins() {
    let routes = routes();
    let segments = ["v1", "echo", "ada"];
    assert_eq!(&*routes.templates.find("GET", &segments).unwrap().endpoint.service, "edge.Edge");
    let faults = routes.faults().join("\n");
    assert_eq!(routes.faults().len(), 3, "{faults}");
    assert!(faults.contains("edge.Late.Take: GET /v1/echo/{id} is taken by edge.Edge.Echo"));
    assert!(faults.contains("no field nothing"), "{faults}");
    assert!(faults.contains("must begin with /"), "{faults}");
}

proptest! {
    #[test]
    fn no_path_makes_matching_panic(path in "[/a-c:%{}*.\\PC]{0,40}") {
        let tree = tree(&["/a/{b}", "/a/{b=c/*}:a", "/{x=**}", "/{x=**}:b", "/a/b/c", "/*/*:c"]);
        let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(&path).split('/').collect();
        if let Some(text) = tree.find("GET", &segments) {
            let found = Template::parse(text).unwrap();
            for variable in &found.variables {
                let _ = template::value(variable, &segments, found.verb.as_deref());
            }
        }
    }

    #[test]
    fn no_text_makes_parsing_a_template_panic(text in "[/a-c:{}=*.\\PC]{0,40}") {
        if let Ok(template) = Template::parse(&text) {
            let _ = Tree::default().insert("GET", &template, ());
        }
    }

    #[test]
    fn any_value_round_trips_through_a_percent_encoded_segment(value in "\\PC{1,20}") {
        let encoded =
            percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
        prop_assert_eq!(template::decode(&encoded.to_string()).unwrap(), value);
    }
}
