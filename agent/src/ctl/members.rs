//! `restart`, `reload` and `reinit`: something done by each of several members.
//!
//! Each member is asked in turn and its answer printed; a failure at one does not keep the others from being asked,
//! and makes the command fail at the end.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::ctl::access::{Reply, Request};
use crate::ctl::cli::{self, Format, Role};
use crate::ctl::failure::Failure;
use crate::ctl::list;
use crate::ctl::session::{Cluster, Session, config_seconds, known_members, schedule};
use crate::ctl::terminal::Progress;
use crate::topology::{Member, Topology};

/// How long a restart may take unless the request or the cluster's configuration says otherwise: Patroni's default of
/// `primary_start_timeout`, in seconds.
const START_TIMEOUT: u64 = 300;

/// Members of a role.
#[must_use]
pub fn with_role(topology: &Topology, role: Role) -> Vec<Member> {
    let is_leader = |member: &Member| topology.leader.as_deref() == Some(member.name.as_str());
    let matches = |member: &&Member| match role {
        Role::Any => true,
        Role::Leader => is_leader(member),
        Role::Primary => is_leader(member) && !topology.standby_cluster,
        Role::StandbyLeader => is_leader(member) && topology.standby_cluster,
        Role::Replica | Role::Standby => !is_leader(member),
    };
    topology.members.iter().filter(matches).cloned().collect()
}

/// The members that are meant, after the table was shown.
pub(super) fn choose(cluster: &Cluster, names: &[String], role: Role) -> Result<Vec<Member>, Failure> {
    let mut members = with_role(&cluster.topology, role);
    if !names.is_empty() {
        if let Some(other) = names
            .iter()
            .find(|name| !members.iter().any(|member| member.name == **name))
        {
            return Err(Failure::new(format!(
                "member {other} does not have the role that `--role` asks for"
            ))
            .hint("`surus list` shows the roles"));
        }
        members.retain(|member| names.contains(&member.name));
    }
    if members.is_empty() {
        let what = format!("no member of cluster {} matches the request", cluster.scope);
        return Err(Failure::new(what).hint(known_members(&cluster.topology)));
    }
    Ok(members)
}

pub(super) fn show(session: &mut Session, cluster: &Cluster) -> Result<(), Failure> {
    session
        .terminal
        .print(&list::render(cluster, Format::Pretty, false))
}

pub(super) fn confirm(session: &mut Session, members: &[Member], action: &str) -> Result<(), Failure> {
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    session.terminal.confirm(&format!(
        "Are you sure you want to {action} members {}?",
        names.join(", ")
    ))
}

/// Counts failures and turns them into the command's own.
#[derive(Default)]
pub(super) struct Tally {
    failed: Vec<String>,
}

impl Tally {
    /// Prints what a member could not do.
    pub(super) fn failed(&mut self, session: &mut Session, name: &str, line: &str) -> Result<(), Failure> {
        self.failed.push(name.to_owned());
        session.terminal.print(line)
    }

    /// The same for a member that could not be asked.
    pub(super) fn unreachable(
        &mut self,
        session: &mut Session,
        name: &str,
        action: &str,
        error: &Failure,
    ) -> Result<(), Failure> {
        let causes = error.causes.join(": ");
        self.failed(
            session,
            name,
            &format!("Failed: {action} for member {name}, {}: {causes}", error.message),
        )?;
        if let Some(hint) = &error.hint {
            session.terminal.note(&format!("hint: {hint}"));
        }
        Ok(())
    }

    /// The command's end.
    pub(super) fn end(self, action: &str) -> Result<(), Failure> {
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(
            Failure::new(format!("{action} failed for {}", self.failed.join(", ")))
                .hint("`surus explain NODE` shows what such a member believes and what keeps it from acting"),
        )
    }
}

pub(super) fn refusal(action: &str, name: &str, reply: &Reply) -> String {
    format!(
        "Failed: {action} for member {name}, status code={}, ({})",
        reply.status,
        reply.summary()
    )
}

