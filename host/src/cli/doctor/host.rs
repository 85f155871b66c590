//! Whether a host runs, and how it is.

use tokio::net::TcpStream;

use stead_proto::admin::v1 as api;

use crate::cli::admin::Admin;
use crate::cli::args::DoctorArgs;
use crate::cli::doctor::Check;
use crate::cli::failed::Exit;
use crate::cli::render;
use crate::words::limits;

pub async fn ports(args: &DoctorArgs) -> Vec<Check> {
    let mut checks = Vec::new();
    let admin = listens(&args.port.admin_url).await;
    let services = listens(&args.services.url).await;
    if admin {
        checks.extend(ask(args).await);
    } else {
        checks.push(Check::ok(
            "admin_port",
            format!("nothing listens at {}: `stead serve` can", args.port.admin_url),
        ));
    }
    checks.push(match (services, admin) {
        (true, true) => {
            Check::ok("services_port", format!("something answers at {}", args.services.url))
        }
        (true, false) => Check::fail(
            "services_port",
            format!(
                "{} is in use, but by no stead with its admin API at {}; choose another port with `stead serve --listen`, or name the host with --admin-url",
                args.services.url, args.port.admin_url
            ),
        ),
        (false, true) => Check::warn(
            "services_port",
            format!("nothing answers at {}; name the services port with --url", args.services.url),
        ),
        (false, false) => Check::ok(
            "services_port",
            format!("nothing listens at {}: `stead serve` can", args.services.url),
        ),
    });
    checks
}

async fn ask(args: &DoctorArgs) -> Vec<Check> {
    let url = &args.port.admin_url;
    let asked = async {
        let mut admin = Admin::connect(&args.port).await?;
        let node = admin.client.get_node(api::GetNodeRequest {}).await;
        let node = node.map_err(|status| admin.failed(status))?.into_inner();
        let broken = admin.services().await?.broken_modules;
        Ok::<_, crate::cli::failed::Failed>((node, broken))
    };
    let answer = tokio::time::timeout(limits::CLIENT_CONNECT_TIMEOUT, asked).await;
    match answer {
        Ok(Ok((node, broken))) => judge(url, &node, &broken),
        Ok(Err(failed)) if failed.exit == Exit::Refused => {
            vec![Check::warn("admin_port", failed.message)]
        }
        Ok(Err(failed)) => vec![Check::fail(
            "admin_port",
            format!(
                "{url} is in use, but not by a stead: {}; choose another port with `stead serve --admin`",
                failed.message
            ),
        )],
        Err(_) => vec![Check::fail("admin_port", format!("{url} accepts, but does not answer"))],
    }
}

fn judge(url: &str, node: &api::Node, broken: &[api::BrokenModule]) -> Vec<Check> {
    let mut checks = Vec::new();
    let ours = env!("CARGO_PKG_VERSION");
    let started = render::time(node.start_time.as_ref()).unwrap_or_default();
    let running = format!(
        "stead {} answers at {url}, started {started}, data in {}",
        node.version, node.data_dir
    );
    checks.push(if node.version == ours {
        Check::ok("admin_port", running)
    } else {
        Check::warn("admin_port", format!("{running}; this command is version {ours}"))
    });
    checks.push(if node.journal_stopped.is_empty() {
        Check::ok(
            "host",
            format!(
                "ready, revision {}, {} hot entities, {} commands in flight",
                node.revision, node.hot_entities, node.commands_in_flight
            ),
        )
    } else {
        Check::fail(
            "host",
            format!("writes nothing any more: {}; restart it", node.journal_stopped),
        )
    });
    checks.extend(broken.iter().map(|module| {
        Check::fail(
            "module",
            format!(
                "{} could not be loaded: {}; to try at once, deploy it again at this node",
                module.name, module.reason
            ),
        )
    }));
    checks
}

async fn listens(url: &str) -> bool {
    let Some(address) = address(url) else { return false };
    let connect = TcpStream::connect(address);
    matches!(tokio::time::timeout(limits::CLIENT_CONNECT_TIMEOUT, connect).await, Ok(Ok(_)))
}

/// Host and port of an URL, whose scheme may be left out.
fn address(url: &str) -> Option<(String, u16)> {
    let url = if url.contains("://") { url.to_string() } else { format!("http://{url}") };
    let url: http::Uri = url.parse().ok()?;
    let host = url.host()?.trim_start_matches('[').trim_end_matches(']').to_string();
    let usual = if url.scheme_str() == Some("https") { 443 } else { 80 };
    Some((host, url.port_u16().unwrap_or(usual)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Outcome;

    fn node() -> api::Node {
        api::Node { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() }
    }

    #[test]
    fn a_host_that_stopped_writing_fails() {
        let stopped = api::Node { journal_stopped: "the disk is full".into(), ..node() };
        let checks = judge("http://h", &stopped, &[]);
        assert_eq!(checks[1].outcome, Outcome::Fail);
        assert!(checks[1].message.contains("the disk is full"));
    }

    #[test]
    fn a_host_of_another_version_is_a_warning() {
        let checks = judge("http://h", &api::Node { version: "9.9.9".into(), ..node() }, &[]);
        assert_eq!(checks[0].outcome, Outcome::Warn);
        assert!(checks.iter().skip(1).all(|check| check.outcome == Outcome::Ok));
    }

    #[test]
    fn broken_modules_are_named() {
        let module = api::BrokenModule { name: "cart.wasm".into(), ..Default::default() };
        let checks = judge("http://h", &node(), &[module]);
        assert!(checks[2].message.starts_with("cart.wasm could not be loaded"));
    }

    #[tokio::test]
    async fn a_port_is_free_or_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        assert!(listens(&url).await);
        drop(listener);
        assert!(!listens(&url).await);
    }

    #[test]
    fn addresses_of_urls_have_a_port() {
        let of = |url| address(url).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(of("http://[::1]:7832/").as_deref(), Some("::1 7832"));
        assert_eq!(of("127.0.0.1:7833").as_deref(), Some("127.0.0.1 7833"));
        assert_eq!(of("https://shop.example").as_deref(), Some("shop.example 443"));
        assert_eq!(of("not a url"), None);
    }
}
