//! The line of the trace that an entry prints as.

use std::fmt;

use surus_core::types::NodeName;
use surus_core::view::Initialize;

use super::{End, Entry, Fate, LeaseEnd, NodeIndex, OrderEnd, Rebuild, RightBy, Seen, Standing};
use crate::clock::Time;
use crate::net::Place;

impl Entry {
    /// `  12.3456 n2    promoted to timeline 3 at 0/500`.
    #[must_use]
    pub fn line(&self, names: &[NodeName]) -> String {
        let who = match self.node {
            Some(node) => Name(node, names).to_string(),
            None => "world".to_owned(),
        };
        format!("{:>10.4} {who:<5} {}", seconds(self.at), self.seen)
    }
}

struct Name<'a>(NodeIndex, &'a [NodeName]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1.get(self.0) {
            Some(name) => name.fmt(f),
            None => node(self.0).fmt(f),
        }
    }
}

fn seconds(time: Time) -> f64 {
    time as f64 / 1e9
}

/// A member's usual name.
fn node(index: NodeIndex) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "n{}", index + 1))
}

fn perhaps(index: Option<NodeIndex>) -> impl fmt::Display {
    fmt::from_fn(move |f| match index {
        Some(index) => write!(f, "n{}", index + 1),
        None => f.write_str("nobody"),
    })
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} on timeline {} of cluster {}",
            self.position, self.timeline, self.system_id
        )
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FastStop => "fast stop",
            Self::ImmediateStop => "immediate stop",
            Self::Killed => "killed",
            Self::ByGuard => "killed by the guard",
            Self::GuardDied => "its guard died",
            Self::PowerLoss => "power loss",
        })
    }
}

impl fmt::Display for LeaseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Deposed => "not over, another took the key away",
        })
    }
}

