//! What a story's expectations ask about, kept from the record alone: every world answers them with the same eyes.

use std::collections::BTreeMap;

use surus_core::Rule;
use surus_scenarios::{Expectation, Name, Role, Target, Verdict};

use crate::clock::Time;
use crate::record::{Fate, NodeIndex, Seen};

/// Who is meant by the words of an expectation.
pub trait Cast {
    /// The member.
    fn member(&mut self, target: &Target) -> Option<NodeIndex>;
    /// The client.
    fn client(&self, name: &Name) -> Option<usize>;
}

/// A time during which a member's server took writes.
#[derive(Debug, Clone, Copy)]
struct Reign {
    node: NodeIndex,
    from: Time,
    /// `None`: it still does.
    to: Option<Time>,
}

/// A member's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Server {
    #[default]
    Down,
    Replica,
    Primary,
}

/// What has been seen.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    servers: BTreeMap<NodeIndex, Server>,
    reigns: Vec<Reign>,
    promotions: Vec<Time>,
    /// Acknowledged writes: when the client knew, and which client.
    acks: Vec<(Time, usize)>,
    rebuilt: Vec<(Time, NodeIndex)>,
    /// When each rule last came to fire at a node, and whether it still does.
    rules: BTreeMap<(Rule, NodeIndex), (Time, bool)>,
    /// The same of guards that stopped a rule.
    guards: BTreeMap<(&'static str, NodeIndex), (Time, bool)>,
    /// Who held the lock last, and who before.
    leaders: (Option<NodeIndex>, Option<NodeIndex>),
}

impl Witness {
    /// Something happened.
    pub fn see(&mut self, at: Time, node: Option<NodeIndex>, seen: &Seen) {
        if let Seen::WriteEnded {
            client,
            fate: Fate::Ok,
            ..
        } = seen
        {
            self.acks.push((at, *client));
        }
        let Some(node) = node else { return };
        match seen {
            Seen::LockTaken { .. } if self.leaders.0 != Some(node) => {
                self.leaders = (Some(node), self.leaders.0);
            }
            Seen::Up { primary, .. } => self.up(at, node, *primary),
            Seen::Promoted { .. } => {
                self.promotions.push(at);
                self.up(at, node, true);
            }
            Seen::Closing => {
                self.end(at, node);
                self.servers.insert(node, Server::Down);
            }
            Seen::Ended { .. } => {
                self.end(at, node);
                self.servers.insert(node, Server::Down);
            }
            Seen::Discarded { .. } => self.rebuilt.push((at, node)),
            Seen::Decided(decision) => {
                for ((_, at), (_, now)) in &mut self.rules {
                    *now &= *at != node;
                }
                for ((_, at), (_, now)) in &mut self.guards {
                    *now &= *at != node;
                }
                self.rules.insert((decision.rule, node), (at, true));
                for (_, guard) in &decision.blocked {
                    self.guards.insert((guard.code(), node), (at, true));
                }
            }
            _ => {}
        }
    }

    fn up(&mut self, at: Time, node: NodeIndex, primary: bool) {
        let server = if primary { Server::Primary } else { Server::Replica };
        if self.servers.insert(node, server) != Some(Server::Primary) && primary {
            self.reigns.push(Reign {
                node,
                from: at,
                to: None,
            });
        }
    }

    fn end(&mut self, at: Time, node: NodeIndex) {
        for reign in &mut self.reigns {
            if reign.node == node && reign.to.is_none() {
                reign.to = Some(at);
            }
        }
    }

    /// Who holds the lock, or held it last.
    #[must_use]
    pub fn leader(&self) -> Option<NodeIndex> {
        self.leaders.0
    }

    /// Who held it before.
    #[must_use]
    pub fn former_leader(&self) -> Option<NodeIndex> {
        self.leaders.1
    }

    /// The members whose servers take writes.
    pub fn primaries(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.reigns
            .iter()
            .filter(|reign| reign.to.is_none())
            .map(|reign| reign.node)
    }

