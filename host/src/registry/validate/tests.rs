use super::*;
use crate::registry::testing::describe;
use crate::wasm::Setting;
use crate::words::limits::{
    GUEST_DEADLINE_DEFAULT, GUEST_MEMORY_BYTES_DEFAULT, GUEST_MEMORY_BYTES_MAX,
};

const CART: &str = r#"
    syntax = "proto3";
    package shop;
    import "cloudstate/entity_key.proto";
    import "stead/options.proto";
    import "google/api/annotations.proto";

    message AddItem {
        string user_id = 1 [(stead.entity_key) = true];
        Item item = 2;
        repeated string tags = 3;
    }
    message Item { string id = 1; }
    message GetCart { string user_id = 1 [(.cloudstate.entity_key) = true]; }
    message Cart { repeated Item items = 1; }

    service Carts {
        rpc Add(AddItem) returns (Cart) {
            option (google.api.http) = { post: "/cart/{user_id}/{item.id=a/*}" body: "*" };
        }
        rpc Get(GetCart) returns (Cart) {
            option (google.api.http) = {
                get: "/carts/{user_id}"
                additional_bindings { get: "/carts/{user_id}/items" response_body: "items" }
            };
        }
    }
"#;

fn faults(description: &Description) -> Vec<String> {
    check(description).err().expect("the description is faulty")
}

