//! From what a person typed to one service and one method of those that exist.

use crate::cli::failed::Failed;
use crate::words::limits;

/// Names that are this far from what was typed, or nearer, are called similar.
const SIMILARITY_MIN: f64 = 0.8;

/// A name as typed: `pkg.Service/Method`, `Service/Method`, `pkg.Service.Method`, or a service alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub service: String,
    /// None where only a service was named.
    pub method: Option<String>,
}

/// Finds the service of what was typed; the method is not looked at yet.
pub fn target(typed: &str, services: &[String]) -> Result<Target, Failed> {
    let typed = typed.trim().trim_start_matches('/');
    if typed.is_empty() {
        return Err(Failed::usage("name a method, as in shop.ShoppingCart/AddItem"));
    }
    if let Some((service, method)) = typed.rsplit_once('/') {
        let service = service_named(service, services)?;
        let method = (!method.is_empty()).then(|| method.to_string());
        return Ok(Target { service, method });
    }
    if let Ok(service) = service_named(typed, services) {
        return Ok(Target { service, method: None });
    }
    match typed.rsplit_once('.') {
        Some((service, method)) if !method.is_empty() => {
            let service = service_named(service, services)?;
            Ok(Target { service, method: Some(method.into()) })
        }
        _ => Err(service_named(typed, services)
            .err()
            .unwrap_or_else(|| Failed::usage("name a method, as in shop.ShoppingCart/AddItem"))),
    }
}

/// A full name, or an end of one that is unique.
pub fn service_named(typed: &str, services: &[String]) -> Result<String, Failed> {
    if let Some(found) = by_end(typed, services) {
        return found;
    }
    if services.is_empty() {
        return Err(Failed::refused(format!(
            "the host has no service {typed}: nothing is deployed yet; deploy a module with `stead deploy FILE`"
        )));
    }
    Err(unknown(&format!("the host has no service {typed}"), "it has", typed, services))
}

/// None if no name is or ends in what was typed; an error if several do.
pub fn by_end(typed: &str, services: &[String]) -> Option<Result<String, Failed>> {
    if services.iter().any(|name| name == typed) {
        return Some(Ok(typed.into()));
    }
    for same in [same_end, same_end_in_any_case] {
        let mut found: Vec<&str> =
            services.iter().map(String::as_str).filter(|name| same(name, typed)).collect();
        found.sort_unstable();
        match found.as_slice() {
            [] => {}
            [one] => return Some(Ok((*one).to_string())),
            many => {
                return Some(Err(Failed::refused(format!(
                    "{typed} could be {}; write the full name",
                    many.join(" or ")
                ))));
            }
        }
    }
    None
}

/// The method of a service, by exact name or the same in another case.
pub fn method_named(
    service: &str,
    typed: Option<&str>,
    methods: &[String],
) -> Result<String, Failed> {
    let Some(typed) = typed else {
        let names: Vec<String> = methods.iter().map(|name| format!("{service}/{name}")).collect();
        return Err(Failed::usage(format!("name one of the methods: {}", listed(&names))));
    };
    if let Some(exact) = methods.iter().find(|name| *name == typed) {
        return Ok(exact.clone());
    }
    let found: Vec<&String> =
        methods.iter().filter(|name| name.eq_ignore_ascii_case(typed)).collect();
    if let [one] = found.as_slice() {
        return Ok((*one).clone());
    }
    Err(unknown(&format!("{service} has no method {typed}"), "it has", typed, methods))
}

