//! Where a cluster lives: its addresses, its ports and its directory.
//!
//! Three PostgreSQL hosts are 127.0.b.11 to 13, three etcd hosts 127.0.b.21 to 23 and HAProxy is 127.0.b.1, with b = 0 unless something
//! is in the way: the first block of addresses and ports that is wholly free is taken, and if there is none the error names what is taken.
//! In a network of its own ([`Network`]) the same hosts are 10.213.b.11 and so on.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::ground::{self, Network};

/// How many members of each kind a cluster has.
pub(crate) const MEMBERS: u8 = 3;

/// Addresses and ports of one cluster, and its directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Everything that the cluster writes is below this directory.
    pub(crate) root: PathBuf,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Addresses of the loopback, and what is added to each port.
    Loopback { block: u8, shift: u16 },
    /// A network with a namespace for each host.
    Network { block: u8 },
}

impl Layout {
    /// The first free block.
    ///
    /// # Errors
    /// Names the address that is taken in the preferred block when no block is free.
    pub(crate) fn find(root: PathBuf) -> Result<Self> {
        let mut first = None;
        for shift in [0, 10_000, 20_000] {
            for block in 0..20 {
                let layout = Self {
                    root: root.clone(),
                    place: Place::Loopback { block, shift },
                };
                match layout.taken() {
                    None => return Ok(layout),
                    Some(address) => first = first.or(Some(address)),
                }
            }
        }
        let address = first.map_or_else(String::new, |(address, error)| format!("{address} ({error})"));
        Err(Error::Unable(format!(
            "no free addresses for a cluster: {address} is taken, and so are all others tried; see `ss -ltnp`"
        )))
    }

    /// The hosts of a network.
    pub(crate) fn on(root: PathBuf, network: &Network) -> Self {
        let block = network.block();
        Self {
            root,
            place: Place::Network { block },
        }
    }

    /// The network whose hosts these are, by its block; `None` on loopback.
    pub(crate) fn network(&self) -> Option<u8> {
        match self.place {
            Place::Loopback { .. } => None,
            Place::Network { block } => Some(block),
        }
    }

    /// The namespace that a host runs in, by the last byte of its address.
    pub(crate) fn space(&self, host: u8) -> Option<String> {
        self.network().map(|block| ground::namespace(block, host))
    }

    /// All addresses that its clients and members may come from, as `pg_hba.conf` has it.
    pub(crate) fn addresses(&self) -> String {
        match self.place {
            Place::Loopback { .. } => "127.0.0.0/8".into(),
            Place::Network { block } => format!("{}/24", ground::address(block, 0)),
        }
    }

    fn taken(&self) -> Option<(SocketAddrV4, ErrorKind)> {
        let members = (0..MEMBERS).flat_map(|i| {
            [
                self.postgres(i),
                self.rest(i),
                self.etcd_client(i),
                self.etcd_peer(i),
            ]
        });
        let doors = [self.primary(), self.replicas(), self.stats()];
        let routers = self.router().into_iter().chain(self.router_of_agent());
        let mut all = members.chain(doors).chain(routers).chain(self.tuned());
        all.find_map(|address| {
            TcpListener::bind(address)
                .err()
                .map(|error| (address, error.kind()))
        })
    }

    fn at(&self, last: u8, port: u16) -> SocketAddrV4 {
        match self.place {
            Place::Loopback { block, shift } => {
                SocketAddrV4::new(Ipv4Addr::new(127, 0, block, last), port + shift)
            }
            Place::Network { block } => SocketAddrV4::new(ground::address(block, last), port),
        }
    }

    /// PostgreSQL of node `i` (from 0).
    pub(crate) fn postgres(&self, i: u8) -> SocketAddrV4 {
        self.at(ground::POSTGRES + i, 5432)
    }

    /// The agent's REST API on node `i`.
    pub(crate) fn rest(&self, i: u8) -> SocketAddrV4 {
        self.at(ground::POSTGRES + i, 8008)
    }

    /// Where etcd member `i` serves clients.
    pub(crate) fn etcd_client(&self, i: u8) -> SocketAddrV4 {
        self.at(ground::ETCD + i, 2379)
    }

    /// Where etcd member `i` meets its peers.
    pub(crate) fn etcd_peer(&self, i: u8) -> SocketAddrV4 {
        self.at(ground::ETCD + i, 2380)
    }

    /// HAProxy's door to the primary.
    pub(crate) fn primary(&self) -> SocketAddrV4 {
        self.at(1, 5000)
    }

    /// HAProxy's door to the replicas.
    pub(crate) fn replicas(&self) -> SocketAddrV4 {
        self.at(1, 5001)
    }

    /// HAProxy's statistics page.
    pub(crate) fn stats(&self) -> SocketAddrV4 {
        self.at(1, 7000)
    }

    /// The built-in router's door to the primary, the one to the replicas, and its HTTP endpoint.
    pub(crate) fn router(&self) -> [SocketAddrV4; 3] {
        [6000, 6001, 8009].map(|port| self.at(1, port))
    }

    /// The door to the primary that an agent opens, and its HTTP endpoint.
    pub(crate) fn router_of_agent(&self) -> [SocketAddrV4; 2] {
        [6010, 8010].map(|port| self.at(1, port))
    }

    /// The doors of HAProxy as the template that we ship configures it.
    pub(crate) fn tuned(&self) -> [SocketAddrV4; 2] {
        [5010, 5011].map(|port| self.at(1, port))
    }

    /// The index of the node that has this address.
    pub(crate) fn node_at(&self, address: Ipv4Addr) -> Option<u8> {
        (0..MEMBERS).find(|i| *self.postgres(*i).ip() == address)
    }
}

/// The name of node `i`.
pub(crate) fn node_name(i: u8) -> String {
    format!("surus{}", i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_taken_is_passed_over() {
        let first = Layout::find(PathBuf::new()).unwrap();
        let taken = TcpListener::bind(first.rest(1)).unwrap();
        let second = Layout::find(PathBuf::new()).unwrap();
        assert_ne!(first.place, second.place);
        drop(taken);
    }

    #[test]
    fn a_node_is_found_by_its_address() {
        let layout = Layout {
            root: PathBuf::new(),
            place: Place::Loopback {
                block: 3,
                shift: 10_000,
            },
        };
        assert_eq!(layout.node_at(Ipv4Addr::new(127, 0, 3, 13)), Some(2));
        assert_eq!(layout.node_at(Ipv4Addr::new(127, 0, 0, 13)), None);
        assert_eq!(layout.primary().to_string(), "127.0.3.1:15000");
    }
}
