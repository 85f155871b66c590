//! Calls that a person can try on a service that is live.

use stead_proto::admin::v1 as api;

const SERVICES_SHOWN_MAX: usize = 3;

/// For each service one call with `stead call`, and the same with curl if it has an HTTP binding.
pub fn first_calls(services: &[&api::Service], url: &str) -> Option<String> {
    let shown = services.iter().take(SERVICES_SHOWN_MAX);
    let lines: Vec<String> = shown.flat_map(|service| lines(service, url)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn lines(service: &api::Service, url: &str) -> Vec<String> {
    // What only reads is safe to try.
    let reads = |method: &&api::Method| method.http.iter().any(|binding| binding.method == "GET");
    let Some(method) = service.methods.iter().find(reads).or(service.methods.first()) else {
        return Vec::new();
    };
    let mut lines =
        vec![format!("  stead call {}/{} '{}'", service.name, method.name, request(method))];
    if let Some(binding) = method.http.first() {
        lines.push(format!("  {}", curl(binding, url)));
    }
    lines
}

/// The fields that the path fills are certain to exist; one of them is usually the key.
fn request(method: &api::Method) -> String {
    let Some(binding) = method.http.first() else { return "{}".into() };
    let fields: Vec<String> = variables(&binding.path)
        .filter(|name| !name.contains('.'))
        .map(|name| format!("\"{}\":\"ada\"", json_name(name)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// `userId` of `user_id`.
fn json_name(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |mut name, part| {
        let mut letters = part.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

fn curl(binding: &api::HttpBinding, url: &str) -> String {
    let mut path = String::new();
    let mut rest = binding.path.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let (_, behind) = after.split_once('}').unwrap_or((after, ""));
        path.push_str(before);
        path.push_str("ada");
        rest = behind;
    }
    path.push_str(rest);
    let how =
        if binding.method == "GET" { String::new() } else { format!("-X {} ", binding.method) };
    let body =
        if binding.body.is_empty() { "" } else { " -H 'content-type: application/json' -d '{}'" };
    format!("curl {how}{}{path}{body}", url.trim_end_matches('/'))
}

/// `user_id` of `/carts/{user_id=users/*}/items`.
fn variables(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|part| {
        let variable = part.split('}').next()?;
        variable.split('=').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(method: &str, path: &str, body: &str) -> api::HttpBinding {
        api::HttpBinding { method: method.into(), path: path.into(), body: body.into() }
    }

    #[test]
    fn a_service_shows_a_call_that_only_reads() {
        let service = api::Service {
            name: "shop.Cart".into(),
            methods: vec![
                api::Method {
                    name: "AddItem".into(),
                    http: vec![binding("POST", "/cart/{user_id}/items/add", "*")],
                    ..Default::default()
                },
                api::Method {
                    name: "GetCart".into(),
                    http: vec![binding("GET", "/carts/{user_id}", "")],
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        assert_eq!(
            first_calls(&[&service], "http://h:1").unwrap(),
            "  stead call shop.Cart/GetCart '{\"userId\":\"ada\"}'\n  curl http://h:1/carts/ada"
        );
    }

    #[test]
    fn a_service_without_bindings_shows_a_call_only() {
        let method = api::Method { name: "Get".into(), ..Default::default() };
        let service =
            api::Service { name: "s.S".into(), methods: vec![method], ..Default::default() };
        assert_eq!(first_calls(&[&service], "http://h:1").unwrap(), "  stead call s.S/Get '{}'");
        assert_eq!(first_calls(&[], "http://h:1"), None);
    }

    #[test]
    fn templates_are_filled_and_bodies_given() {
        let curl = curl(&binding("POST", "/v1/{name=carts/*}/items:add", "*"), "http://h:1/");
        assert_eq!(
            curl,
            "curl -X POST http://h:1/v1/ada/items:add -H 'content-type: application/json' -d '{}'"
        );
        assert_eq!(variables("/a/{b=c/*}/{d.e}").collect::<Vec<_>>(), ["b", "d.e"]);
    }
}
