//! `switchover` and `failover`: the leadership handed over by hand.
//!
//! The request goes to a member's REST API, the leader's first, for the agent there acts at once. When no member
//! answers, it is written into the `failover` key, where the agents find it as soon as they can. Once a request has
//! been sent and its answer was lost it is not sent again: the cluster itself tells how it ended.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::ctl::access::{Expect, Request};
use crate::ctl::cli::{self, Format};
use crate::ctl::failure::Failure;
use crate::ctl::list;
use crate::ctl::session::{Answer, Cluster, Session, config_seconds, known_members, schedule};

/// A request, complete and checked.
struct Wish {
    /// `switchover` or `failover`.
    action: &'static str,
    leader: Option<String>,
    candidate: Option<String>,
    scheduled: Option<String>,
}

/// `switchover`.
pub fn switchover(session: &mut Session, arguments: &cli::Switchover) -> Result<(), Failure> {
    let cluster = session.cluster(arguments.cluster.cluster.as_deref())?;
    let topology = &cluster.topology;
    let Some(leader) = topology.leader.clone() else {
        return Err(Failure::new("This cluster has no leader").hint(
            "a switchover needs one; `surus failover --candidate NAME` makes a member the leader without",
        ));
    };
    let asks = !arguments.force && session.terminal.interactive;
    show(session, &cluster)?;

    let from = settle(
        session,
        asks,
        arguments.leader.as_deref(),
        "Primary",
        Some(&leader),
    )?
    .unwrap_or_else(|| leader.clone());
    if from != leader {
        return Err(Failure::new(format!(
            "Member {from} is not the leader of cluster {}",
            cluster.scope
        ))
        .hint(format!("the leader is {leader}")));
    }
    let candidates: Vec<_> = topology
        .members
        .iter()
        .filter(|member| member.name != leader && !member.nofailover())
        .collect();
    let names: Vec<_> = candidates.iter().map(|member| member.name.as_str()).collect();
    if names.is_empty() {
        return Err(Failure::new("No candidates found to switchover to").hint(
            "a candidate is a member other than the leader, without the tag `nofailover`; `surus list -e` shows both",
        ));
    }
    let question = format!("Candidate ({}; empty for any)", names.join(", "));
    let candidate = settle(session, asks, arguments.candidate.as_deref(), &question, None)?;
    if let Some(name) = &candidate {
        check_candidate(&cluster, name)?;
    }
    let question =
        "When should the switchover take place (a time with its zone, such as 2026-11-24T10:33:00+01:00)";
    let when = settle(
        session,
        asks,
        arguments.scheduled.as_deref(),
        question,
        Some("now"),
    )?;
    let scheduled = schedule(when.as_deref(), session.access.now(), "switchover")?;
    if topology.paused && scheduled.is_some() {
        return Err(Failure::new("Can't schedule switchover in the paused state")
            .hint("`surus resume` ends the pause"));
    }
    if topology.paused && candidate.is_none() {
        return Err(
            Failure::new("Switchover is possible only to a specific candidate in a paused state")
                .hint(format!("name it with `--candidate`: {}", names.join(", "))),
        );
    }
    if let Some(scheduled) = &topology.scheduled {
        session.terminal.warn(&format!(
            "this replaces the switchover that is scheduled at {}",
            scheduled.at
        ));
    }
    if !arguments.force {
        let to = candidate
            .as_deref()
            .map(|name| format!(" in favour of {name}"))
            .unwrap_or_default();
        let at = scheduled
            .as_deref()
            .map(|time| format!(" at {time}"))
            .unwrap_or_default();
        session.terminal.confirm(&format!(
            "Are you sure you want to switchover cluster {}, demoting current leader {leader}{to}{at}?",
            cluster.scope
        ))?;
    }
    carry_out(
        session,
        &cluster,
        &Wish {
            action: "switchover",
            leader: Some(leader),
            candidate,
            scheduled,
        },
    )
}

