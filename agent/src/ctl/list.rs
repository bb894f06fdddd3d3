//! `list`, `topology` and `history`: what is the case, as a table.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ctl::cli::{self, Format, Watch};
use crate::ctl::failure::{Blame, Failure};
use crate::ctl::session::{Cluster, Session};
use crate::ctl::table::{Column, Table};
use crate::topology::{Member, Position, Topology};

const MEBIBYTE: u64 = 1024 * 1024;

/// The columns that every table of members has; `Cluster` is left out of pretty ones.
const COLUMNS: [Column; 10] = [
    Column::text("Cluster"),
    Column::text("Member"),
    Column::text("Host"),
    Column::text("Role"),
    Column::text("State"),
    Column::number("TL", "TL"),
    Column::number("Receive LSN", "Receive LSN"),
    Column::number("Receive Lag", "Lag"),
    Column::number("Replay LSN", "Replay LSN"),
    Column::number("Replay Lag", "Lag"),
];

/// The columns that appear when a member has something to say in them, with the key of its record.
const EXTRA: [(Column, &str); 4] = [
    (Column::text("Pending restart"), "pending_restart"),
    (Column::text("Pending restart reason"), "pending_restart_reason"),
    (Column::text("Scheduled restart"), "scheduled_restart"),
    (Column::text("Tags"), "tags"),
];

/// `list`.
pub fn list(session: &mut Session, arguments: &cli::List) -> Result<(), Failure> {
    let scopes = scopes(session, &arguments.clusters)?;
    watching(session, arguments.watch, |session| {
        let mut text = String::new();
        if arguments.timestamp {
            text.push_str(&format!("{}\n", session.timestamp(0)));
        }
        for scope in &scopes {
            let cluster = session.read(scope)?;
            text.push_str(&render(&cluster, arguments.format, arguments.extended));
        }
        Ok(text)
    })
}

/// `topology`.
pub fn topology(session: &mut Session, arguments: &cli::Topology) -> Result<(), Failure> {
    let scopes = scopes(session, &arguments.clusters)?;
    watching(session, arguments.watch, |session| {
        let mut text = String::new();
        for scope in &scopes {
            let cluster = session.read(scope)?;
            text.push_str(&tree(&cluster));
        }
        Ok(text)
    })
}

/// `history`.
pub fn history(session: &mut Session, arguments: &cli::History) -> Result<(), Failure> {
    let cluster = session.cluster(arguments.cluster.cluster.as_deref())?;
    let lines = cluster.raw.json("history").unwrap_or(Value::Null);
    let columns = vec![
        Column::number("TL", "TL"),
        Column::number("LSN", "LSN"),
        Column::text("Reason"),
        Column::text("Timestamp"),
        Column::text("New Leader"),
    ];
    let cell = |line: &Value, nth: usize| line.get(nth).cloned().unwrap_or_else(|| json!(""));
    let rows = lines
        .as_array()
        .into_iter()
        .flatten()
        .map(|line| (0..5).map(|nth| cell(line, nth)).collect());
    let table = Table {
        columns,
        rows: rows.collect(),
    };
    let text = table
        .for_programs(arguments.format, false)
        .unwrap_or_else(|| table.pretty(""));
    session.terminal.print(&text)
}

/// One cluster in one format, with a line break at the end.
#[must_use]
pub fn render(cluster: &Cluster, format: Format, extended: bool) -> String {
    let members: Vec<_> = cluster
        .topology
        .members
        .iter()
        .map(|member| (member, member.name.clone()))
        .collect();
    let table = table(cluster, &members, format == Format::Pretty, extended);
    match table.for_programs(format, true) {
        Some(text) => text.trim_end().to_owned() + "\n",
        None => pretty(cluster, table),
    }
}

fn pretty(cluster: &Cluster, table: Table) -> String {
    let identity = match cluster.topology.initialize.as_deref() {
        None => "uninitialized",
        Some("") => "initializing",
        Some(system) => system,
    };
    let title = format!("Cluster: {} ({identity})", cluster.scope);
    format!(
        "{}\n{}",
        table.without_first_column().pretty(&title),
        footer(&cluster.topology)
    )
}