fn checked(description: &Description) -> Checked {
    check(description).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn cart() -> Description {
    describe(CART, &[("shop.Carts", "cart")])
}

#[test]
fn a_faultless_description_becomes_services_with_the_hosts_defaults() {
    let checked = checked(&cart());
    let [cart] = checked.entity_types.as_slice() else { panic!("one entity type") };
    assert_eq!(cart.name.service.as_str(), "shop.Carts");
    assert_eq!(cart.name.journal.as_str(), "cart");
    assert_eq!(cart.snapshot_every, SNAPSHOT_EVERY_DEFAULT);
    assert_eq!(cart.passivate_after, PASSIVATE_AFTER_DEFAULT);
    assert_eq!(cart.limits.memory_bytes_max, GUEST_MEMORY_BYTES_DEFAULT);
    assert_eq!(cart.limits.deadline, GUEST_DEADLINE_DEFAULT);
    assert_eq!(cart.methods.keys().map(|name| &**name).collect::<Vec<_>>(), ["Add", "Get"]);
    assert_eq!(&*cart.methods["Add"].path, "/shop.Carts/Add");
    assert_eq!(
        cart.methods["Get"].key.as_ref().unwrap().read(b"\x0a\x03ada").unwrap().as_str(),
        "ada"
    );
}

#[test]
fn the_http_rule_comes_with_its_bindings() {
    let checked = checked(&cart());
    let method = &checked.entity_types[0].methods["Get"];
    let rule = descriptor::http_rule(&method.descriptor).unwrap();
    assert_eq!(rule.additional_bindings[0].response_body, "items");
}

#[test]
fn settings_are_taken_over() {
    let mut description = cart();
    description.entity_types[0].settings = vec![
        Setting { name: "memory-max-mib".into(), value: "1024".into() },
        Setting { name: "deadline-ms".into(), value: "1".into() },
    ];
    let checked = checked(&description);
    assert_eq!(checked.entity_types[0].limits.memory_bytes_max, GUEST_MEMORY_BYTES_MAX);
    assert_eq!(checked.entity_types[0].limits.deadline, Duration::from_millis(1));
}

#[test]
fn settings_that_are_unknown_or_out_of_range_are_refused() {
    let mut description = cart();
    let setting = |name: &str, value: &str| Setting { name: name.into(), value: value.into() };
    description.entity_types[0].settings = vec![
        setting("memory-max-mib", "1025"),
        setting("deadline-ms", "soon"),
        setting("colour", "red"),
    ];
    assert_eq!(
        faults(&description),
        [
            r#"shop.Carts: the setting memory-max-mib is "1025"; it must be a number from 1 to 1024"#,
            r#"shop.Carts: the setting deadline-ms is "soon"; it must be a number from 1 to 60000"#,
            r#"shop.Carts: this host has no setting "colour"; those it knows: memory-max-mib, deadline-ms, history, source, version"#,
        ]
    );
}

#[test]
fn every_kind_of_entity_is_taken_and_a_value_entity_may_ask_for_a_history() {
    for kind in [Kind::EventSourced, Kind::Value, Kind::Workflow] {
        let mut description = cart();
        description.entity_types[0].kind = kind.name().into();
        let plain = checked(&description);
        assert_eq!(plain.entity_types[0].name.kind, kind);
        assert_eq!(plain.entity_types[0].history, 1);
        let history = |states: &str| Setting { name: "history".into(), value: states.into() };
        description.entity_types[0].settings = vec![history("1000")];
        if kind == Kind::Value {
            assert_eq!(checked(&description).entity_types[0].history, 1_000);
            description.entity_types[0].settings = vec![history("1001")];
            assert!(faults(&description)[0].contains("a number from 1 to 1000"));
        } else {
            let alone = "shop.Carts: the setting history is for value entities alone";
            assert_eq!(faults(&description), [alone]);
        }
    }
}

#[test]
fn a_kind_needs_its_interface() {
    let mut description = cart();
    description.interfaces = Interfaces { entity: false, action: true, view: true };
    assert_eq!(
        faults(&description),
        [
            "shop.Carts: its kind event-sourced needs the interface stead:function/entity, which the \
          component does not export"
        ]
    );
}

#[test]
fn a_module_without_entity_types_is_refused() {
    assert_eq!(faults(&describe(CART, &[])), ["the module describes no entity type"]);
}

#[test]
fn too_many_entity_types_are_refused() {
    let description = describe(CART, &[("shop.Carts", "cart"); ENTITY_TYPES_PER_MODULE_MAX + 1]);
    assert_eq!(faults(&description), ["the module describes 257 entity types; the limit is 256"]);
}

#[test]
fn all_faults_are_told_at_once() {
    let mut description = describe(
        CART,
        &[("shop.Carts", "cart"), ("shop.Carts", "cart"), ("shop.Gone", ""), ("grpc.X", "a b")],
    );
    description.entity_types[0].kind = "replicated".into();
    assert_eq!(
        faults(&description),
        [
            "shop.Carts: the module describes this service twice",
            r#"shop.Carts: another entity type has the journal name "cart" too"#,
            r#"shop.Carts: this host has no kind "replicated"; the kinds it knows: event-sourced, value, workflow, action, view"#,
            r#"shop.Gone: the journal name "" is not 1 to 128 characters of A-Za-z0-9._-"#,
            "shop.Gone: no such service in the file descriptor set",
            "grpc.X: the package grpc.* belongs to the host",
            r#"grpc.X: the journal name "a b" is not 1 to 128 characters of A-Za-z0-9._-"#,
            "grpc.X: no such service in the file descriptor set",
        ]
    );
}

#[test]
fn a_journal_name_may_be_as_long_as_the_limit_but_no_longer() {
    let long = "j".repeat(JOURNAL_NAME_BYTES_MAX);
    assert!(check(&describe(CART, &[("shop.Carts", &long)])).is_ok());
    assert_eq!(faults(&describe(CART, &[("shop.Carts", &format!("{long}j"))])).len(), 1);
}

#[test]
fn methods_without_a_usable_key_are_refused() {
    let description = describe(
        r#"
        syntax = "proto3";
        package t;
        import "stead/options.proto";
        message None { string a = 1; string b = 2 [(stead.entity_key) = false]; }
        message Bad {
            double a = 1 [(stead.entity_key) = true];
            bytes b = 2 [(stead.entity_key) = true];
            repeated string c = 3 [(stead.entity_key) = true];
            map<string, string> d = 4 [(stead.entity_key) = true];
            None e = 5 [(stead.entity_key) = true];
            oneof f { string g = 6 [(stead.entity_key) = true]; }
            optional string h = 7 [(stead.entity_key) = true];
        }
        service S {
            rpc A(None) returns (None);
            rpc B(Bad) returns (None);
        }
        "#,
        &[("t.S", "s")],
    );
    let ending = "; a key must be a single string, integer, bool or enum";
    assert_eq!(
        faults(&description),
        [
            "t.S.A: its request t.None has no entity key; mark the field that says which entity it \
             is for with [(stead.entity_key) = true]"
                .to_owned(),
            format!("t.S.B: the entity key a of its request t.Bad is a floating-point number{ending}"),
            format!("t.S.B: the entity key b of its request t.Bad is bytes{ending}"),
            format!("t.S.B: the entity key c of its request t.Bad is repeated{ending}"),
            format!("t.S.B: the entity key d of its request t.Bad is a map{ending}"),
            format!("t.S.B: the entity key e of its request t.Bad is a message{ending}"),
            format!(
                "t.S.B: the entity key g of its request t.Bad is in a oneof, so that a request may be \
                 without it{ending}"
            ),
        ]
    );
}

#[test]
fn streaming_methods_are_refused() {
    let description = describe(
        r#"
        syntax = "proto3";
        package t;
        import "stead/options.proto";
        message M { string id = 1 [(stead.entity_key) = true]; }
        service S { rpc Watch(M) returns (stream M); }
        "#,
        &[("t.S", "s")],
    );
    assert_eq!(
        faults(&description),
        ["t.S.Watch: it streams, which an entity cannot; make it unary"]
    );
}

#[test]
fn http_rules_that_name_fields_which_do_not_exist_are_refused() {
    let description = describe(
        r#"
        syntax = "proto3";
        package t;
        import "stead/options.proto";
        import "google/api/annotations.proto";
        message M { string id = 1 [(stead.entity_key) = true]; repeated string list = 2; }
        service S {
            rpc A(M) returns (M) {
                option (google.api.http) = {
                    post: "/a/{user}/{id.x}/{list}/{id}" body: "thing" response_body: "other"
                };
            }
        }
        "#,
        &[("t.S", "s")],
    );
    let template = "t.S.A: its http template /a/{user}/{id.x}/{list}/{id} names the field";
    assert_eq!(
        faults(&description),
        [
            format!("{template} user, which t.M does not have"),
            format!("{template} id.x, but t.M.id is not a message"),
            format!("{template} list, which is repeated"),
            "t.S.A: its http body names the field thing, which t.M does not have".to_owned(),
            "t.S.A: its http response_body names the field other, which t.M does not have"
                .to_owned(),
        ]
    );
}

#[test]
fn garbage_for_a_descriptor_set_is_a_fault_among_others() {
    let mut description = cart();
    description.file_descriptor_set = b"not a descriptor set".to_vec();
    description.entity_types[0].kind = "view".into();
    let faults = faults(&description);
    assert!(faults[0].starts_with("the file descriptor set is invalid: "), "{}", faults[0]);
    assert_eq!(faults.len(), 2);
}

#[test]
fn endless_faults_are_cut_short() {
    let names: Vec<String> = (0..200).map(|n| format!("t.{}{n}", "x".repeat(10_000))).collect();
    let types: Vec<_> = names.iter().map(|name| (name.as_str(), "j")).collect();
    let faults = faults(&describe(CART, &types));
    assert_eq!(faults.len(), FAULTS_TOLD_MAX + 1);
    assert!(faults.iter().all(|fault| fault.len() < 3_000));
}
