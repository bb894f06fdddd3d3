//! Whether what a story expects holds, by what servers answer and what was acknowledged to clients.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use surus_ci::client::{self, Route, TABLE};
use surus_ci::history::{self, Log};
use surus_scenarios::{Course, Expectation, Nanos, Role, Target, Verdict};

use super::World;
use crate::observer::POSTGRES;
use crate::yml;
use surus_ci::lock;

/// How long a question of a judge may take.
const PATIENCE: Duration = Duration::from_secs(2);

fn holds(yes: bool, seen: impl Into<String>) -> Verdict {
    if yes {
        Verdict::Holds
    } else {
        Verdict::NotYet(seen.into())
    }
}

fn never(yes: bool, seen: impl Into<String>) -> Verdict {
    if yes {
        Verdict::Holds
    } else {
        Verdict::Broken(seen.into())
    }
}

/// The one value that a server answers, asked over a new connection.
async fn show(route: &Route, sql: &str) -> Result<String, String> {
    let asked = async {
        let client = client::connect(route).await?;
        client::ask(&client, sql).await
    };
    let row = tokio::time::timeout(PATIENCE, asked).await;
    let row = row.map_err(|_| "silence".to_owned())?;
    let row = row.map_err(|error| surus_ci::error::chain(&error))?;
    row.into_iter().next().ok_or_else(|| "no row".to_owned())
}

fn nobody() -> Verdict {
    Verdict::NotYet("nobody is meant by that now".to_owned())
}

impl World {
    pub(super) fn verdict(&mut self, expectation: &Expectation, since: Nanos) -> Verdict {
        match expectation {
            Expectation::NoDualPrimary {} => match self.overlap() {
                Some(seen) => Verdict::Broken(seen),
                None => Verdict::Holds,
            },
            Expectation::Lost { max } => match self.lost() {
                Ok(lost) => never(
                    lost.len() as u64 <= *max,
                    format!(
                        "{} acknowledged writes are missing: {}{}",
                        lost.len(),
                        lost.iter().take(5).cloned().collect::<Vec<_>>().join(", "),
                        if lost.len() > 5 { ", …" } else { "" }
                    ),
                ),
                Err(why) => Verdict::Broken(why),
            },
            Expectation::Primary { is, .. } => {
                let primaries = lock(&self.seen).primaries();
                let seen = match primaries.first() {
                    Some(member) => format!("{} takes writes", self.hosts[*member].name),
                    None => "nobody takes writes".to_owned(),
                };
                if *is == Target::Any {
                    return holds(!primaries.is_empty(), seen);
                }
                match self.member_at(is) {
                    Some(member) => holds(primaries.contains(&member), seen),
                    None => nobody(),
                }
            }
            Expectation::NoPrimary { .. } => self.no_primary(),
            Expectation::Role { node, role, .. } => {
                let Some(member) = self.member_at(node) else {
                    return nobody();
                };
                let name = &self.hosts[member].name;
                match lock(&self.seen).role(member) {
                    Some(is) => holds(is == *role, format!("{name} is {is}")),
                    None if *role == Role::Down && !self.hosts[member].powered => Verdict::Holds,
                    None => holds(false, format!("{name} is silent")),
                }
            }
            Expectation::Writes { client, .. } => {
                let from = self.instant(since);
                let written = self.of(client.as_ref()).is_some_and(|logs| {
                    logs.iter()
                        .any(|log| log.acks.last().is_some_and(|ack| from <= ack.acked.into_std()))
                });
                holds(written, "no write was acknowledged")
            }
            Expectation::Healthy { .. } => {
                let hosts = &self.hosts;
                let healthy = lock(&self.seen).healthy(|member| hosts[member].address);
                match healthy {
                    Ok(_) => Verdict::Holds,
                    Err(why) => Verdict::NotYet(why),
                }
            }
            Expectation::NoFailover {} => self.no_failover(since),
            Expectation::Promotions { max } => {
                let count = lock(&self.seen).promotions(since) as u64;
                never(count <= *max, format!("{count} promotions"))
            }
            Expectation::Outage { max, client } => {
                let Some(logs) = self.of(client.as_ref()) else {
                    return Verdict::Unable("there is no such client".to_owned());
                };
                let longest = self.outage(&logs, since);
                never(longest <= *max, format!("{longest} without"))
            }
            Expectation::NeverPrimary { node } => {
                let Some(member) = self.member_at(node) else {
                    return nobody();
                };
                let seen = lock(&self.seen);
                let reign = seen.reigns.iter().find(|reign| reign.member == member);
                let from = reign.map_or(Nanos::ZERO, |reign| reign.from);
                never(
                    reign.is_none(),
                    format!("{} took writes at {from}", seen.name(member)),
                )
            }
            Expectation::DataKept { node } => {
                let Some(member) = self.member_at(node) else {
                    return nobody();
                };
                let now = self.remains();
                let was = self.kept.clone().unwrap_or_else(|| now.clone());
                never(
                    was[member] == now[member],
                    format!(
                        "the data directory was {:?} and is {:?}",
                        was[member], now[member]
                    ),
                )
            }
            Expectation::Door { router, role, .. } => {
                let Some(host) = self.router_named(router) else {
                    return Verdict::Unable("there is no such router".to_owned());
                };
                let address = self.hosts[host].address;
                let route = Route::To(SocketAddrV4::new(address, yml::door(*role)));
                let recovering = self
                    .handle
                    .block_on(show(&route, "SELECT pg_is_in_recovery()::text"));
                let wanted = match role {
                    Role::Primary => "false",
                    Role::Replica => "true",
                    Role::Down => return Verdict::Unable("routers have no door for that".to_owned()),
                };
                holds(
                    recovering.as_deref() == Ok(wanted),
                    format!(
                        "pg_is_in_recovery() behind it: {}",
                        recovering.unwrap_or_else(|why| why)
                    ),
                )
            }
            Expectation::Parameter {
                node, name, value, ..
            } => {
                let Some(member) = self.member_at(node) else {
                    return nobody();
                };
                let route = Route::To(SocketAddrV4::new(self.hosts[member].address, POSTGRES));
                let shown = self.handle.block_on(show(&route, &format!("SHOW {name}")));
                holds(
                    shown.as_deref() == Ok(value.as_str()),
                    format!("it is {}", shown.unwrap_or_else(|why| why)),
                )
            }
            Expectation::Decides { .. } | Expectation::Blocks { .. } => {
                Verdict::Unable("which rule fires is an agent's own word".to_owned())
            }
        }
    }