fn footer(topology: &Topology) -> String {
    let mut lines = Vec::new();
    if topology.paused {
        lines.push(" Maintenance mode: on".to_owned());
    }
    if let Some(scheduled) = &topology.scheduled {
        let head = " Switchover scheduled at: ";
        lines.push(format!("{head}{}", scheduled.at));
        for (word, name) in [("from: ", &scheduled.from), ("to: ", &scheduled.to)] {
            if let Some(name) = name {
                lines.push(format!("{word:>width$}{name}", width = head.len()));
            }
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The members as a tree: each below the one it streams from.
fn tree(cluster: &Cluster) -> String {
    let members = in_tree_order(&cluster.topology);
    let mut table = table(cluster, &members, true, false);
    if let Some(nth) = table.columns.iter().position(|column| column.name == "Tags") {
        for row in &mut table.rows {
            if row[nth].is_object() {
                row[nth] = json!(crate::ctl::yaml::flow(&row[nth]));
            }
        }
    }
    pretty(cluster, table)
}

/// Each member with its name as the tree shows it. Members that stream from nobody known hang below the leader, and
/// members in a circle, which would hang nowhere, follow at the end.
fn in_tree_order(topology: &Topology) -> Vec<(&Member, String)> {
    let is_leader = |member: &Member| topology.leader.as_deref() == Some(member.name.as_str());
    let parent = |member: &Member| -> Option<String> {
        if is_leader(member) {
            return None;
        }
        let upstream = member.tag("replicatefrom").and_then(Value::as_str);
        let known = upstream.filter(|name| *name != member.name && topology.member(name).is_some());
        known
            .map(str::to_owned)
            .or_else(|| topology.leader_member().map(|leader| leader.name.clone()))
    };
    fn visit<'a>(
        topology: &'a Topology,
        parent: &dyn Fn(&Member) -> Option<String>,
        of: Option<&str>,
        depth: usize,
        order: &mut Vec<(&'a Member, String)>,
    ) {
        for member in &topology.members {
            if parent(member).as_deref() == of {
                let shown = if depth == 0 {
                    member.name.clone()
                } else {
                    format!("{}+ {}", "  ".repeat(depth - 1), member.name)
                };
                order.push((member, shown));
                visit(topology, parent, Some(&member.name), depth + 1, order);
            }
        }
    }
    let mut order = Vec::new();
    visit(topology, &parent, None, 0, &mut order);
    for member in &topology.members {
        if !order.iter().any(|(listed, _)| listed.name == member.name) {
            order.push((member, member.name.clone()));
        }
    }
    order
}

fn table(cluster: &Cluster, members: &[(&Member, String)], for_people: bool, extended: bool) -> Table {
    let topology = &cluster.topology;
    let extra: Vec<_> = EXTRA
        .iter()
        .filter(|(_, key)| {
            extended
                || topology
                    .members
                    .iter()
                    .any(|member| member.published(key).is_some())
        })
        .collect();
    let columns = COLUMNS
        .into_iter()
        .chain(extra.iter().map(|(column, _)| *column))
        .collect();
    let ports = topology.shows_ports();
    let row = |(member, shown): &(&Member, String)| {
        let (received, replayed) = positions(member);
        let mut row = vec![
            json!(cluster.scope),
            json!(shown),
            json!(address(member, ports)),
            json!(title_case(&member.role)),
            json!(member.state),
            member.timeline.map_or(json!(""), |timeline| json!(timeline)),
        ];
        for position in [received, replayed] {
            match position {
                Some(Position::At { lsn, lag }) => {
                    row.extend([json!(lsn.to_string()), json!((lag + MEBIBYTE / 2) / MEBIBYTE)]);
                }
                Some(Position::Unknown) => row.extend([json!("unknown"), json!("")]),
                None => row.extend([json!(""), json!("")]),
            }
        }
        row.extend(extra.iter().map(|(_, key)| extra_cell(member, key, for_people)));
        row
    };
    Table {
        columns,
        rows: members.iter().map(row).collect(),
    }
}

/// What was received and what was replayed. An agent that publishes only one position means the received one while
/// it streams, and the replayed one otherwise.
fn positions(member: &Member) -> (Option<Position>, Option<Position>) {
    let known = |position| matches!(position, Some(Position::At { .. }));
    if known(member.received) || known(member.replayed) || !known(member.position) {
        return (member.received, member.replayed);
    }
    if member.state == "streaming" {
        (member.position, member.replayed)
    } else {
        (member.received, member.position)
    }
}

fn address(member: &Member, ports: bool) -> String {
    match (&member.host, member.port) {
        (Some(host), Some(port)) if ports => format!("{host}:{port}"),
        (Some(host), _) => host.clone(),
        (None, _) => String::new(),
    }
}

fn title_case(role: &str) -> String {
    let words = role.split('_').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_uppercase().chain(letters).collect::<String>())
            .unwrap_or_default()
    });
    words.collect::<Vec<_>>().join(" ")
}

fn extra_cell(member: &Member, key: &str, for_people: bool) -> Value {
    let Some(value) = member.published(key) else {
        return json!("");
    };
    let text = |value: &Value, key: &str| match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    match key {
        "pending_restart" => json!("*"),
        "pending_restart_reason" => {
            let lines = value.as_object().into_iter().flatten().map(|(name, change)| {
                let line = format!(
                    "{name}: {}->{}",
                    text(change, "old_value"),
                    text(change, "new_value")
                );
                if for_people && line.chars().count() > 50 {
                    format!("{name}: [hidden - too long]")
                } else {
                    line
                }
            });
            json!(lines.collect::<Vec<_>>().join("\n"))
        }
        "scheduled_restart" => {
            let version = value.get("postgres_version").and_then(Value::as_str);
            let condition = version
                .map(|version| format!(" if version < {version}"))
                .unwrap_or_default();
            json!(text(value, "schedule") + &condition)
        }
        _ => value.clone(),
    }
}

fn scopes(session: &Session, named: &[String]) -> Result<Vec<String>, Failure> {
    if named.is_empty() {
        return Ok(vec![session.scope(None)?]);
    }
    named.iter().map(|name| session.scope(Some(name))).collect()
}

/// Prints once, or again and again. While repeating, an error takes the place of the output: the next round may well
/// succeed, and an operator who watches a failure needs that most.
fn watching(
    session: &mut Session,
    watch: Watch,
    mut show: impl FnMut(&mut Session) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let every = watch.every.or(watch.watch.then_some(Duration::from_secs(2)));
    let Some(every) = every else {
        let text = show(session)?;
        return session.terminal.print(&text);
    };
    loop {
        match show(session) {
            Ok(text) if session.terminal.out_is_terminal => session.terminal.print(&in_place(&text))?,
            Ok(text) => session.terminal.print(&text)?,
            Err(failure) if failure.blame == Blame::Reader => return Err(failure),
            Err(failure) if session.terminal.out_is_terminal => {
                session.terminal.print(&in_place(&format!("error: {failure}")))?;
            }
            Err(failure) => session.terminal.note(&format!("error: {failure}")),
        }
        session.access.sleep(every);
    }
}

/// Over what stands there, line by line, without the flicker of clearing first.
fn in_place(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}
