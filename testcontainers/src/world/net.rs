//! Faults of the network: what passes between two ends is decided by nftables on the host at the receiving end.
//!
//! What holds is a list of [`Bar`]s. Each change rewrites the one table of the hosts that it concerns, in one transaction, so the rules
//! are always those of the list. Clients live in this process and have one address, but each has ports of its own; the observers
//! have others, and nothing ever keeps them from a server.

use std::fmt::Write as _;
use std::ops::Range;

use surus_ci::error::Result;
use surus_scenarios::{End, Nanos, NetFault, Taken, Way};

use super::{World, nobody, unable, void};

/// The ports that the first client's connections come from; those of the next follow.
const PORTS: Range<u16> = 23_000..23_400;

/// One end of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spot {
    /// A host, by its place among the world's.
    Host(usize),
    /// A client.
    Client(usize),
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It vanishes.
    Drop,
    /// The sender is told that the connection is none.
    Refuse,
    /// It vanishes in so many of a hundred cases.
    Lose(u8),
}

/// Something between two ends, one way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar {
    /// The step that it belongs to.
    step: u64,
    from: Spot,
    to: Spot,
    fate: Fate,
}

/// The ports of a client.
pub(super) fn ports(client: usize) -> Range<u16> {
    let width = PORTS.end - PORTS.start;
    let first = PORTS.start + u16::try_from(client).unwrap_or(0) * width;
    first..first + width
}