/// `failover`.
pub fn failover(session: &mut Session, arguments: &cli::Failover) -> Result<(), Failure> {
    let cluster = session.cluster(arguments.cluster.cluster.as_deref())?;
    show(session, &cluster)?;
    let asks = !arguments.force && session.terminal.interactive;
    let leader = cluster.topology.leader.clone();
    let Some(candidate) = settle(session, asks, arguments.candidate.as_deref(), "Candidate", None)? else {
        return Err(
            Failure::new("Failover could be performed only to a specific candidate").hint(format!(
                "name it with `--candidate`; {}",
                known_members(&cluster.topology)
            )),
        );
    };
    check_candidate(&cluster, &candidate)?;
    let member = cluster.topology.member(&candidate);
    let synchronous = member.is_some_and(|member| member.role.ends_with("_standby"));
    if cluster.topology.synchronous && !synchronous {
        session.terminal.warn(&format!(
            "{candidate} is not synchronous: transactions that clients saw committed may be lost"
        ));
    }
    if !arguments.force {
        let demoting = leader
            .map(|name| format!(", demoting current leader {name}"))
            .unwrap_or_default();
        session.terminal.confirm(&format!(
            "Are you sure you want to failover cluster {} to {candidate}{demoting}?",
            cluster.scope
        ))?;
    }
    carry_out(
        session,
        &cluster,
        &Wish {
            action: "failover",
            leader: None,
            candidate: Some(candidate),
            scheduled: None,
        },
    )
}

/// What the command line gives, else what the operator answers if anybody is there to be asked. `None`: neither says anything.
fn settle(
    session: &mut Session,
    asks: bool,
    given: Option<&str>,
    question: &str,
    usual: Option<&str>,
) -> Result<Option<String>, Failure> {
    if given.is_some() || !asks {
        return Ok(given.map(str::to_owned));
    }
    let said = session.terminal.ask(question, usual)?;
    Ok(Some(said).filter(|said| !said.is_empty()))
}

fn check_candidate(cluster: &Cluster, name: &str) -> Result<(), Failure> {
    let topology = &cluster.topology;
    let Some(member) = topology.member(name) else {
        return Err(Failure::new(format!(
            "Member {name} does not exist in cluster {}",
            cluster.scope
        ))
        .hint(known_members(topology)));
    };
    if topology.leader.as_deref() == Some(name) {
        return Err(Failure::new(format!(
            "{name} is already the leader of cluster {}",
            cluster.scope
        ))
        .hint(known_members(topology)));
    }
    if member.nofailover() {
        return Err(Failure::new(format!("Member {name} has the tag `nofailover`"))
            .hint("remove the tag from its configuration and `surus reload` it, or choose another member"));
    }
    Ok(())
}

fn carry_out(session: &mut Session, cluster: &Cluster, wish: &Wish) -> Result<(), Failure> {
    let action = wish.action;
    let limit = patience(cluster);
    let body = wish_as_json(wish, "candidate");
    // The member answers only when the leadership has moved or has failed to.
    let request = Request::new("POST", action)
        .body(body)
        .timeout(limit + Duration::from_secs(10));
    let progress = session
        .terminal
        .progress(&format!("{} of cluster {}", title(action), cluster.scope));
    let answer = session.ask_any(&cluster.topology, &request);
    drop(progress);
    match answer {
        Ok(Answer::Said { reply, .. }) if matches!(reply.status, 200 | 202) => {
            let line = format!("{} {}", session.timestamp(5), reply.summary());
            session.terminal.print(&line)?;
            let after = session.read(&cluster.scope)?;
            print_table(session, &after)
        }
        // A server from before `failover` and `switchover` parted, or one that serves neither.
        Ok(Answer::Said { reply, member }) if reply.status == 501 => fall_back(
            session,
            cluster,
            wish,
            &[format!("{member} does not serve /{action}")],
        ),
        Ok(Answer::Said { reply, member }) if reply.summary().contains("status unknown") => {
            session
                .terminal
                .warn(&format!("{member} says: {}", reply.summary()));
            wait_for_leader(session, cluster, wish, limit)
        }
        Ok(Answer::Said { reply, member }) => {
            let said = format!("{member} answered {}: {}", reply.status, reply.summary());
            Err(Failure::new(format!("{} failed", title(action))).cause(said).hint(match reply.status {
                401 | 403 => "set `ctl.authentication` (or `restapi.authentication`) to what the members expect",
                _ => "`surus list` shows the cluster now, and `surus explain NODE` why a member did not act",
            }))
        }
        Ok(Answer::Lost { said }) => {
            session.terminal.warn(&format!(
                "the request was sent to {said}; waiting for its outcome"
            ));
            wait_for_leader(session, cluster, wish, limit)
        }
        Err(failures) => fall_back(session, cluster, wish, &failures),
    }
}

