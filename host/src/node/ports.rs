//! The addresses of a node: binding them, and telling others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use anyhow::{Context, anyhow};
use tokio::net::{TcpListener, TcpSocket};

use crate::words::limits;

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub services: SocketAddr,
    pub admin: SocketAddr,
    /// Of a member of a cluster.
    pub peer: Option<SocketAddr>,
    /// Of the services port; the admin port has none.
    pub tls: bool,
}

impl Addresses {
    pub fn services_url(&self) -> String {
        url(if self.tls { "https" } else { "http" }, self.services)
    }

    pub fn admin_url(&self) -> String {
        url("http", self.admin)
    }
}

/// An address that a client on this machine can use.
fn url(scheme: &str, mut address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    format!("{scheme}://{address}")
}

/// Listens on an address; `flag` is how to choose another.
pub fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    listen(address).map_err(|error| anyhow!(explain(&error, address, flag)))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted node takes its port back from connections that linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::ACCEPT_BACKLOG)
}

fn explain(error: &io::Error, address: SocketAddr, flag: &str) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {port} is in use by another program; choose another with {flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            let ip = address.ip();
            format!("{ip} is not an address of this machine; choose another with {flag}")
        }
        io::ErrorKind::PermissionDenied => format!(
            "port {port} may only be used by privileged programs; choose one above 1023 with {flag}"
        ),
        _ => format!("cannot listen on {address}: {error}; choose another with {flag}"),
    }
}

/// Where other nodes reach this one: calls over TCP, gossip over UDP, on the same number.
pub struct PeerPort {
    pub listener: TcpListener,
    pub gossip: UdpSocket,
    pub address: SocketAddr,
}

pub fn bind_peer(address: SocketAddr) -> anyhow::Result<PeerPort> {
    let mut attempts = limits::PEER_BIND_ATTEMPTS_MAX;
    loop {
        let listener = bind(address, "--peer")?;
        let bound = listener.local_addr()?;
        match UdpSocket::bind(bound) {
            Ok(gossip) => return Ok(PeerPort { listener, gossip, address: bound }),
            // The free TCP port that was picked is no free UDP port.
            Err(error)
                if address.port() == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempts > 1 =>
            {
                attempts -= 1;
            }
            Err(error) => {
                return Err(anyhow!("{} (UDP, for gossip)", explain(&error, bound, "--peer")));
            }
        }
    }
}

/// Writes the addresses as `{"services": "http://..", "admin": "http://.."}`, with `"peer": "ip:port"` if
/// the node is a member of a cluster. Whoever sees the file
/// sees all of it, and can connect.
pub fn write_file(path: &Path, addresses: &Addresses) -> anyhow::Result<()> {
    let mut json = serde_json::json!({
        "services": addresses.services_url(),
        "admin": addresses.admin_url(),
    });
    if let Some(peer) = addresses.peer {
        json["peer"] = peer.to_string().into();
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, format!("{json}\n"))
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("the ports file {} cannot be written", path.display()))
}

/// The addresses are not true any more.
pub fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the ports file {} cannot be removed", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_explained() {
        let first = bind("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address, "--admin").unwrap_err().to_string();
        let port = address.port();
        let expected =
            format!("port {port} is in use by another program; choose another with --admin");
        assert_eq!(error, expected);
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_explained() {
        let error = bind("192.0.2.1:0".parse().unwrap(), "--listen").unwrap_err().to_string();
        assert!(error.starts_with("192.0.2.1 is not an address of this machine"), "{error}");
    }

    #[test]
    fn the_ports_file_holds_addresses_that_can_be_called() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        let addresses = Addresses {
            services: "0.0.0.0:7832".parse().unwrap(),
            admin: "[::1]:7833".parse().unwrap(),
            peer: Some("127.0.0.1:7834".parse().unwrap()),
            tls: true,
        };
        write_file(&path, &addresses).unwrap();
        let text: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(text["services"], "https://127.0.0.1:7832");
        assert_eq!(text["admin"], "http://[::1]:7833");
        assert_eq!(text["peer"], "127.0.0.1:7834");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        remove_file(&path);
        assert!(!path.exists());
    }

    #[test]
    fn a_ports_file_that_cannot_be_written_is_named() {
        let addresses = Addresses {
            services: "127.0.0.1:1".parse().unwrap(),
            admin: "127.0.0.1:2".parse().unwrap(),
            peer: None,
            tls: false,
        };
        let error = write_file(Path::new("/nowhere/ports.json"), &addresses).unwrap_err();
        assert!(error.to_string().contains("/nowhere/ports.json"));
    }
}
