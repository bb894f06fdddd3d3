//! pg_hba.conf: the user's lines, and a check that the agent and the members are not shut out by them.
//!
//! Lines are taken as they are. Only when no line at all lets the agent's superuser in on this machine (or, in a new cluster, the
//! replication role from anywhere), one is put in front of them, for that role and with a password, and the log says so.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::config::settings::{Bootstrap, PostgresSettings};

/// A connection to judge.
#[derive(Debug, Clone, Copy)]
struct Attempt<'a> {
    /// Through the Unix socket.
    local: bool,
    user: &'a str,
    /// `replication`, or a database.
    database: &'a str,
    /// The rule's address must be one that other hosts can have.
    remote: bool,
}

/// The user says in initdb's options how roles show who they are.
pub(super) fn is_chosen(bootstrap: &Bootstrap) -> bool {
    bootstrap
        .initdb
        .iter()
        .any(|(name, _)| name.trim_start_matches('-').starts_with("auth"))
}

/// The whole file, `None` if it is not ours to write.
pub(super) fn render(settings: &PostgresSettings, bootstrap: Option<&[String]>) -> Option<String> {
    let lines = match (&settings.pg_hba, bootstrap) {
        (Some(lines), _) => lines.as_slice(),
        (None, Some(lines)) if !lines.is_empty() => lines,
        _ => return None,
    };
    let mut all = Vec::new();
    if !agent_enters(settings, lines) {
        let method = method(settings.superuser.password.is_some());
        let rule = format!("local all {} {method}", quoted(&settings.superuser.username));
        tracing::warn!(
            rule,
            "no line of pg_hba lets the agent connect, so one was put in front"
        );
        all.push(rule);
    }
    if bootstrap.is_some() {
        for (role, database) in remote_roles(settings) {
            let enters = |local| {
                admits(
                    lines,
                    Attempt {
                        local,
                        user: role,
                        database,
                        remote: true,
                    },
                )
            };
            if !enters(false) {
                for network in ["0.0.0.0/0", "::/0"] {
                    all.push(format!(
                        "host {database} {} {network} {}",
                        quoted(role),
                        method(true)
                    ));
                }
                tracing::warn!(
                    role,
                    database,
                    "no line of pg_hba lets members connect as this role, so lines with a password were put in front; name your network in bootstrap.pg_hba"
                );
            }
        }
    }
    all.extend(lines.iter().cloned());
    Some(file(&all))
}

/// Lines for a new cluster whose user has written none.
pub(super) fn default_lines(settings: &PostgresSettings) -> Vec<String> {
    let password = settings.superuser.password.is_some();
    let own = if password { method(true) } else { "trust" };
    let mut lines = vec![
        format!("local all all {own}"),
        format!("host all all 127.0.0.1/32 {own}"),
        format!("host all all ::1/128 {own}"),
        format!("local replication all {own}"),
        format!("host replication all 127.0.0.1/32 {own}"),
        format!("host replication all ::1/128 {own}"),
    ];
    if password {
        lines.push(format!("host all all all {own}"));
    }
    lines
}

/// A file of these lines.
pub(super) fn file(lines: &[String]) -> String {
    let mut content = "# Written by Surus from the configuration: changes made here are lost.\n".to_owned();
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(content, "{line}");
    }
    content
}

/// `md5` takes both kinds of stored passwords.
fn method(password: bool) -> &'static str {
    if password { "md5" } else { "peer" }
}

/// What these rules say of the superuser's connections from this host, and nobody else's: while a new cluster is being made nobody may
/// use it, for nobody knows yet whether it will be the one.
///
/// A rule for other hosts too applies to what comes from this one, unless it would let in without a password who was not meant. Rules in
/// other files are left out.
pub(super) fn superuser_here(settings: &PostgresSettings, content: &str) -> String {
    let own = |line| own_rule(line, &settings.superuser.username);
    with_agent(settings, content.lines().filter_map(own).collect())
}

/// A file of these lines, and of one that lets the agent in if they do not.
fn with_agent(settings: &PostgresSettings, mut lines: Vec<String>) -> String {
    let superuser = &settings.superuser;
    if !agent_enters(settings, &lines) {
        let method = method(superuser.password.is_some());
        lines.insert(0, format!("local all {} {method}", quoted(&superuser.username)));
    }
    file(&lines)
}