    fn instant(&self, time: Nanos) -> Instant {
        lock(&self.seen).clock.instant(time)
    }

    /// Nobody takes writes. A member that is silent may, unless its host is off or stands still.
    fn no_primary(&self) -> Verdict {
        let seen = lock(&self.seen);
        for member in 0..self.shape.members.len() {
            match seen.role(member) {
                Some(Role::Primary) => {
                    return holds(false, format!("{} takes writes", seen.name(member)));
                }
                None if self.awake(member) => {
                    return holds(false, format!("{} is silent", seen.name(member)));
                }
                _ => {}
            }
        }
        Verdict::Holds
    }

    fn no_failover(&self, since: Nanos) -> Verdict {
        let seen = lock(&self.seen);
        let first = seen.reigns.iter().rev().find(|reign| reign.from <= since);
        let Some(first) = first else {
            return Verdict::Holds;
        };
        if let Some(other) = seen.reigns.iter().find(|reign| since < reign.from) {
            return Verdict::Broken(format!(
                "{} took writes on timeline {} from {} on",
                seen.name(other.member),
                other.timeline,
                other.from
            ));
        }
        match seen.role(first.member) {
            Some(Role::Primary) => Verdict::Holds,
            _ => Verdict::Broken(format!(
                "{} took writes last at {}",
                seen.name(first.member),
                first.to
            )),
        }
    }

    /// What the clients know so far.
    pub(super) fn logs(&self) -> Vec<Log> {
        self.clients
            .iter()
            .map(|client| client.writer.look(Clone::clone))
            .collect()
    }

