//! `pause`, `resume`, `flush` and `remove`: what concerns a cluster as a whole.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ctl::access::{Expect, Request};
use crate::ctl::cli;
use crate::ctl::failure::Failure;
use crate::ctl::members::{self, Tally, refusal};
use crate::ctl::session::{Answer, Cluster, Session, config_seconds};

/// `pause` (true) and `resume` (false).
pub fn pause(session: &mut Session, arguments: &cli::Pause, on: bool) -> Result<(), Failure> {
    let cluster = session.cluster(arguments.cluster.cluster.as_deref())?;
    let (verb, done) = if on {
        ("pause", "paused")
    } else {
        ("resume", "resumed")
    };
    if cluster.topology.paused == on {
        let (text, hint) = if on {
            ("Cluster is already paused", "`surus resume` ends the pause")
        } else {
            ("Cluster is not paused", "there is nothing to resume")
        };
        return Err(Failure::new(text).hint(hint));
    }
    let request =
        Request::new("PATCH", "config").body(json!({"pause": if on { json!(true) } else { Value::Null }}));
    match session.ask_any(&cluster.topology, &request) {
        Ok(Answer::Said { reply, .. }) if reply.status == 200 => {}
        Ok(Answer::Said { reply, member }) => {
            let text = format!("Failed: {verb} cluster management status code={}", reply.status);
            return Err(Failure::new(text).cause(format!("{member} answered: {}", reply.summary())).hint(
                "set `ctl.authentication` (or `restapi.authentication`) if it asks for one, or try it again",
            ));
        }
        Ok(Answer::Lost { said }) => {
            if session.read(&cluster.scope)?.topology.paused != on {
                return Err(Failure::new(format!("{verb} failed"))
                    .cause(said)
                    .hint("try it again"));
            }
        }
        Err(failures) => {
            let mut failure = Failure::new("Can not find accessible cluster member").hint(format!(
                "start an agent, or write the key yourself: `surus edit-config -s pause={}`",
                if on { "true" } else { "null" }
            ));
            failure.causes = failures;
            return Err(failure);
        }
    }
    if arguments.wait {
        return wait_for_pause(session, &cluster, on, verb, done);
    }
    session
        .terminal
        .print(&format!("Success: cluster management is {done}"))
}

fn wait_for_pause(
    session: &mut Session,
    before: &Cluster,
    on: bool,
    verb: &str,
    done: &str,
) -> Result<(), Failure> {
    const STEP: Duration = Duration::from_millis(250);
    let limit = config_seconds(&before.topology, "loop_wait", 10).clamp(1, 300) + 1;
    session.terminal.print(&format!(
        "'{verb}' request sent, waiting until it is recognized by all nodes"
    ))?;
    let mut progress = session.terminal.progress("Waiting for every member");
    let mut waited = Duration::ZERO;
    loop {
        let now = session.read(&before.scope)?;
        let behind: Vec<_> = now
            .topology
            .members
            .iter()
            .filter(|member| member.api_url.is_some() && member.paused() != on)
            .map(|member| member.name.clone())
            .collect();
        if behind.is_empty() {
            drop(progress);
            return session
                .terminal
                .print(&format!("Success: cluster management is {done}"));
        }
        if waited >= Duration::from_secs(limit) {
            drop(progress);
            let names = behind.join(", ");
            return Err(Failure::new(format!("{names} members didn't recognized pause state after {limit} seconds"))
                .hint("it is written and will be obeyed as soon as their agents can read it; `surus list` shows them"));
        }
        progress.say(
            &mut session.terminal,
            &format!("Waiting for {}", behind.join(", ")),
        );
        session.access.sleep(STEP);
        waited += STEP;
    }
}

/// `flush`.
pub fn flush(session: &mut Session, arguments: &cli::Flush) -> Result<(), Failure> {
    let (target, names) = arguments
        .names
        .split_last()
        .unwrap_or((const { &String::new() }, &[]));
    match target.as_str() {
        "restart" => flush_restarts(session, names, arguments),
        "switchover" => flush_switchover(session, names),
        other => Err(Failure::new(format!("`{other}` cannot be flushed"))
            .hint("the last argument is `restart` or `switchover`")),
    }
}