impl World {
    pub(super) fn net_fault(&mut self, fault: &NetFault) -> Taken {
        match fault {
            NetFault::Cut { a, b, way, span } => {
                let Some(ways) = self.ways(a, b, *way) else {
                    return nobody();
                };
                self.bar(ways, Fate::Drop, *span)
            }
            NetFault::RefuseLink { a, b, span } => {
                let Some(ways) = self.ways(a, b, Way::Both) else {
                    return nobody();
                };
                self.bar(ways, Fate::Refuse, *span)
            }
            NetFault::LossyLink { a, b, percent, span } => {
                let Some(ways) = self.ways(a, b, Way::Both) else {
                    return nobody();
                };
                self.bar(ways, Fate::Lose((*percent).min(100)), *span)
            }
            NetFault::Isolate { node, clients, span } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                let here = Spot::Host(host);
                let Some(all) = self.spots(&End::All) else {
                    return nobody();
                };
                let beside = |spot: &Spot| match spot {
                    Spot::Client(client) => *clients && self.clients_beside(*client) == Some(host),
                    Spot::Host(_) => false,
                };
                let ways = all.iter().filter(|spot| **spot != here && !beside(spot));
                let ways = ways.flat_map(|spot| [(here, *spot), (*spot, here)]).collect();
                self.bar(ways, Fate::Drop, *span)
            }
            NetFault::Split {
                part,
                bridge,
                way,
                span,
            } => {
                let mut one = Vec::new();
                for end in part {
                    let Some(spots) = self.spots(end) else {
                        return nobody();
                    };
                    one.extend(spots);
                }
                let mut both = Vec::new();
                for end in bridge {
                    both.extend(self.spots(end).unwrap_or_default());
                }
                let others = (0..self.hosts.len()).map(Spot::Host);
                let others: Vec<Spot> = others
                    .filter(|spot| !one.contains(spot) && !both.contains(spot))
                    .collect();
                let mut ways = Vec::new();
                for spot in one.iter().filter(|spot| !both.contains(spot)) {
                    for other in &others {
                        ways.extend((*way != Way::Back).then_some((*spot, *other)));
                        ways.extend((*way != Way::There).then_some((*other, *spot)));
                    }
                }
                self.bar(ways, Fate::Drop, *span)
            }
            NetFault::SlowLink { .. } => unable(
                "packets are not delayed here: that takes the kernel's netem, which is often not built",
            ),
            NetFault::HealNetwork {} => {
                self.bars.clear();
                let done = self.bar_all();
                self.outcome("heal the network", done)
            }
        }
    }

    fn clients_beside(&self, client: usize) -> Option<usize> {
        let route = &self.shape.clients.get(client)?.route;
        route.beside.as_ref().and_then(|name| self.shape.member(name))
    }

    /// The ways between two ends. What runs on one host always reaches each other.
    fn ways(&mut self, a: &End, b: &End, way: Way) -> Option<Vec<(Spot, Spot)>> {
        let (these, those) = (self.spots(a)?, self.spots(b)?);
        let mut ways = Vec::new();
        for a in &these {
            for b in those.iter().filter(|b| *b != a) {
                ways.extend((way != Way::Back).then_some((*a, *b)));
                ways.extend((way != Way::There).then_some((*b, *a)));
            }
        }
        ways.sort_unstable();
        ways.dedup();
        Some(ways)
    }

    fn bar(&mut self, ways: Vec<(Spot, Spot)>, fate: Fate, span: Nanos) -> Taken {
        if ways.is_empty() {
            return void("both ends are one host");
        }
        self.last_bar += 1;
        let step = self.last_bar;
        self.bars
            .extend(ways.into_iter().map(|(from, to)| Bar { step, from, to, fate }));
        let done = self.bar_all();
        self.lasts(span, move |world| {
            world.bars.retain(|bar| bar.step != step);
            let done = world.bar_all();
            world.outcome("end a fault of the network", done);
        });
        self.outcome("bar the network", done)
    }

    /// Every host that goes on gets the rules that hold now.
    pub(super) fn bar_all(&mut self) -> Result<()> {
        for host in 0..self.hosts.len() {
            self.bar_host(host)?;
        }
        Ok(())
    }

    /// A host gets the rules that hold now, unless it has them.
    pub(super) fn bar_host(&mut self, host: usize) -> Result<()> {
        if !self.awake(host) {
            return Ok(());
        }
        let table = self.table(host);
        if self.hosts[host].rules == table {
            return Ok(());
        }
        let script = format!("nft -f - <<'E'\nadd table ip surus\ndelete table ip surus\n{table}\nE");
        self.sh(host, &script)?;
        self.hosts[host].rules = table;
        Ok(())
    }

    fn table(&self, host: usize) -> String {
        let gateway = self.network.gateway();
        let (mut inward, mut outward) = (String::new(), String::new());
        for bar in &self.bars {
            let verdicts: &[&str] = match bar.fate {
                Fate::Drop => &["drop"],
                // What the other end refuses with must arrive, for both ends have this rule and silence is no refusal; and so must its consent, for
                // the rules do not go at once: a connection that waits for that tries again a second later.
                Fate::Refuse => &[
                    "tcp flags & rst == rst accept",
                    "tcp flags & (syn | ack) == (syn | ack) accept",
                    "meta l4proto tcp reject with tcp reset",
                    "drop",
                ],
                Fate::Lose(_) => &[""],
            };
            for verdict in verdicts {
                let verdict = match bar.fate {
                    Fate::Lose(percent) => format!("numgen random mod 100 < {percent} drop"),
                    _ => (*verdict).to_owned(),
                };
                // Writing to a String cannot fail.
                let _ = match (bar.from, bar.to) {
                    (Spot::Host(from), Spot::Host(to)) if to == host => {
                        writeln!(inward, "ip saddr {} {verdict}", self.hosts[from].address)
                    }
                    (Spot::Client(client), Spot::Host(to)) if to == host => {
                        let Range { start, end } = ports(client);
                        writeln!(
                            inward,
                            "ip saddr {gateway} tcp sport {start}-{} {verdict}",
                            end - 1
                        )
                    }
                    (Spot::Host(from), Spot::Client(client)) if from == host => {
                        let Range { start, end } = ports(client);
                        writeln!(
                            outward,
                            "ip daddr {gateway} tcp dport {start}-{} {verdict}",
                            end - 1
                        )
                    }
                    _ => Ok(()),
                };
            }
        }
        format!(
            "table ip surus {{\nchain inward {{ type filter hook input priority 0;\n{inward}}}\n\
             chain outward {{ type filter hook output priority 0;\n{outward}}}\n}}"
        )
    }
}