/// What these rules say of the members of the cluster: of the agent's superuser on this host, of replication, and of who rewinds.
pub(super) fn members(settings: &PostgresSettings, content: &str) -> String {
    let superuser = &settings.superuser.username;
    let rewinds = settings.rewind.as_ref().unwrap_or(&settings.superuser);
    let rewinds = settings.use_pg_rewind.then_some(&rewinds.username);
    let mut lines = Vec::new();
    for line in content.lines() {
        lines.extend(replication_rule(line));
        lines.extend(rewinds.and_then(|user| rule_of(line, user)));
        lines.extend(own_rule(line, superuser));
    }
    with_agent(settings, lines)
}

/// What a line says, without what is only said about it.
fn words(line: &str) -> Vec<&str> {
    let rule = line.split('#').next().unwrap_or_default();
    rule.split_whitespace().collect()
}

/// A rule for these users is one for `user`.
fn means(users: &str, user: &str) -> bool {
    let named = |name: &str| name == "all" || name.trim_matches('"') == user;
    users.split(',').any(named)
}

/// A rule as it is for replication.
fn replication_rule(line: &str) -> Option<String> {
    let words = words(line);
    let meant = words.get(1)?.split(',').any(|name| name == "replication");
    meant.then(|| format!("{} replication {}", words[0], words[2..].join(" ")))
}

/// A rule as it is for `user`, wherever from, to databases.
fn rule_of(line: &str, user: &str) -> Option<String> {
    let words = words(line);
    let (databases, users) = (*words.get(1)?, *words.get(2)?);
    let rest = words.get(3..)?.join(" ");
    (means(users, user) && databases != "replication")
        .then(|| format!("{} {databases} {} {rest}", words[0], quoted(user)))
}

/// A rule as it is for connections of `user` from this host to databases.
fn own_rule(line: &str, user: &str) -> Option<String> {
    let words = words(line);
    let (kind, databases, users) = (*words.first()?, *words.get(1)?, *words.get(2)?);
    if databases == "replication" || !means(users, user) {
        return None;
    }
    let user = quoted(user);
    if kind == "local" {
        return Some(format!("local {databases} {user} {}", words[3..].join(" ")));
    }
    if !kind.starts_with("host") {
        return None;
    }
    let (address, mut rest) = words[3..].split_first()?;
    let mut from = (*address).to_owned();
    if rest.first().is_some_and(|word| word.parse::<IpAddr>().is_ok()) {
        from = format!("{from} {}", rest[0]);
        rest = &rest[1..];
    }
    let everybody = *address == "all" || address.ends_with("/0");
    if !covers(address, false) || everybody {
        if rest.first() == Some(&"trust") && !everybody {
            return None;
        }
        "samehost".clone_into(&mut from);
    }
    Some(format!("{kind} {databases} {user} {from} {}", rest.join(" ")))
}

/// Roles that connect from other members, with what they connect to; only those with a password can be let in from anywhere.
fn remote_roles(settings: &PostgresSettings) -> Vec<(&str, &str)> {
    let mut roles = Vec::new();
    if settings.replication.password.is_some() {
        roles.push((settings.replication.username.as_str(), "replication"));
    }
    if let Some(rewind) = &settings.rewind
        && rewind.password.is_some()
        && settings.use_pg_rewind
    {
        roles.push((rewind.username.as_str(), settings.database.as_str()));
    }
    roles
}

fn agent_enters(settings: &PostgresSettings, lines: &[String]) -> bool {
    [true, false].into_iter().any(|local| {
        admits(
            lines,
            Attempt {
                local,
                user: &settings.superuser.username,
                database: &settings.database,
                remote: false,
            },
        )
    })
}

/// The first line that matches the attempt lets it in. Lines that include other files, and addresses that are host names, count as
/// matching: what cannot be judged from here is left to PostgreSQL.
fn admits(lines: &[String], attempt: Attempt<'_>) -> bool {
    for line in lines {
        let words = words(line);
        let Some(kind) = words.first() else { continue };
        if kind.starts_with("include") {
            return true;
        }
        let kind_matches = match *kind {
            "local" => attempt.local,
            "host" | "hostnossl" | "hostnogssenc" => !attempt.local,
            // The agent's own connections are not encrypted, those of members are if they can be.
            "hostssl" => !attempt.local && attempt.remote,
            _ => false,
        };
        let (Some(databases), Some(users)) = (words.get(1), words.get(2)) else {
            continue;
        };
        let address = if attempt.local { None } else { words.get(3) };
        let database_matches = databases.split(',').any(|name| {
            let name = name.trim_matches('"');
            name == attempt.database
                || (name == "all" && attempt.database != "replication")
                || name.starts_with(['@', '/', '+'])
        });
        let user_matches = users.split(',').any(|name| {
            let bare = name.trim_matches('"');
            bare == attempt.user || name == "all" || name.starts_with(['+', '@', '/'])
        });
        let address_matches = attempt.local || address.is_some_and(|address| covers(address, attempt.remote));
        if kind_matches && database_matches && user_matches && address_matches {
            let rejected = words.iter().skip(3).any(|word| *word == "reject");
            return !rejected;
        }
    }
    false
}

