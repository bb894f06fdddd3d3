//! What a cluster stands on: addresses of this machine's loopback, or a network with a namespace for each host.
//!
//! Loopback needs no rights and cannot be cut. In namespaces each host has an interface of its own on a bridge, at which this
//! machine, its clients and HAProxy are another host: there a host falls silent, or loses sight of some others, by rules of the firewall in its own
//! namespace, which nothing else of this machine notices.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::layout::MEMBERS;
use crate::tool;

/// Connections of clients from these ports pass every cut: who sits on an isolated host does not notice that it is isolated.
///
/// Above the ports that Linux gives to whoever asks for any.
pub(crate) const BESIDE: std::ops::Range<u16> = 61_000..65_000;

/// The last byte of the addresses of hosts.
pub(crate) const POSTGRES: u8 = 11;
/// The last byte of the addresses of etcd's members.
pub(crate) const ETCD: u8 = 21;

/// Whom a host does not hear, and who does not hear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Everybody, and clients beside it as well: it has no power.
    Silent,
    /// Everybody but clients beside it.
    All,
    /// etcd.
    Etcd,
    /// The other hosts.
    Hosts,
}

/// The network of one cluster; it goes when this does.
#[derive(Debug)]
pub(crate) struct Network {
    block: u8,
}

impl Network {
    /// The first network that does not exist.
    ///
    /// # Errors
    /// [`Error::Unable`] without the rights or the programs for it.
    pub(crate) fn create() -> Result<Self> {
        if !rustix::process::getuid().is_root() {
            let text = "hosts with networks of their own take root: run with sudo, or with --hosts loopback";
            return Err(Error::Unable(text.into()));
        }
        let free = |block: &u8| !Path::new("/sys/class/net").join(door(*block)).exists();
        let block = (0..=u8::MAX).find(free).ok_or_else(|| {
            Error::Unable("256 networks of clusters are in use: see `ip link` and `ip netns`".into())
        })?;
        // From here on what was made goes again.
        let network = Self { block };
        network.build()?;
        Ok(network)
    }

    /// The third byte of its addresses.
    pub(crate) fn block(&self) -> u8 {
        self.block
    }

    fn build(&self) -> Result<()> {
        let (block, switch) = (self.block, switch(self.block));
        // The bridge is in a namespace of its own, too: firewalls that others have here, Docker's most of all, may look into bridges.
        ip(&["netns", "add", &switch])?;
        let at_switch = |words: &[&str]| ip(&[&["-n", &switch], words].concat());
        at_switch(&["link", "add", "bridge", "type", "bridge"])?;
        at_switch(&["link", "set", "bridge", "up"])?;
        let plug = |port: &str| at_switch(&["link", "set", port, "master", "bridge", "up"]);
        let at = |host: u8| format!("{}/24", address(block, host));
        let door = door(block);
        ip(&[
            "link", "add", &door, "type", "veth", "peer", "name", "door", "netns", &switch,
        ])?;
        ip(&["addr", "add", &at(1), "dev", &door])?;
        ip(&["link", "set", &door, "up"])?;
        plug("door")?;
        for host in hosts() {
            let (space, port) = (namespace(block, host), format!("port{host}"));
            ip(&["netns", "add", &space])?;
            let inside = |words: &[&str]| ip(&[&["-n", &space], words].concat());
            inside(&[
                "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch,
            ])?;
            inside(&["addr", "add", &at(host), "dev", "eth0"])?;
            inside(&["link", "set", "eth0", "up"])?;
            inside(&["link", "set", "lo", "up"])?;
            plug(&port)?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in hosts() {
            let _ = ip(&["netns", "del", &namespace(self.block, host)]);
        }
        let _ = ip(&["link", "del", &door(self.block)]);
        let _ = ip(&["netns", "del", &switch(self.block)]);
    }
}

/// Whether networks can be made here: it takes root, and a container's root may not.
pub(crate) fn possible() -> bool {
    let probe = format!("surus-ci-probe-{}", std::process::id());
    let made = rustix::process::getuid().is_root() && ip(&["netns", "add", &probe]).is_ok();
    made && ip(&["netns", "del", &probe]).is_ok()
}

fn hosts() -> impl Iterator<Item = u8> {
    (0..MEMBERS).flat_map(|i| [POSTGRES + i, ETCD + i])
}

/// The namespace of what connects the hosts.
fn switch(block: u8) -> String {
    format!("surus-ci{block}-switch")
}

/// This machine's own interface in the network.
fn door(block: u8) -> String {
    format!("surus-ci{block}")
}

/// The name of a host's namespace.
pub(crate) fn namespace(block: u8, host: u8) -> String {
    format!("surus-ci{block}-{host}")
}

/// A host's address.
pub(crate) fn address(block: u8, host: u8) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::new(10, 213, block, host)
}

fn ip(words: &[&str]) -> Result<()> {
    tool::output(Command::new("ip").args(words)).map(drop)
}

/// Cuts a host off.
pub(crate) fn cut(block: u8, host: u8, cut: Cut) -> Result<()> {
    let peers = |first: u8| {
        let all = (first..first + MEMBERS).filter(|peer| *peer != host);
        let all: Vec<String> = all.map(|peer| address(block, peer).to_string()).collect();
        format!("{{ {} }}", all.join(", "))
    };
    let (first, last) = (BESIDE.start, BESIDE.end - 1);
    let mut rules = String::from("add table ip cut; flush table ip cut;");
    // The interface, and which end of a packet is the other host.
    for (chain, interface, end) in [("input", "iifname", "s"), ("output", "oifname", "d")] {
        rules += &format!("add chain ip cut {chain} {{ type filter hook {chain} priority -300; }};");
        let mut rule = |text: String| rules += &format!("add rule ip cut {chain} {text};");
        let all = format!("{interface} != lo drop");
        match cut {
            Cut::Silent => rule(all),
            Cut::All => {
                rule(format!("tcp {end}port {first}-{last} accept"));
                rule(all);
            }
            Cut::Etcd => rule(format!("ip {end}addr {} drop", peers(ETCD))),
            Cut::Hosts => rule(format!("ip {end}addr {} drop", peers(POSTGRES))),
        }
    }
    nft(block, host, &rules)
}

/// Ends every cut of a host.
pub(crate) fn mend(block: u8, host: u8) -> Result<()> {
    nft(block, host, "add table ip cut; delete table ip cut")
}

fn nft(block: u8, host: u8, rules: &str) -> Result<()> {
    let space = namespace(block, host);
    tool::output(Command::new("ip").args(["netns", "exec", &space, "nft", rules])).map(drop)
}
