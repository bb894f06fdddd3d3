//! `dsn`, `version` and `explain`: one member asked about itself.

use serde_json::Value;

use crate::ctl::access::{Reply, Request};
use crate::ctl::cli::{self, Role};
use crate::ctl::failure::Failure;
use crate::ctl::members::with_role;
use crate::ctl::session::{Session, known_members};

/// `dsn`.
pub fn dsn(session: &mut Session, arguments: &cli::Dsn) -> Result<(), Failure> {
    let cluster = session.cluster(arguments.cluster.cluster.as_deref())?;
    let role = match &arguments.member {
        Some(_) => Role::Any,
        None => arguments.role.unwrap_or(Role::Leader),
    };
    let wanted = arguments.member.as_deref();
    let found = with_role(&cluster.topology, role)
        .into_iter()
        .find(|member| member.host.is_some() && wanted.is_none_or(|name| member.name == name));
    let Some(member) = found else {
        return Err(Failure::new("Can not find a suitable member").hint(known_members(&cluster.topology)));
    };
    let host = member.host.unwrap_or_default();
    session
        .terminal
        .print(&format!("host={host} port={}", member.port.unwrap_or(5432)))
}

/// `version`.
pub fn version(session: &mut Session, arguments: &cli::Version) -> Result<(), Failure> {
    let (cluster, names) = session.cluster_and_members(&arguments.targets.names)?;
    session.terminal.print("")?;
    for member in &cluster.topology.members {
        if !names.is_empty() && !names.contains(&member.name) {
            continue;
        }
        match session.ask(member, &Request::new("GET", "patroni")) {
            Ok(reply) => {
                let line = format!("{}: {}", member.name, versions(&reply.json()));
                session.terminal.print(&line)?;
            }
            Err(error) => {
                let line = format!(
                    "{}: failed to get version: {}",
                    member.name,
                    error.causes.join(": ")
                );
                session.terminal.print(&line)?;
            }
        }
    }
    Ok(())
}

fn versions(status: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let agent = match text(status.get("surus").and_then(|part| part.get("version"))) {
        Some(version) => format!("Surus {version}"),
        None => {
            let version = text(status.get("patroni").and_then(|part| part.get("version")));
            format!("Patroni {}", version.as_deref().unwrap_or("unknown"))
        }
    };
    match status.get("server_version").and_then(Value::as_u64) {
        Some(number) => format!("{agent} PostgreSQL {}", server_version(number)),
        None => agent,
    }
}

/// 150018 is 15.18, and 90624 was 9.6.24.
fn server_version(number: u64) -> String {
    if number >= 100_000 {
        format!("{}.{}", number / 10_000, number % 10_000)
    } else {
        format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
    }
}

/// `explain`. The node of the configuration file is asked directly, so that it answers without etcd.
pub fn explain(session: &mut Session, arguments: &cli::Explain) -> Result<(), Failure> {
    let own = session.node.api_url.clone();
    let is_own = arguments.node.is_none() || arguments.node == session.node.name;
    let as_json = arguments.format == "json";
    let request = Request::new("GET", if as_json { "explain" } else { "explain?text" });
    let (name, reply) = match own {
        Some(api_url) if is_own => {
            let name = session
                .node
                .name
                .clone()
                .unwrap_or_else(|| "this node".to_owned());
            let reply = session.access.request(&api_url, &request).map_err(|error| {
                Failure::new(format!("cannot reach the agent of {name} at {api_url}"))
                    .because(&error)
                    .hint("is it running? `systemctl status surus` shows it; `surus explain NODE` asks another one")
            })?;
            (name, reply)
        }
        _ => {
            let Some(name) = arguments.node.clone() else {
                return Err(
                    Failure::new("the configuration describes no node of its own to ask")
                        .hint("name one: `surus explain NODE`, or the agent's own file with `-c FILE`"),
                );
            };
            let cluster = session.cluster(None)?;
            let Some(member) = cluster.topology.member(&name).cloned() else {
                return Err(
                    Failure::new(format!("{name} is not a member of cluster {}", cluster.scope))
                        .hint(known_members(&cluster.topology)),
                );
            };
            let reply = session.ask(&member, &request)?;
            (name, reply)
        }
    };
    let text = explanation(&name, &reply, as_json)?;
    session.terminal.print(&text)
}

fn explanation(name: &str, reply: &Reply, as_json: bool) -> Result<String, Failure> {
    // Patroni answers any path it does not know with its status, and with 503 unless it leads.
    if reply.status != 200 || reply.json().get("patroni").is_some() {
        return Err(Failure::new(format!(
            "{name} cannot explain itself: it answered {}",
            reply.status
        ))
        .hint("only agents of Surus can; `surus list` and the log of that agent tell more"));
    }
    let text = reply.text.trim_end();
    Ok(if text.is_empty() && !as_json {
        format!("{name} has not decided anything yet")
    } else {
        text.to_owned()
    })
}