/// The address of a rule covers this machine, or may cover another one.
fn covers(address: &str, remote: bool) -> bool {
    let loopback = |ip: IpAddr| ip.is_loopback();
    match address.split('/').next().unwrap_or_default().parse::<IpAddr>() {
        Ok(ip) if remote => !loopback(ip) || address.ends_with("/0") || address.ends_with("/8"),
        Ok(ip) => loopback(ip) || ip.is_unspecified(),
        Err(_) => match address {
            "samehost" => !remote,
            _ => true,
        },
    }
}

/// A role's name as pg_hba.conf takes it.
fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], local: bool, user: &str, database: &str, remote: bool) -> bool {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        admits(
            &lines,
            Attempt {
                local,
                user,
                database,
                remote,
            },
        )
    }

    #[test]
    fn the_first_matching_line_decides() {
        let lines = [
            "# comment",
            "host all mallory 0.0.0.0/0 reject",
            "host replication replicator 10.0.0.0/24 md5",
            "host all all 0.0.0.0/0 md5",
        ];
        assert!(check(&lines, false, "postgres", "postgres", false));
        assert!(!check(&lines, true, "postgres", "postgres", false));
        assert!(!check(&lines, false, "mallory", "postgres", true));
        assert!(check(&lines, false, "replicator", "replication", true));
        assert!(!check(&lines, false, "other", "replication", true));
        assert!(check(
            &["local all all peer"],
            true,
            "postgres",
            "postgres",
            false
        ));
    }

    #[test]
    fn a_cluster_in_the_making_is_for_the_superuser_on_this_host_alone() {
        let mut settings = crate::config::postgresql::blank("demo", "n1");
        settings.superuser.password = Some("secret".to_owned());
        let content = "# mine
local all all peer
host replication replicator 10.0.0.0/8 md5
host all app all md5
host all all 127.0.0.1/32 md5
hostssl all app,postgres 10.0.0.0 255.0.0.0 scram-sha-256
host all all 10.1.2.3/32 trust
host all all all trust
host all all 0.0.0.0/0 md5  # everybody
include other.conf
";
        let here = superuser_here(&settings, content);
        let lines: Vec<&str> = here.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "local all \"postgres\" peer",
                "host all \"postgres\" 127.0.0.1/32 md5",
                "hostssl all \"postgres\" samehost scram-sha-256",
                "host all \"postgres\" samehost trust",
                "host all \"postgres\" samehost md5",
            ]
        );
        let shut = superuser_here(&settings, "host all all 10.0.0.0/8 reject");
        assert_eq!(shut.lines().nth(1), Some("local all \"postgres\" md5"));
    }

    #[test]
    fn a_loopback_rule_lets_no_member_in() {
        let lines = ["host replication all 127.0.0.1/32 md5"];
        assert!(!check(&lines, false, "replicator", "replication", true));
        assert!(check(
            &["host replication all 127.0.0.0/8 md5"],
            false,
            "replicator",
            "replication",
            true
        ));
        assert!(check(
            &["host replication all samenet md5"],
            false,
            "r",
            "replication",
            true
        ));
        assert!(check(
            &["hostssl replication all all md5"],
            false,
            "r",
            "replication",
            true
        ));
        assert!(!check(&["hostssl all all all md5"], false, "r", "db", false));
    }

    #[test]
    fn behind_a_gate_the_rules_of_members_are_left() {
        let mut settings = crate::config::postgresql::blank("main", "n1");
        settings.use_pg_rewind = true;
        let rules = "local all all peer\n\
            host replication replicator 10.0.0.0/8 md5 # standbys\n\
            host all all 10.0.0.0/8 scram-sha-256\n\
            host app app 0.0.0.0/0 md5\n";
        let left = members(&settings, rules);
        let lines: Vec<&str> = left.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "local all \"postgres\" peer",
                "local all \"postgres\" peer",
                "host replication replicator 10.0.0.0/8 md5",
                "host all \"postgres\" 10.0.0.0/8 scram-sha-256",
                "host all \"postgres\" samehost scram-sha-256",
            ]
        );
    }
}
