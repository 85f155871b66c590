//! A network of its own for each node: namespaces on a bridge, so that partitions are packets that the
//! kernel drops. Needs root, `ip` and `nft`.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Deleted when it is dropped.
pub struct Net {
    bridge: String,
    /// The first three bytes of every address.
    prefix: [u8; 3],
    nodes: Vec<String>,
}

/// What a node does not send or does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drops {
    Incoming,
    Outgoing,
    Both,
}

impl Net {
    /// Why there can be none here.
    pub fn missing() -> Option<String> {
        // SAFETY: takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return Some("network namespaces need root".into());
        }
        for (tool, package) in [("ip", "iproute2"), ("nft", "nftables")] {
            let mut version = Command::new(tool);
            version.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
            if !version.status().is_ok_and(|status| status.success()) {
                return Some(format!("`{tool}` is missing: `apt-get install {package}`"));
            }
        }
        // A container may be root and have no right to this nevertheless.
        let name = format!("stead-try-{}", std::process::id());
        let tried = run("ip", &["netns", "add", &name]);
        let _ = run("ip", &["netns", "delete", &name]);
        tried.err()
    }

    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        // Addresses by process and network, so that test processes do not meet.
        let prefix = [10, 64 + (id % 128) as u8, (id / 128 + 7 * count) as u8];
        let net = Self { bridge: format!("st{:x}{count}", id % 0xffff), prefix, nodes: Vec::new() };
        net.must("ip", &["link", "add", &net.bridge, "type", "bridge"]);
        let address = format!("{}/24", net.outside());
        net.must("ip", &["address", "add", &address, "dev", &net.bridge]);
        net.must("ip", &["link", "set", &net.bridge, "up"]);
        net
    }

    /// This process, as the nodes see it.
    pub fn outside(&self) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, 1)
    }

    pub fn address(&self, node: usize) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, 10 + node as u8)
    }

    pub fn namespace(&self, node: usize) -> &str {
        &self.nodes[node]
    }

    /// A network for one node more.
    pub fn add(&mut self) {
        let node = self.nodes.len();
        let name = format!("{}-{node}", self.bridge);
        let (outer, inner) = (format!("{}o{node}", self.bridge), "eth0");
        let address = format!("{}/24", self.address(node));
        self.must("ip", &["netns", "add", &name]);
        self.nodes.push(name.clone());
        let pair = ["type", "veth", "peer", "name", inner, "netns", &name];
        self.must("ip", &[&["link", "add", &outer][..], &pair].concat());
        self.must("ip", &["link", "set", &outer, "master", &self.bridge, "up"]);
        self.must("ip", &["-n", &name, "address", "add", &address, "dev", inner]);
        self.must("ip", &["-n", &name, "link", "set", inner, "up"]);
        self.must("ip", &["-n", &name, "link", "set", "lo", "up"]);
        for (chain, hook) in [("in", "input"), ("out", "output")] {
            if chain == "in" {
                self.nft(node, "add table inet stead");
            }
            let rule =
                format!("add chain inet stead {chain} {{ type filter hook {hook} priority 0; }}");
            self.nft(node, &rule);
        }
    }

    /// Cuts a node off from an address.
    pub fn cut(&self, node: usize, from: Ipv4Addr, drops: Drops) {
        if drops != Drops::Outgoing {
            self.nft(node, &format!("add rule inet stead in ip saddr {from} drop"));
        }
        if drops != Drops::Incoming {
            self.nft(node, &format!("add rule inet stead out ip daddr {from} drop"));
        }
    }

    /// Loses some of the packets that the node gets, at most 99 %, those from outside the cluster excepted.
    pub fn lose(&self, node: usize, percent: u32) {
        let outside = self.outside();
        self.nft(
            node,
            &format!(
                "add rule inet stead in ip saddr != {outside} numgen random mod 100 < {percent} drop"
            ),
        );
    }

    /// Everything gets through again.
    pub fn heal(&self, node: usize) {
        self.nft(node, "flush table inet stead");
    }

    fn nft(&self, node: usize, command: &str) {
        self.must("ip", &["netns", "exec", &self.nodes[node], "nft", command]);
    }

    fn must(&self, program: &str, arguments: &[&str]) {
        run(program, arguments).unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in &self.nodes {
            let _ = run("ip", &["netns", "delete", node]);
        }
        let _ = run("ip", &["link", "delete", &self.bridge]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("cannot start {program}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), complaint.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(net: &Net, from: usize, to: Ipv4Addr) -> bool {
        // Bash alone connects: there is no tool that every machine has.
        let connect = format!("timeout 1 bash -c 'echo > /dev/tcp/{to}/7' 2>&1");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", net.namespace(from), "sh", "-c", &connect]);
        let told = command.output().expect("ip");
        // Nobody listens: a refusal has crossed the network both ways.
        String::from_utf8_lossy(&told.stdout).contains("refused")
    }

    #[test]
    fn nodes_reach_each_other_until_they_are_cut_off() {
        if let Some(reason) = Net::missing() {
            eprintln!("SKIPPED: {reason}");
            return;
        }
        let mut net = Net::new();
        net.add();
        net.add();
        let (one, other, outside) = (net.address(0), net.address(1), net.outside());
        assert!(reaches(&net, 0, other) && reaches(&net, 0, outside));
        for drops in [Drops::Incoming, Drops::Outgoing, Drops::Both] {
            net.cut(0, other, drops);
            assert!(!reaches(&net, 0, other), "{drops:?}");
            assert!(!reaches(&net, 1, one), "{drops:?}");
            assert!(reaches(&net, 0, outside), "{drops:?}");
            net.heal(0);
            assert!(reaches(&net, 0, other), "{drops:?}");
        }
        net.lose(0, 99);
        assert!(reaches(&net, 0, outside));
    }
}