    /// The same of one client, if one is meant.
    fn of(&self, client: Option<&surus_scenarios::Name>) -> Option<Vec<Log>> {
        let logs = self.logs();
        match client {
            None => Some(logs),
            Some(name) => {
                let number = self.client_named(name)?;
                logs.into_iter().nth(number).map(|log| vec![log])
            }
        }
    }

    /// The longest time since `since` in which none of these clients was acknowledged a write.
    fn outage(&self, logs: &[Log], since: Nanos) -> Nanos {
        let mut all = Log {
            acks: logs.iter().flat_map(|log| log.acks.iter().cloned()).collect(),
            ..Log::default()
        };
        all.acks.sort_by_key(|ack| ack.acked);
        let (from, now) = (self.instant(since), crate::clock::now());
        let before = all.acks.iter().any(|ack| ack.acked.into_std() <= from);
        // A client that had nothing acknowledged before counts from its first write on.
        let first = all.acks.first().map(|ack| ack.acked.into_std());
        let from = if before {
            Some(from)
        } else {
            first.map(|first| first.max(from))
        };
        let longest = from.and_then(|from| all.outage(from.into(), now.into()));
        longest.map_or(Nanos::FOREVER, |outage| {
            Nanos(u64::try_from(outage.length.as_nanos()).unwrap_or(u64::MAX))
        })
    }

    /// Each client's longest silence since the first step, for the table.
    pub(crate) fn outages(&self, since: Nanos) -> Vec<(String, Nanos)> {
        let logs = self.logs();
        logs.into_iter()
            .map(|log| {
                let name = log.name.clone();
                (name, self.outage(&[log], since))
            })
            .collect()
    }

    /// Who took writes since `since`, with whoever did then, one after the other.
    pub(crate) fn course(&self, since: Nanos) -> Course {
        let seen = lock(&self.seen);
        let first = seen.reigns.iter().rposition(|reign| reign.from <= since);
        let reigns = seen.reigns.iter().skip(first.unwrap_or(0));
        Course::of(reigns.map(|reign| (reign.member, reign.timeline)))
    }

    /// The worst time in which two members acknowledged writes, in words; `None` if there was none.
    pub(crate) fn overlap(&self) -> Option<String> {
        let overlap = history::overlap(&self.logs());
        let text = || {
            format!(
                "{} both acknowledged writes for {:.3} s, {} of them",
                overlap.who,
                overlap.length.as_secs_f64(),
                overlap.acks
            )
        };
        (!overlap.length.is_zero()).then(text)
    }

    /// Acknowledged writes that the primary does not have, each with the client and the time.
    fn lost(&self) -> Result<Vec<String>, String> {
        let primary = lock(&self.seen).primaries().first().copied();
        let primary = primary.ok_or("nobody takes writes")?;
        let route = Route::To(SocketAddrV4::new(self.hosts[primary].address, POSTGRES));
        // Taken before the rows are read: what is acknowledged later is not asked for.
        let logs = self.logs();
        let rows = self.handle.block_on(async {
            let client = client::connect(&route).await?;
            let rows = client.query(&format!("SELECT id FROM {TABLE}"), &[]).await;
            rows.map_err(surus_ci::error::Error::sql(|| "read the rows back"))
        });
        let rows = rows.map_err(|error| surus_ci::error::chain(&error))?;
        let present: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let clock = lock(&self.seen).clock;
        let at_hand = |node: Ipv4Addr, at: Nanos| {
            let member = self.hosts.iter().position(|host| host.address == node);
            member.is_some_and(|member| lock(&self.seen).at_hand(member, at, at))
        };
        let missing = history::missing(&logs, &present)
            .into_iter()
            .filter(|(_, ack)| !at_hand(ack.node, clock.at(ack.acked.into_std())))
            .map(|(client, ack)| {
                let at = clock.at(ack.acked.into_std());
                format!(
                    "{} to {client} at {at} by {} on timeline {}",
                    ack.id, ack.node, ack.timeline
                )
            });
        Ok(missing.collect())
    }
}