/// `restart`.
pub fn restart(session: &mut Session, arguments: &cli::Restart) -> Result<(), Failure> {
    if let Some(version) = &arguments.pg_version {
        check_version(version)?;
    }
    let scheduled = schedule(arguments.scheduled.as_deref(), session.access.now(), "restart")?;
    let (cluster, names) = session.cluster_and_members(&arguments.targets.names)?;
    let mut members = choose(&cluster, &names, arguments.role)?;
    if arguments.pending {
        members.retain(|member| member.published("pending_restart").is_some());
        if members.is_empty() {
            return session.terminal.print("No member waits for a restart");
        }
    }
    if cluster.topology.paused && scheduled.is_some() {
        return Err(
            Failure::new("Can't schedule restart in the paused state").hint("`surus resume` ends the pause")
        );
    }
    if arguments.any {
        // A replica rather than the leader: it costs nobody a write.
        let leader = cluster.topology.leader.as_deref();
        members.sort_by_key(|member| leader == Some(member.name.as_str()));
        members.truncate(1);
    }
    // Replicas first, so that a setting that they refuse does not take the leader down.
    let leader = cluster.topology.leader.as_deref();
    members.sort_by_key(|member| leader == Some(member.name.as_str()));
    show(session, &cluster)?;
    if !arguments.force {
        confirm(session, &members, "restart")?;
    }
    let mut body = Map::new();
    if let Some(time) = &scheduled {
        body.insert("schedule".into(), json!(time));
    }
    if arguments.pending {
        body.insert("restart_pending".into(), json!(true));
    }
    if let Some(version) = &arguments.pg_version {
        body.insert("postgres_version".into(), json!(version));
    }
    if let Some(timeout) = arguments.timeout {
        body.insert("timeout".into(), json!(timeout.as_secs().max(1)));
    }
    let seconds = arguments.timeout.map_or_else(
        || config_seconds(&cluster.topology, "primary_start_timeout", START_TIMEOUT),
        |timeout| timeout.as_secs(),
    );
    let mut tally = Tally::default();
    for member in &members {
        let name = &member.name;
        let request = Request::new("POST", "restart").body(Value::Object(body.clone()));
        let request = request.timeout(Duration::from_secs(seconds.saturating_add(60)));
        let progress = session
            .terminal
            .progress(&format!("Restarting PostgreSQL of {name}"));
        let reply = session.ask(member, &request);
        drop(progress);
        match reply {
            Ok(reply) if reply.status == 200 => {
                session
                    .terminal
                    .print(&format!("Success: restart on member {name}"))?;
            }
            Ok(reply) if reply.status == 202 => {
                session
                    .terminal
                    .print(&format!("Success: restart scheduled on member {name}"))?;
            }
            Ok(reply) if reply.status == 409 => {
                tally.failed(
                    session,
                    name,
                    &format!("Failed: another restart is already scheduled on member {name}"),
                )?;
            }
            Ok(reply) => tally.failed(session, name, &refusal("restart", name, &reply))?,
            Err(error) => tally.unreachable(session, name, "restart", &error)?,
        }
    }
    tally.end("restart")
}

/// A version as PostgreSQL writes it: `15.18`, or `9.6.24` in old days.
fn check_version(text: &str) -> Result<(), Failure> {
    let parts: Vec<_> = text.split('.').collect();
    let numeric = parts
        .iter()
        .all(|part| !part.is_empty() && part.len() < 5 && part.bytes().all(|b| b.is_ascii_digit()));
    if numeric && matches!(parts.len(), 2 | 3) {
        return Ok(());
    }
    Err(Failure::new(format!("`{text}` is no version of PostgreSQL")).hint("write it like 15.18"))
}

/// `reload`.
pub fn reload(session: &mut Session, arguments: &cli::Reload) -> Result<(), Failure> {
    let (cluster, names) = session.cluster_and_members(&arguments.targets.names)?;
    let members = choose(&cluster, &names, arguments.role)?;
    show(session, &cluster)?;
    if !arguments.force {
        confirm(session, &members, "reload")?;
    }
    let seconds = config_seconds(&cluster.topology, "loop_wait", 10);
    let mut tally = Tally::default();
    for member in &members {
        let name = &member.name;
        match session.ask(member, &Request::new("POST", "reload")) {
            Ok(reply) if reply.status == 200 => {
                session
                    .terminal
                    .print(&format!("No changes to apply on member {name}"))?;
            }
            Ok(reply) if reply.status == 202 => session.terminal.print(&format!(
                "Reload request received for member {name} and will be processed within {seconds} seconds"
            ))?,
            Ok(reply) => tally.failed(session, name, &refusal("reload", name, &reply))?,
            Err(error) => tally.unreachable(session, name, "reload", &error)?,
        }
    }
    tally.end("reload")
}

/// `reinit`.
pub fn reinit(session: &mut Session, arguments: &cli::Reinit) -> Result<(), Failure> {
    let (cluster, mut names) = session.cluster_and_members(&arguments.targets.names)?;
    let replicas = with_role(&cluster.topology, Role::Replica);
    let known: Vec<_> = replicas.iter().map(|member| member.name.as_str()).collect();
    show(session, &cluster)?;
    if names.is_empty() {
        let hint = format!(
            "name the members whose data shall be thrown away: {}",
            known.join(", ")
        );
        if arguments.force || !session.terminal.interactive {
            return Err(Failure::new("no member was named").hint(hint));
        }
        let answer = session.terminal.ask(
            &format!("Which member do you want to reinitialize ({})", known.join(", ")),
            None,
        )?;
        names = answer
            .split([',', ' '])
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            return Err(Failure::new("no member was named").hint(hint));
        }
    }
    if let Some(leader) = names
        .iter()
        .find(|name| cluster.topology.leader.as_ref() == Some(name))
    {
        return Err(
            Failure::new(format!("{leader} is the leader: its data are the ones to keep"))
                .hint("hand the leadership over with `surus switchover` first"),
        );
    }
    let members = choose(&cluster, &names, Role::Replica)?;
    if !arguments.force {
        confirm(session, &members, "reinitialize")?;
    }
    let mut tally = Tally::default();
    let mut started = Vec::new();
    for member in members {
        let name = member.name.clone();
        let reply = ask_reinit(session, &member, arguments)?;
        match reply {
            Ok(reply) if reply.status == 200 => {
                session
                    .terminal
                    .print(&format!("Success: reinitialize for member {name}"))?;
                started.push(member);
            }
            Ok(reply) => tally.failed(session, &name, &refusal("reinitialize", &name, &reply))?,
            Err(error) => tally.unreachable(session, &name, "reinitialize", &error)?,
        }
    }
    if arguments.wait && !started.is_empty() {
        let lost = wait_for_reinit(session, &cluster.scope, started)?;
        for name in lost {
            tally.failed(session, &name, &format!("Failed: reinitialize for member {name}"))?;
        }
    }
    tally.end("reinitialize")
}