    /// When writes were acknowledged, those of one client or of all below `clients`.
    pub fn acks(&self, client: Option<usize>, clients: usize) -> impl Iterator<Item = Time> + '_ {
        self.acks
            .iter()
            .filter(move |(_, who)| client.map_or(*who < clients, |client| client == *who))
            .map(|(at, _)| *at)
    }

    /// The longest time between two acknowledged writes since `since`, and until `now`.
    #[must_use]
    pub fn outage(&self, since: Time, now: Time, client: Option<usize>, clients: usize) -> Time {
        let mut last: Option<Time> = None;
        let mut longest = 0;
        for at in self.acks(client, clients) {
            if since <= at
                && let Some(last) = last
            {
                longest = longest.max(at - last.max(since));
            }
            last = Some(at);
        }
        last.map_or(longest, |last| longest.max(now.saturating_sub(last.max(since))))
    }

    /// Who is meant. A world that has it judge has no witness meanwhile, and does not know who led.
    fn meant(&self, cast: &mut dyn Cast, target: &Target) -> Option<NodeIndex> {
        match target {
            Target::FormerLeader => self.former_leader(),
            Target::Leader => cast.member(target).or(self.leader()),
            other => cast.member(other),
        }
    }

    /// Judges an expectation; `None` if the record alone does not tell. `clients` is the number of the story's own clients.
    #[must_use]
    pub fn judge(
        &self,
        expectation: &Expectation,
        since: Time,
        now: Time,
        clients: usize,
        cast: &mut dyn Cast,
    ) -> Option<Verdict> {
        let name = |node: NodeIndex| format!("n{}", node + 1);
        let holds = |yes: bool, seen: String| {
            if yes {
                Verdict::Holds
            } else {
                Verdict::NotYet(seen)
            }
        };
        let never = |yes: bool, seen: String| {
            if yes {
                Verdict::Holds
            } else {
                Verdict::Broken(seen)
            }
        };
        let nobody = || Verdict::NotYet("nobody is meant by that now".to_owned());
        Some(match expectation {
            // The invariant S1, which ends a run.
            Expectation::NoDualPrimary {} => Verdict::Holds,
            Expectation::Lost { .. } | Expectation::Healthy { .. } => return None,
            Expectation::Primary { is, .. } => {
                let primaries: Vec<_> = self.primaries().collect();
                let seen = match primaries.first() {
                    Some(node) => format!("{} takes writes", name(*node)),
                    None => "nobody takes writes".to_owned(),
                };
                if *is == Target::Any {
                    holds(!primaries.is_empty(), seen)
                } else {
                    match self.meant(cast, is) {
                        Some(node) => holds(primaries.contains(&node), seen),
                        None => nobody(),
                    }
                }
            }
            Expectation::NoPrimary { .. } => {
                let primary = self.primaries().next();
                holds(
                    primary.is_none(),
                    primary.map(name).unwrap_or_default() + " takes writes",
                )
            }
            Expectation::Role { node, role, .. } => {
                let Some(node) = self.meant(cast, node) else {
                    return Some(nobody());
                };
                let server = self.servers.get(&node).copied().unwrap_or_default();
                let is = match server {
                    Server::Down => Role::Down,
                    Server::Replica => Role::Replica,
                    Server::Primary => Role::Primary,
                };
                holds(is == *role, format!("{} is {is:?}", name(node)))
            }
            Expectation::Writes { client, .. } => {
                let client = match client {
                    Some(name) => Some(cast.client(name)?),
                    None => None,
                };
                let written = self.acks(client, clients).any(|at| since <= at);
                holds(written, "no write was acknowledged".to_owned())
            }
            Expectation::NoFailover {} => {
                let first = self
                    .reigns
                    .iter()
                    .find(|reign| reign.from <= since && reign.to.is_none_or(|to| since < to));
                let Some(first) = first else {
                    return Some(Verdict::Holds);
                };
                let other = self.reigns.iter().find(|reign| since < reign.from);
                match (first.to, other) {
                    (Some(to), _) => never(
                        false,
                        format!("{} stopped at {:.3} s", name(first.node), seconds(to)),
                    ),
                    (None, Some(other)) => {
                        let text = format!(
                            "{} took writes from {:.3} s on",
                            name(other.node),
                            seconds(other.from)
                        );
                        never(false, text)
                    }
                    (None, None) => Verdict::Holds,
                }
            }
            Expectation::Promotions { max } => {
                let count = self.promotions.iter().filter(|at| since <= **at).count() as u64;
                never(count <= *max, format!("{count} promotions"))
            }
            Expectation::Outage { max, client } => {
                let client = match client {
                    Some(name) => Some(cast.client(name)?),
                    None => None,
                };
                let longest = self.outage(since, now, client, clients);
                never(longest <= max.0, format!("{:.3} s without", seconds(longest)))
            }
            Expectation::NeverPrimary { node } => {
                let node = self.meant(cast, node)?;
                let reign = self.reigns.iter().find(|reign| reign.node == node);
                let from = reign.map_or(0, |reign| reign.from);
                never(
                    reign.is_none(),
                    format!("{} took writes at {:.3} s", name(node), seconds(from)),
                )
            }
            Expectation::DataKept { node } => {
                let node = self.meant(cast, node)?;
                let lost = self.rebuilt.iter().find(|(at, who)| *who == node && since <= *at);
                let at = lost.map_or(0, |(at, _)| *at);
                never(
                    lost.is_none(),
                    format!("{} was given up at {:.3} s", name(node), seconds(at)),
                )
            }
            Expectation::Door { .. } => {
                Verdict::Unable("routers of simulated worlds have one door".to_owned())
            }
            Expectation::Parameter { .. } => {
                Verdict::Unable("the model of PostgreSQL has no parameters to show".to_owned())
            }
            Expectation::Decides { rule, on, .. } => {
                let node = match on {
                    Target::Any => None,
                    on => Some(self.meant(cast, on)?),
                };
                let fired = self.rules.iter().any(|((fired, at), (time, now))| {
                    (fired.code() == rule.as_str() || fired.name() == rule.as_str())
                        && node.is_none_or(|node| node == *at)
                        && (since <= *time || *now)
                });
                holds(fired, format!("{rule} did not fire"))
            }
            Expectation::Blocks { guard, on, .. } => {
                let node = match on {
                    Target::Any => None,
                    on => Some(self.meant(cast, on)?),
                };
                let fired = self.guards.iter().any(|((code, at), (time, now))| {
                    *code == guard.as_str() && node.is_none_or(|node| node == *at) && (since <= *time || *now)
                });
                holds(fired, format!("{guard} stopped nothing"))
            }
        })
    }
}

fn seconds(time: Time) -> f64 {
    time as f64 / 1e9
}
