//! What the guests of this repository import.

use stead_tests::files;

/// Names of imports stand in a component as they are.
fn names(guest: &str, interface: &str) -> bool {
    let bytes = std::fs::read(files::guest(guest)).expect("the component can be read");
    bytes.windows(interface.len()).any(|window| window == interface.as_bytes())
}

#[test]
fn only_modules_with_actions_import_the_calls_of_the_host() {
    assert!(names("tck-every-kind", "stead:function/calls"));
    assert!(!names("shopping-cart", "stead:function/calls"));
}
