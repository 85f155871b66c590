//! `stead services`: what can be called now.

use serde_json::{Value, json};
use stead_proto::admin::v1 as api;

use crate::cli::admin::Admin;
use crate::cli::args::ServicesArgs;
use crate::cli::deploy::short;
use crate::cli::failed::Failed;
use crate::cli::output::{Output, printable};
use crate::cli::render;

pub async fn run(args: ServicesArgs, out: &Output) -> Result<(), Failed> {
    let mut admin = Admin::connect(&args.port).await?;
    let answer = admin.services().await?;
    if out.is_json() {
        out.json(&json!({
            "revision": answer.revision,
            "services": answer.services.iter().map(render::service).collect::<Value>(),
            "broken_modules":
                answer.broken_modules.iter().map(render::broken_module).collect::<Value>(),
        }));
        return Ok(());
    }
    for module in &answer.broken_modules {
        out.warn(&format!(
            "module {} ({}) could not be loaded: {}",
            module.name,
            short(&module.digest),
            module.reason
        ));
    }
    for service in &answer.services {
        if let Some(crash) = &service.last_crash {
            out.warn(&printable(&crashed(&service.name, crash)));
        }
    }
    if answer.services.is_empty() {
        out.say("nothing is live yet; deploy a module with `stead deploy FILE`");
        return Ok(());
    }
    if args.methods {
        print_methods(&answer.services, out);
    } else {
        print(&answer.services, out);
    }
    Ok(())
}

fn crashed(service: &str, crash: &api::Crash) -> String {
    let when = render::time(crash.time.as_ref()).unwrap_or_default();
    let api::Crash { what, during, reason, .. } = crash;
    format!("{service} crashed last at {when}, {what} during {during}: {reason}")
}

pub fn print(services: &[api::Service], out: &Output) {
    let rows = services.iter().map(service_row).collect();
    out.table(["SERVICE", "KIND", "JOURNAL", "METHODS", "MODULE"], rows);
}

/// A table for each service; its own package is left out of names.
pub fn print_methods(services: &[api::Service], out: &Output) {
    for (at, service) in services.iter().enumerate() {
        if at > 0 {
            out.text("");
        }
        out.text(&printable(&service.name));
        out.table(["METHOD", "REQUEST", "REPLY", "HTTP"], method_rows(service));
    }
}

fn service_row(service: &api::Service) -> [String; 5] {
    [
        service.name.clone(),
        service.kind.clone(),
        service.journal.clone(),
        service.methods.len().to_string(),
        format!("{} {}", service.module_name, short(&service.module_digest)),
    ]
}

fn method_rows(service: &api::Service) -> Vec<[String; 4]> {
    let package = service.name.rsplit_once('.').map_or("", |(package, _)| package);
    let row = |method: &api::Method| {
        let http: Vec<String> =
            method.http.iter().map(|http| format!("{} {}", http.method, http.path)).collect();
        [
            method.name.clone(),
            within(package, &method.input_type),
            within(package, &method.output_type),
            http.join(", "),
        ]
    };
    service.methods.iter().map(row).collect()
}

fn within(package: &str, name: &str) -> String {
    let local = name.strip_prefix(package).and_then(|rest| rest.strip_prefix('.'));
    local.filter(|local| !local.contains('.')).unwrap_or(name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_told_with_its_service_and_reason() {
        let crash = api::Crash {
            time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            what: "trap".into(),
            during: "handle Check".into(),
            reason: "unreachable".into(),
            ..Default::default()
        };
        let told = crashed("shop.Fraud", &crash);
        assert!(told.starts_with("shop.Fraud crashed last at 1970-01-01"), "{told}");
        assert!(told.ends_with(", trap during handle Check: unreachable"), "{told}");
    }

    #[test]
    fn methods_are_shown_with_all_their_addresses_and_local_names() {
        let http = |method: &str, path: &str| api::HttpBinding {
            method: method.into(),
            path: path.into(),
            body: String::new(),
        };
        let service = api::Service {
            name: "shop.Cart".into(),
            methods: vec![api::Method {
                name: "Get".into(),
                input_type: "shop.GetRequest".into(),
                output_type: "google.protobuf.Empty".into(),
                http: vec![http("GET", "/carts/{id}"), http("POST", "/carts/{id}:get")],
            }],
            ..Default::default()
        };
        let rows = method_rows(&service);
        assert_eq!(rows[0][..3], ["Get", "GetRequest", "google.protobuf.Empty"]);
        assert_eq!(rows[0][3], "GET /carts/{id}, POST /carts/{id}:get");
    }
}
