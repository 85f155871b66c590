//! What a node says when it is ready.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::gateway::admin::Admin;
use crate::node::ports::Addresses;
use crate::node::{WASMTIME_VERSION, live};
use crate::words::config::Config;

/// To stderr; with JSON logs it is one line of them.
/// `store` is the name of a cluster's.
pub fn print(config: &Config, addresses: &Addresses, admin: &Admin, store: &str) {
    let now = admin.registry.live();
    let data_dir = admin.about.data_dir.display().to_string();
    let facts = Facts {
        addresses,
        token: config.admin_token.is_some(),
        data_dir: &data_dir,
        cluster: addresses.peer.map(|peer| (peer.to_string(), store)),
        live: &live(now.revision, now.services.len()),
        empty: now.services.is_empty(),
    };
    for (digest, reason) in &now.broken {
        tracing::error!(module = %digest.short(), reason, "a deployed module cannot be served");
    }
    if config.log_json {
        let (services, admin) = (addresses.services_url(), addresses.admin_url());
        tracing::info!(services, admin, data_dir, live = facts.live, "ready");
    } else {
        // Nobody reads it; that is no reason to end.
        let _ = io::stderr().write_all(facts.text().as_bytes());
    }
    if !addresses.admin.ip().is_loopback() {
        tracing::warn!(
            "the admin API on {} is not encrypted; keep it in a private network",
            addresses.admin
        );
    }
}

struct Facts<'a> {
    addresses: &'a Addresses,
    token: bool,
    data_dir: &'a str,
    /// The peer address and the store of a member.
    cluster: Option<(String, &'a str)>,
    live: &'a str,
    empty: bool,
}

impl Facts<'_> {
    fn text(&self) -> String {
        let (services, admin) = (self.addresses.services_url(), self.addresses.admin_url());
        let width = services.len().max(admin.len());
        let guard = match (self.token, self.addresses.admin.ip().is_loopback()) {
            (true, true) => "with the admin token, from this machine",
            (true, false) => "with the admin token, from every machine that reaches it",
            (false, _) => "from this machine only, because STEAD_ADMIN_TOKEN is not set",
        };
        let mut text =
            format!("\nstead {} (wasmtime {WASMTIME_VERSION})\n\n", env!("CARGO_PKG_VERSION"),);
        for (name, value, what) in [
            ("services", services.as_str(), "gRPC, gRPC-Web, Connect, HTTP/JSON"),
            ("admin", admin.as_str(), guard),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<10}{value:<width$}  {what}");
        }
        match &self.cluster {
            None => {
                let _ = writeln!(text, "  {:<10}{} (SQLite)", "data", self.data_dir);
            }
            Some((peer, store)) => {
                let _ = writeln!(text, "  {:<10}{peer:<width$}  for other nodes", "peer");
                let _ = writeln!(text, "  {:<10}{store} (PostgreSQL)", "store");
                let _ = writeln!(text, "  {:<10}{}", "data", self.data_dir);
            }
        }
        let _ = writeln!(text, "  {:<10}{}", "live", self.live);
        if self.empty {
            text.push_str("\n  Next: stead deploy cart.wasm\n");
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(admin: &str, token: bool) -> String {
        let addresses = Addresses {
            services: "127.0.0.1:7832".parse().unwrap(),
            admin: admin.parse().unwrap(),
            peer: None,
            tls: false,
        };
        let facts = Facts {
            addresses: &addresses,
            token,
            data_dir: "/srv/stead-data",
            cluster: None,
            live: "nothing deployed yet",
            empty: true,
        };
        facts.text()
    }

    #[test]
    fn says_where_what_is_served() {
        let text = text("127.0.0.1:7833", false);
        assert!(text.contains("  services  http://127.0.0.1:7832  gRPC,"), "{text}");
        assert!(text.contains("  data      /srv/stead-data (SQLite)"), "{text}");
        assert!(text.contains("Next: stead deploy"), "{text}");
    }

    #[test]
    fn says_who_may_use_the_admin_port() {
        assert!(text("127.0.0.1:7833", false).contains("because STEAD_ADMIN_TOKEN is not set"));
        assert!(text("127.0.0.1:7833", true).contains("with the admin token, from this machine"));
        assert!(text("0.0.0.0:7833", true).contains("from every machine"));
    }
}