/// No member could be asked: the wish is left where they will find it.
fn fall_back(
    session: &mut Session,
    cluster: &Cluster,
    wish: &Wish,
    failures: &[String],
) -> Result<(), Failure> {
    let action = wish.action;
    let line = format!(
        "{} Could not {action} using Patroni api, falling back to DCS",
        session.timestamp(5)
    );
    session.terminal.print(&line)?;
    let value = wish_as_json(wish, "member").to_string();
    let expect = Expect::unchanged(&cluster.raw, "failover");
    if !session.access.put(&cluster.scope, "failover", &value, expect)? {
        let mut failure = Failure::new(format!(
            "{} failed: somebody else requested one at the same time",
            title(action)
        ))
        .hint("`surus list` shows what is the case");
        failure.causes.extend_from_slice(failures);
        return Err(failure);
    }
    if let Some(at) = &wish.scheduled {
        return session.terminal.print(&format!(
            "{} {} scheduled at {at}",
            session.timestamp(5),
            title(action)
        ));
    }
    wait_for_leader(session, cluster, wish, patience(cluster))
}

/// Follows the keys until another member holds the lock or the request is gone from its key.
fn wait_for_leader(
    session: &mut Session,
    before: &Cluster,
    wish: &Wish,
    limit: Duration,
) -> Result<(), Failure> {
    const STEP: Duration = Duration::from_millis(200);
    let old = before.topology.leader.as_deref();
    let mut progress = session.terminal.progress(&format!(
        "Waiting for {} to give up the leadership",
        old.unwrap_or("nobody")
    ));
    let mut waited = Duration::ZERO;
    let mut seen_request = false;
    loop {
        let now = session.read(&before.scope)?;
        let leader = now.topology.leader.clone();
        let pending = now
            .raw
            .json("failover")
            .and_then(|value| Some(!value.as_object()?.is_empty()))
            .unwrap_or(false);
        seen_request |= pending;
        match leader.as_deref() {
            Some(name) if Some(name) != old => {
                drop(progress);
                let done = if wish.action == "failover" {
                    "failed"
                } else {
                    "switched"
                };
                let line = match &wish.candidate {
                    Some(wanted) if wanted != name => {
                        format!("Switched over to \"{name}\" instead of \"{wanted}\"")
                    }
                    _ => format!("Successfully {done} over to \"{name}\""),
                };
                let line = format!("{} {line}", session.timestamp(5));
                session.terminal.print(&line)?;
                return print_table(session, &now);
            }
            Some(name) if seen_request && !pending => {
                return Err(Failure::new(format!("{} failed", title(wish.action)))
                    .cause(format!("{name} dropped the request and is still the leader"))
                    .hint(format!("`surus explain {name}` tells why")));
            }
            None => progress.say(&mut session.terminal, "Waiting for a new leader"),
            Some(_) => {}
        }
        if waited >= limit {
            return Err(Failure::new(format!(
                "{} status unknown after {} seconds",
                title(wish.action),
                limit.as_secs()
            ))
            .hint("it may still take place; `surus list -W` shows the cluster as it changes"));
        }
        session.access.sleep(STEP);
        waited += STEP;
    }
}

fn wish_as_json(wish: &Wish, candidate_key: &str) -> Value {
    let fields = [
        ("leader", &wish.leader),
        (candidate_key, &wish.candidate),
        ("scheduled_at", &wish.scheduled),
    ];
    let set = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into())));
    Value::Object(set.collect::<Map<_, _>>())
}

/// As long as a member itself waits before it answers that it does not know: twice a round, and at least 20 s.
fn patience(cluster: &Cluster) -> Duration {
    Duration::from_secs(2 * config_seconds(&cluster.topology, "loop_wait", 10).clamp(10, 300))
}

fn show(session: &mut Session, cluster: &Cluster) -> Result<(), Failure> {
    session.terminal.print("Current cluster topology")?;
    print_table(session, cluster)
}

fn print_table(session: &mut Session, cluster: &Cluster) -> Result<(), Failure> {
    session
        .terminal
        .print(&list::render(cluster, Format::Pretty, false))
}

fn title(action: &str) -> &'static str {
    if action == "failover" {
        "Failover"
    } else {
        "Switchover"
    }
}
