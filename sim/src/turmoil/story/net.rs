//! Faults of the network.

use surus_scenarios::{End, Nanos, NetFault, Taken, Way};

use super::super::net::Machine;
use super::super::world::World;
use super::{nobody, unable};

impl World {
    pub(super) fn net_fault(&mut self, fault: &NetFault) -> Taken {
        match fault {
            NetFault::Cut { a, b, way, span } => {
                let Some(pairs) = self.pairs(a, b, *way) else {
                    return nobody();
                };
                self.cut_pairs(pairs, *span)
            }
            NetFault::Isolate { node, clients, span } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                let here = self.machines.hosts[host];
                let mut pairs = Vec::new();
                for other in (0..self.machines.names.len()).map(Machine) {
                    // A client beside the host lives on its machine, and no cut parts them.
                    if other != here {
                        pairs.extend([(here, other), (other, here)]);
                    }
                }
                if !clients && self.machines.clients.contains(&here) {
                    return unable("a client beside a member cannot be parted from it");
                }
                self.cut_pairs(pairs, *span)
            }
            NetFault::Split {
                part,
                bridge,
                way,
                span,
            } => self.split(part, bridge, *way, *span),
            NetFault::SlowLink { a, b, by, span, .. } => {
                let Some(pairs) = self.pairs(a, b, Way::Both) else {
                    return nobody();
                };
                for (from, to) in &pairs {
                    self.net.slow(*from, *to, by.0);
                }
                self.lasts(*span, move |world| {
                    for (from, to) in pairs {
                        world.net.slow(from, to, 0);
                    }
                });
                Taken::Done
            }
            NetFault::LossyLink { a, b, percent, span } => {
                let Some(pairs) = self.pairs(a, b, Way::Both) else {
                    return nobody();
                };
                let one_in = 100 / u64::from(*percent).max(1);
                for (from, to) in &pairs {
                    self.net.lossy(*from, *to, one_in.max(2));
                }
                self.lasts(*span, move |world| {
                    for (from, to) in pairs {
                        world.net.lossy(from, to, 0);
                    }
                });
                Taken::Done
            }
            NetFault::RefuseLink { .. } => unable("links cannot refuse here, only swallow"),
            NetFault::HealNetwork {} => {
                self.heal_network();
                Taken::Done
            }
        }
    }

    /// The ways between two ends.
    fn pairs(&mut self, a: &End, b: &End, way: Way) -> Option<Vec<(Machine, Machine)>> {
        let (these, those) = (self.machines_at(a)?, self.machines_at(b)?);
        let mut pairs = Vec::new();
        for a in &these {
            for b in those.iter().filter(|b| *b != a) {
                if way != Way::Back {
                    pairs.push((*a, *b));
                }
                if way != Way::There {
                    pairs.push((*b, *a));
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        Some(pairs)
    }

    fn cut_pairs(&mut self, pairs: Vec<(Machine, Machine)>, span: Nanos) -> Taken {
        for (from, to) in &pairs {
            self.cut(*from, *to, true);
        }
        self.lasts(span, move |world| {
            for (from, to) in pairs {
                world.cut(from, to, false);
            }
        });
        Taken::Done
    }

    fn split(&mut self, part: &[End], bridge: &[End], way: Way, span: Nanos) -> Taken {
        let mut one = Vec::new();
        for end in part {
            let Some(machines) = self.machines_at(end) else {
                return nobody();
            };
            one.extend(machines);
        }
        let mut both = self.machines.clients.clone();
        both.retain(|machine| !self.machines.hosts.contains(machine));
        for end in bridge {
            both.extend(self.machines_at(end).unwrap_or_default());
        }
        let mut pairs = Vec::new();
        for other in (0..self.machines.names.len()).map(Machine) {
            if one.contains(&other) || both.contains(&other) {
                continue;
            }
            for machine in one.iter().filter(|machine| !both.contains(machine)) {
                if way != Way::Back {
                    pairs.push((*machine, other));
                }
                if way != Way::There {
                    pairs.push((other, *machine));
                }
            }
        }
        self.cut_pairs(pairs, span)
    }

    /// Nothing is cut, slow or lossy any more.
    pub(super) fn heal_network(&mut self) {
        let cut: Vec<(Machine, Machine)> = self.cuts.keys().copied().collect();
        self.cuts.clear();
        for (from, to) in cut {
            self.net.cut(from, to, false);
        }
        let machines = 0..self.machines.names.len();
        for from in machines.clone().map(Machine) {
            for to in machines.clone().map(Machine) {
                self.net.slow(from, to, 0);
                self.net.lossy(from, to, 0);
            }
        }
        self.hub.relink();
    }
}
