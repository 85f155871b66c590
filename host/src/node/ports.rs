//! The addresses of a node: binding them, and telling others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use tokio::net::{TcpListener, TcpSocket};

use crate::words::config::{ClusterConfig, Config};
use crate::words::limits;

/// All that a node has to do with its addresses, as far as it can be done before the node serves.
pub struct Ports {
    pub services: Reserved,
    pub admin: Reserved,
    /// Of a member of a cluster.
    pub peer: Option<PeerPort>,
    pub addresses: Addresses,
    pub file: Option<PortsFile>,
}

impl Ports {
    pub fn prepare(config: &Config) -> anyhow::Result<Self> {
        let services = Reserved::bind(config.listen, "--listen")?;
        let admin = Reserved::bind(config.admin, "--admin")?;
        let peer = config.cluster.as_ref().map(bind_peer).transpose()?;
        let addresses = Addresses {
            services: services.address,
            admin: admin.address,
            peer: peer.as_ref().map(|peer| peer.address),
            tls: config.tls.is_some(),
        };
        let file = config.ports_file.as_deref();
        let file = file.map(|path| PortsFile::prepare(path, &addresses)).transpose()?;
        Ok(Self { services, admin, peer, addresses, file })
    }
}

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

/// An address that is this process's, and lets nobody in yet: who calls it is refused at once, and does not
/// wait for a start that may fail.
pub struct Reserved {
    socket: TcpSocket,
    pub address: SocketAddr,
    flag: &'static str,
}

impl Reserved {
    /// `flag` is how to choose another address.
    pub fn bind(address: SocketAddr, flag: &'static str) -> anyhow::Result<Self> {
        let bound = bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.map_err(|error| anyhow!(explain(&error, address, flag)))?;
        Ok(Self { socket, address, flag })
    }

    /// Fails if another process, that takes lingering ports as well, listens there since.
    pub fn listen(self) -> anyhow::Result<TcpListener> {
        let Self { socket, address, flag } = self;
        let listener = socket.listen(limits::ACCEPT_BACKLOG);
        listener.map_err(|error| anyhow!(explain(&error, address, flag)))
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted node takes its port back from connections that linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
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
    /// What other nodes are told.
    pub address: SocketAddr,
}

fn bind_peer(config: &ClusterConfig) -> anyhow::Result<PeerPort> {
    let mut attempts = limits::PEER_BIND_ATTEMPTS_MAX;
    loop {
        let listener = Reserved::bind(config.peer, "--peer")?.listen()?;
        let bound = listener.local_addr()?;
        match UdpSocket::bind(bound) {
            Ok(gossip) => {
                return Ok(PeerPort { listener, gossip, address: advertised(config, bound) });
            }
            // The free TCP port that was picked is no free UDP port.
            Err(error)
                if config.peer.port() == 0
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

fn advertised(config: &ClusterConfig, bound: SocketAddr) -> SocketAddr {
    let mut address = config.advertise.unwrap_or(bound);
    if address.port() == 0 {
        address.set_port(bound.port());
    }
    address
}

/// The addresses as `{"services": "http://..", "admin": "http://.."}`, with `"peer": "ip:port"` if the node is
/// a member of a cluster: written, and not yet where anybody looks for them.
pub struct PortsFile {
    path: PathBuf,
    partial: PathBuf,
}

impl PortsFile {
    pub fn prepare(path: &Path, addresses: &Addresses) -> anyhow::Result<Self> {
        let mut json = serde_json::json!({
            "services": addresses.services_url(),
            "admin": addresses.admin_url(),
        });
        if let Some(peer) = addresses.peer {
            json["peer"] = peer.to_string().into();
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let file = Self { path: path.to_owned(), partial: partial.into() };
        std::fs::write(&file.partial, format!("{json}\n")).with_context(|| file.fault())?;
        Ok(file)
    }

    /// Whoever sees the file sees all of it, and can connect.
    pub fn publish(self) -> anyhow::Result<()> {
        std::fs::rename(&self.partial, &self.path).with_context(|| self.fault())
    }

    fn fault(&self) -> String {
        format!("the ports file {} cannot be written", self.path.display())
    }
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

    fn local(flag: &'static str) -> Reserved {
        Reserved::bind("127.0.0.1:0".parse().unwrap(), flag).unwrap()
    }

    fn refusal<T>(result: anyhow::Result<T>) -> String {
        result.err().unwrap().to_string()
    }

    #[tokio::test]
    async fn a_taken_port_is_explained() {
        let first = local("--listen").listen().unwrap();
        let address = first.local_addr().unwrap();
        let error = refusal(Reserved::bind(address, "--admin"));
        let port = address.port();
        let expected =
            format!("port {port} is in use by another program; choose another with --admin");
        assert_eq!(error, expected);
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_explained() {
        let error = refusal(Reserved::bind("192.0.2.1:0".parse().unwrap(), "--listen"));
        assert!(error.starts_with("192.0.2.1 is not an address of this machine"), "{error}");
    }

    #[tokio::test]
    async fn a_reserved_port_lets_nobody_in_before_it_listens() {
        let reserved = local("--listen");
        let address = reserved.address;
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _listener = reserved.listen().unwrap();
        std::net::TcpStream::connect(address).unwrap();
    }

    #[tokio::test]
    async fn a_reserved_port_on_which_another_listens_is_explained() {
        let reserved = local("--listen");
        let _other = Reserved::bind(reserved.address, "--admin").unwrap().listen().unwrap();
        let error = refusal(reserved.listen());
        let sentence = "is in use by another program; choose another with --listen";
        assert!(error.ends_with(sentence), "{error}");
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
        let file = PortsFile::prepare(&path, &addresses).unwrap();
        assert!(!path.exists());
        file.publish().unwrap();
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
        let error = refusal(PortsFile::prepare(Path::new("/nowhere/ports.json"), &addresses));
        assert!(error.contains("/nowhere/ports.json"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.json");
        std::fs::create_dir(&path).unwrap();
        let file = PortsFile::prepare(&path, &addresses).unwrap();
        assert!(refusal(file.publish()).contains(&path.display().to_string()));
    }
}