impl fmt::Display for Rebuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clone => "cloned",
            Self::Rewind => "rewound",
        })
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(index) => node(*index).fmt(f),
            Self::Etcd(member) => write!(f, "etcd{}", member + 1),
            Self::Router(router) => write!(f, "router{}", router + 1),
            Self::Client(client) => write!(f, "client{}", client + 1),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockTaken {
                lease,
                revision,
                term,
                primary,
                standing,
                optime,
            } => {
                write!(
                    f,
                    "lock taken, lease {}, revision {}, term {}",
                    lease.0, revision.0, term.0
                )?;
                if let Some(standing) = standing {
                    write!(
                        f,
                        ", {} at {standing}",
                        if *primary { "primary" } else { "no primary" }
                    )?;
                }
                match optime {
                    Some(optime) => write!(f, ", published {optime}"),
                    None => Ok(()),
                }
            }
            Self::LockRenewed {
                lease,
                revision,
                term,
            } => {
                write!(
                    f,
                    "lock renewed, lease {}, revision {}, term {}",
                    lease.0, revision.0, term.0
                )
            }
            Self::LockReleased { revision } => write!(f, "lock released, revision {}", revision.0),
            Self::Outdone { by, bytes } => write!(f, "{} has {bytes} bytes more and could lead", node(*by)),
            Self::LeftUnsent => f.write_str("nobody has all that was written before the hand-over"),
            Self::LockLost { lease, why } => write!(f, "lock lost: lease {} {why}", lease.0),
            Self::StatusWritten {
                optime,
                timeline,
                next,
                vacated,
                unfenced,
            } => {
                write!(f, "status: {optime}")?;
                if let Some(timeline) = timeline {
                    write!(f, " on timeline {timeline}")?;
                }
                if let Some(next) = next {
                    write!(f, ", next {next}")?;
                }
                f.write_str(if *vacated { ", vacated" } else { "" })?;
                f.write_str(if *unfenced { ", unfenced" } else { "" })
            }
            Self::SyncWritten { members, quorum } => {
                write!(f, "sync key: any {quorum} of")?;
                members
                    .iter()
                    .try_for_each(|index| write!(f, " {}", node(*index)))
            }
            Self::GateShut => f.write_str("clients are kept out"),
            Self::GateLifted => f.write_str("clients are not kept out any more"),
            Self::GateOpened { having } => {
                f.write_str("clients are let in; what they see is also on")?;
                f.write_str(if having.is_empty() { " nobody" } else { "" })?;
                having.iter().try_for_each(|index| write!(f, " {}", node(*index)))
            }
            Self::SyncStandbys { rules } => {
                f.write_str("commits wait for")?;
                if rules.is_empty() {
                    f.write_str(" ever")?;
                }
                for (index, (members, needed)) in rules.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { " or" })?;
                    write!(f, " any {needed} of")?;
                    members
                        .iter()
                        .try_for_each(|index| write!(f, " {}", node(*index)))?;
                }
                Ok(())
            }
            Self::Slot {
                of,
                position: Some(position),
            } => write!(f, "slot of {} at {position}", node(*of)),
            Self::Slot { of, position: None } => write!(f, "slot of {} dropped", node(*of)),
            Self::WalRemoved { before } => write!(f, "WAL before {before} removed"),
            Self::InitializeWritten { to } => match to {
                None => f.write_str("initialize: nothing"),
                Some(Initialize::InProgress) => f.write_str("initialize: somebody creates the cluster"),
                Some(Initialize::Done(system_id)) => write!(f, "initialize: cluster {system_id}"),
                Some(Initialize::Garbage) => f.write_str("initialize: what nobody can read"),
            },
            Self::FailsafeWritten { list } => {
                f.write_str("failsafe list:")?;
                list.iter().try_for_each(|index| write!(f, " {}", node(*index)))
            }
            Self::FailoverWritten { leader, candidate } => {
                write!(
                    f,
                    "failover key: from {} to {}",
                    perhaps(*leader),
                    perhaps(*candidate)
                )
            }
            Self::FailoverCleared => f.write_str("failover key cleared"),
            Self::MemberKey { present: true } => f.write_str("member key written"),
            Self::MemberKey { present: false } => f.write_str("member key gone"),
            Self::EtcdLeader {
                term,
                member: Some(member),
            } => {
                write!(f, "etcd{} leads etcd, term {}", member + 1, term.0)
            }
            Self::EtcdLeader { term, member: None } => write!(f, "etcd has no leader, term {}", term.0),
            Self::EtcdMember { member, up } => {
                write!(f, "etcd{} {}", member + 1, if *up { "up" } else { "down" })
            }
            Self::Compacted { revision } => write!(f, "etcd compacted at revision {}", revision.0),
            Self::Right { sent, until, by } => {
                let by = match by {
                    RightBy::Lock => "the lock",
                    RightBy::Grants => "failsafe grants",
                };
                write!(
                    f,
                    "right until {:.3} by {by} asked for at {:.3}",
                    seconds(*until),
                    seconds(*sent)
                )
            }
            Self::Granted { to } => write!(f, "failsafe grant to {}", node(*to)),
            Self::Bootstrapped { system_id } => write!(f, "PostgreSQL: new cluster {system_id}"),
            Self::Starting { as_primary, standing } => {
                let role = if *as_primary { "primary" } else { "replica" };
                write!(f, "PostgreSQL starts as {role}, {standing}")
            }
            Self::Up { primary, standing } => {
                let role = if *primary { "primary" } else { "replica" };
                write!(f, "PostgreSQL is up: {role}, {standing}")
            }
            Self::PromotedByHand => f.write_str("PostgreSQL is promoted by hand"),
            Self::Forked {
                from,
                switch,
                standing,
            } => write!(
                f,
                "PostgreSQL: timeline {} begins at {switch}, from {from}",
                standing.timeline
            ),
            Self::Promoted {
                from,
                switch,
                standing,
            } => {
                write!(
                    f,
                    "PostgreSQL: promoted to timeline {} at {switch}, from {from}",
                    standing.timeline
                )
            }
            Self::Closing => f.write_str("PostgreSQL stops: clients are cut off"),
            Self::Ended {
                how,
                standing: Some(standing),
            } => write!(f, "PostgreSQL ended: {how}, {standing}"),
            Self::Ended { how, standing: None } => write!(f, "PostgreSQL ended: {how}"),
            Self::Hung { hung: true } => f.write_str("PostgreSQL hangs"),
            Self::Hung { hung: false } => f.write_str("PostgreSQL goes on"),
            Self::Following { upstream } => write!(f, "PostgreSQL follows {}", perhaps(*upstream)),
            Self::Streaming { upstream, standing } => {
                write!(f, "PostgreSQL streams from {}, {standing}", node(*upstream))
            }
            Self::WalMissing => f.write_str("PostgreSQL: the WAL it asks for has been removed"),
            Self::StreamLost { why } => write!(f, "PostgreSQL: walreceiver gone: {why}"),
            Self::WalLost { standing, reached } => write!(f, "WAL lost: had {reached}, left {standing}"),
            Self::Checkpointed { timeline, position } => {
                write!(f, "PostgreSQL: checkpoint {position} on timeline {timeline}")
            }
            Self::Discarded {
                how,
                source,
                own,
                theirs,
                alone,
            } => {
                write!(f, "data is {how} from {}: had {own}", perhaps(*source))?;
                if let Some(theirs) = theirs {
                    write!(f, ", gets {theirs}")?;
                }
                match alone {
                    Some(from) => write!(f, ", alone since {from}"),
                    None => Ok(()),
                }
            }
            Self::Rebuilt {
                how,
                source,
                standing,
            } => {
                write!(f, "data {how} from {}: {standing}", node(*source))
            }
            Self::DataBroken => f.write_str("data directory is half of something"),
            Self::DataGone { own: Some(own) } => write!(f, "data directory gone, it had {own}"),
            Self::DataGone { own: None } => f.write_str("data directory gone"),
            Self::GuardBegan => f.write_str("guard starts"),
            Self::Armed { until } => write!(f, "guard armed until {:.3}", seconds(*until)),
            Self::Lifted => f.write_str("guard disarmed"),
            Self::GuardDied => f.write_str("guard died"),
            Self::AgentBegan => f.write_str("agent starts"),
            Self::AgentEnded { reason, detach } => {
                write!(
                    f,
                    "agent ends{}: {reason}",
                    if *detach { ", detached" } else { "" }
                )
            }
            Self::AgentDied => f.write_str("agent killed"),
            Self::AgentFrozen { frozen: true } => f.write_str("agent frozen"),
            Self::AgentFrozen { frozen: false } => f.write_str("agent goes on"),
            Self::HostFrozen { frozen: true } => f.write_str("host frozen"),
            Self::HostFrozen { frozen: false } => f.write_str("host goes on"),
            Self::Power { on: true } => f.write_str("power is back"),
            Self::Power { on: false } => f.write_str("power lost"),
            Self::Configured(settings) => {
                write!(f, "configured: ttl {:.1}", seconds(settings.ttl))?;
                f.write_str(if settings.failsafe { ", failsafe" } else { "" })?;
                f.write_str(if settings.pause { ", paused" } else { "" })
            }
            Self::Broken { text } => write!(f, "broken: {text}"),
            Self::Decided(decision) => decision.fmt(f),
            Self::OrderBegan { id, order, about } => {
                write!(f, "order {id}: {order}")?;
                match about {
                    Some(about) => write!(f, " {}", node(*about)),
                    None => Ok(()),
                }
            }
            Self::OrderEnded { id, order, end, text } => {
                let end = match end {
                    OrderEnd::Done => "done",
                    OrderEnd::Failed => "failed",
                    OrderEnd::Unknown => "unknown",
                    OrderEnd::Refused => "refused",
                };
                write!(f, "order {id}: {order} {end}")?;
                match text {
                    Some(text) => write!(f, ": {text}"),
                    None => Ok(()),
                }
            }
            Self::WriteAsked { client, key, value } => write!(f, "client{} writes {key}={value}", client + 1),
            Self::Committed { key, value, standing } => write!(f, "committed {key}={value} at {standing}"),
            Self::WriteEnded {
                client,
                key,
                value,
                fate,
            } => {
                write!(f, "client{} write {key}={value} {fate}", client + 1)
            }
            Self::ReadAsked { client, key } => write!(f, "client{} reads {key}", client + 1),
            Self::ReadEnded {
                client,
                key,
                value,
                fate,
            } => {
                write!(f, "client{} read {key} {fate}", client + 1)?;
                match value {
                    Some(value) => write!(f, ": {value}"),
                    None => Ok(()),
                }
            }
            Self::Health { router, primary } => {
                let status = if *primary { 200 } else { 503 };
                write!(f, "GET /primary by router{}: {status}", router + 1)
            }
            Self::Routed { router, up } => {
                write!(f, "router{}: {}", router + 1, if *up { "up" } else { "down" })
            }
            Self::StepBegan { step, text } => write!(f, "step {step}: {text}"),
            Self::StepEnded { step } => write!(f, "step {step} is over"),
            Self::Healed => f.write_str("all faults end"),
            Self::Message {
                from,
                to,
                arrives,
                what,
            } => {
                write!(f, "{from} -> {to}: {what}")?;
                match arrives {
                    Some(time) => write!(f, ", arrives {:.4}", seconds(*time)),
                    None => f.write_str(", lost"),
                }
            }
        }
    }
}