fn flush_restarts(session: &mut Session, names: &[String], arguments: &cli::Flush) -> Result<(), Failure> {
    let (cluster, names) = session.cluster_and_members(names)?;
    let chosen = members::choose(&cluster, &names, arguments.role)?;
    members::show(session, &cluster)?;
    if !arguments.force {
        members::confirm(session, &chosen, "flush")?;
    }
    let mut tally = Tally::default();
    for member in &chosen {
        let name = &member.name;
        if member.published("scheduled_restart").is_none() {
            session
                .terminal
                .print(&format!("No scheduled restart for member {name}"))?;
            continue;
        }
        match session.ask(member, &Request::new("DELETE", "restart")) {
            Ok(reply) if reply.status == 200 => {
                session
                    .terminal
                    .print(&format!("Success: flush scheduled restart for member {name}"))?;
            }
            Ok(reply) if reply.status == 404 => {
                session
                    .terminal
                    .print(&format!("No scheduled restart for member {name}"))?;
            }
            Ok(reply) => tally.failed(session, name, &refusal("flush scheduled restart", name, &reply))?,
            Err(error) => tally.unreachable(session, name, "flush scheduled restart", &error)?,
        }
    }
    tally.end("flush")
}

fn flush_switchover(session: &mut Session, names: &[String]) -> Result<(), Failure> {
    let (cluster, _) = session.cluster_and_members(names)?;
    if cluster.topology.scheduled.is_none() {
        return session.terminal.print("No pending scheduled switchover");
    }
    match session.ask_any(&cluster.topology, &Request::new("DELETE", "switchover")) {
        Ok(Answer::Said { reply, .. }) if reply.status == 200 => {
            session.terminal.print(&format!("Success: {}", reply.summary()))
        }
        Ok(Answer::Said { reply, .. }) if reply.status == 404 => {
            session.terminal.print("No pending scheduled switchover")
        }
        Ok(Answer::Said { reply, member }) => Err(Failure::new("the scheduled switchover was not deleted")
            .cause(format!("{member} answered {}: {}", reply.status, reply.summary()))
            .hint("`surus list` shows what is scheduled now")),
        Ok(Answer::Lost { .. }) | Err(_) => {
            session
                .terminal
                .note("no member answered: deleting the request in etcd");
            let expect = Expect::unchanged(&cluster.raw, "failover");
            if session.access.put(&cluster.scope, "failover", "{}", expect)? {
                session.terminal.print("Success: scheduled switchover deleted")
            } else {
                Err(Failure::new("the scheduled switchover changed in the meantime")
                    .hint("`surus list` shows it"))
            }
        }
    }
}

/// `remove`.
pub fn remove(session: &mut Session, arguments: &cli::Remove) -> Result<(), Failure> {
    let cluster = session.cluster(Some(&arguments.cluster))?;
    members::show(session, &cluster)?;
    let wrong = |what: &str| Failure::new(what.to_owned()).hint("nothing was removed");
    let name = session
        .terminal
        .ask("Please confirm the cluster name to remove", None)?;
    if name != cluster.scope {
        return Err(wrong("Cluster names specified do not match"));
    }
    let phrase = "Yes I am aware";
    let question = format!(
        "You are about to remove all information in DCS for {}, please type: \"{phrase}\"",
        cluster.scope
    );
    if session.terminal.ask(&question, None)? != phrase {
        return Err(wrong(&format!("You did not exactly type \"{phrase}\"")));
    }
    let leader = cluster.topology.leader.clone();
    if let Some(leader) = leader {
        let question = "This cluster currently is healthy. Please specify the leader name to continue";
        if session.terminal.ask(question, None)? != leader {
            return Err(wrong("You did not specify the current leader of the cluster"));
        }
    }
    session.access.delete_all(&cluster.scope)?;
    session
        .terminal
        .note(&format!("deleted {} keys", cluster.raw.keys.len()));
    Ok(())
}