/// `{what}; did you mean X? it has X, Y, Z`, the nearest first.
pub fn unknown(what: &str, has: &str, typed: &str, names: &[String]) -> Failed {
    let mut names = names.to_vec();
    names.sort_by(|a, b| similarity(b, typed).total_cmp(&similarity(a, typed)).then(a.cmp(b)));
    let hint = match names.first() {
        Some(best) if similarity(best, typed) >= SIMILARITY_MIN => {
            format!("; did you mean {best}?")
        }
        _ => ";".to_string(),
    };
    Failed::refused(format!("{what}{hint} {has} {}", listed(&names)))
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(limits::NAMES_TOLD_MAX).map(String::as_str).collect::<Vec<_>>();
    let more = names.len().saturating_sub(limits::NAMES_TOLD_MAX);
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// How near a name, or its last part, is to what was typed.
fn similarity(name: &str, typed: &str) -> f64 {
    let (name, typed) = (name.to_lowercase(), typed.to_lowercase());
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_string();
    strsim::jaro_winkler(&name, &typed).max(strsim::jaro_winkler(&last(&name), &last(&typed)))
}

fn same_end(name: &str, typed: &str) -> bool {
    name.strip_suffix(typed).is_some_and(|rest| rest.ends_with('.'))
}

fn same_end_in_any_case(name: &str, typed: &str) -> bool {
    let (name, typed) = (name.to_lowercase(), typed.to_lowercase());
    name == typed || same_end(&name, &typed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failed::Exit;

    fn services() -> Vec<String> {
        ["com.example.shoppingcart.ShoppingCart", "shop.v1.Cart", "shop.v2.Cart", "chat.Room"]
            .map(String::from)
            .to_vec()
    }

    fn find(typed: &str) -> Result<(String, Option<String>), String> {
        target(typed, &services())
            .map(|target| (target.service, target.method))
            .map_err(|failed| failed.message)
    }

    #[test]
    fn full_short_and_dotted_names_are_found() {
        let cart = "com.example.shoppingcart.ShoppingCart".to_string();
        let get = Some("GetCart".to_string());
        for typed in [
            "com.example.shoppingcart.ShoppingCart/GetCart",
            "/com.example.shoppingcart.ShoppingCart/GetCart",
            "ShoppingCart/GetCart",
            "shoppingcart/GetCart",
            "ShoppingCart.GetCart",
            "com.example.shoppingcart.ShoppingCart.GetCart",
        ] {
            assert_eq!(find(typed), Ok((cart.clone(), get.clone())), "{typed}");
        }
        assert_eq!(find("ShoppingCart"), Ok((cart, None)));
        assert_eq!(find("v2.Cart/Get").unwrap().0, "shop.v2.Cart");
    }

    #[test]
    fn an_ambiguous_name_lists_the_candidates() {
        let message = find("Cart/Get").unwrap_err();
        assert_eq!(message, "Cart could be shop.v1.Cart or shop.v2.Cart; write the full name");
    }

    #[test]
    fn an_unknown_service_lists_the_nearest_first() {
        let message = find("ShopingCart/GetCart").unwrap_err();
        assert!(
            message.starts_with(
                "the host has no service ShopingCart; did you mean com.example.shoppingcart.ShoppingCart? it has com.example.shoppingcart.ShoppingCart, "
            ),
            "{message}"
        );
        assert!(
            find("Zebra/Get").unwrap_err().starts_with("the host has no service Zebra; it has")
        );
    }

    #[test]
    fn an_unknown_method_lists_the_nearest_first() {
        let methods = ["AddItem", "GetCart", "RemoveItem"].map(String::from);
        let failed = method_named("shop.Cart", Some("AddItm"), &methods).unwrap_err();
        assert_eq!(failed.exit, Exit::Refused);
        assert_eq!(
            failed.message,
            "shop.Cart has no method AddItm; did you mean AddItem? it has AddItem, RemoveItem, GetCart"
        );
        assert_eq!(method_named("shop.Cart", Some("getcart"), &methods).unwrap(), "GetCart");
    }

    #[test]
    fn a_service_alone_asks_for_a_method() {
        let failed = method_named("shop.Cart", None, &["Get".to_string()]).unwrap_err();
        assert_eq!(failed.exit, Exit::Usage);
        assert_eq!(failed.message, "name one of the methods: shop.Cart/Get");
    }

    #[test]
    fn a_host_without_services_says_how_to_deploy() {
        let failed = target("shop.Cart/Get", &[]).unwrap_err();
        assert!(failed.message.contains("stead deploy FILE"), "{failed}");
    }

    #[test]
    fn nothing_typed_is_a_usage_error() {
        assert_eq!(target("", &services()).unwrap_err().exit, Exit::Usage);
        assert_eq!(target(" / ", &services()).unwrap_err().exit, Exit::Usage);
    }
}