/// Asks once, and a second time with force when the member is busy and the operator wants that cancelled.
fn ask_reinit(
    session: &mut Session,
    member: &Member,
    arguments: &cli::Reinit,
) -> Result<Result<Reply, Failure>, Failure> {
    let request = |force: bool| {
        Request::new("POST", "reinitialize")
            .body(json!({"force": force, "from_leader": arguments.from_leader}))
    };
    let reply = session.ask(member, &request(arguments.force));
    let Ok(busy) = &reply else { return Ok(reply) };
    let is_busy = busy.status == 503 && busy.summary().ends_with("already in progress");
    if !is_busy || !session.terminal.interactive {
        return Ok(reply);
    }
    session
        .terminal
        .note(&format!("{}: {}", member.name, busy.summary()));
    let answer = session
        .terminal
        .ask("Do you want to cancel it and reinitialize anyway? [y/N]", None)?;
    if matches!(answer.as_str(), "y" | "Y" | "yes") {
        Ok(session.ask(member, &request(true)))
    } else {
        Ok(reply)
    }
}

/// Follows the members until their copies are complete; returns those that gave up.
fn wait_for_reinit(
    session: &mut Session,
    scope: &str,
    mut waiting: Vec<Member>,
) -> Result<Vec<String>, Failure> {
    const STEP: Duration = Duration::from_millis(500);
    // A copy takes as long as it takes; only a member that says nothing for this long is given up.
    const SILENCE: Duration = Duration::from_secs(60);
    let names = |members: &[Member]| {
        members
            .iter()
            .map(|member| member.name.clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let line = format!("Waiting for reinitialize to complete on: {}", names(&waiting));
    let mut progress = session.terminal.progress(&line);
    let mut silent = Duration::ZERO;
    let mut begun = std::collections::BTreeSet::new();
    let mut rounds = 0_u32;
    loop {
        session.access.sleep(STEP);
        rounds += 1;
        let mut still = Vec::new();
        let mut heard = false;
        for member in waiting {
            let status = session
                .ask(&member, &Request::new("GET", "patroni"))
                .map(|reply| reply.json());
            heard |= status.is_ok();
            let status = status.unwrap_or(Value::Null);
            let state = status.get("state").and_then(Value::as_str).unwrap_or_default();
            if state == "creating replica" {
                begun.insert(member.name.clone());
            }
            // The order may take a moment to be acted on, and a small copy may be over between two looks.
            let settled = begun.contains(&member.name) || rounds > 10;
            if settled && matches!(state, "running" | "streaming") {
                session
                    .terminal
                    .print(&format!("Reinitialize is completed on: {}", member.name))?;
                continue;
            }
            show_progress(session, &mut progress, &member.name, state, &status);
            still.push(member);
        }
        if still.is_empty() {
            return Ok(Vec::new());
        }
        silent = if heard { Duration::ZERO } else { silent + STEP };
        if silent >= SILENCE {
            session.terminal.warn(&format!(
                "no answer from {} for {} seconds",
                names(&still),
                SILENCE.as_secs()
            ));
            session
                .terminal
                .note(&format!("hint: `surus list {scope} -W` shows when they are back"));
            return Ok(still.into_iter().map(|member| member.name).collect());
        }
        waiting = still;
    }
}

fn show_progress(session: &mut Session, progress: &mut Progress, name: &str, state: &str, status: &Value) {
    let work = status
        .get("surus")
        .and_then(|surus| surus.get("progress"))
        .unwrap_or(&Value::Null);
    let number = |key: &str| work.get(key).and_then(Value::as_u64);
    let what = work.get("what").and_then(Value::as_str).unwrap_or(state);
    match (number("done"), number("total")) {
        (Some(done), Some(total)) if total > 0 => {
            progress.bytes(&mut session.terminal, &format!("{name}: {what}"), done, total);
        }
        _ if state.is_empty() => progress.say(&mut session.terminal, &format!("{name} does not answer")),
        _ => progress.say(&mut session.terminal, &format!("{name}: {what}")),
    }
}
