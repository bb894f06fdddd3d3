//! HAProxy in front of the cluster, configured as a published tutorial does (primary on 5000, statistics on 7000), and what it must
//! route where.
//!
//! The check intervals are the tutorial's (`inter 3s fall 3 rise 2`): a client behind it sees HAProxy's delay on top of the cluster's.
//! The door to the replicas on 5001 is ours, with the same intervals.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Child;

use crate::client;
use crate::error::{Error, Result};
use crate::http;
use crate::layout::{Layout, MEMBERS, node_name};
use crate::proc::{self, Account};

/// The longest that HAProxy's settings let a change of role go unnoticed: a check every 3 s, three failures to go down, and some air.
pub(crate) const NOTICE: Duration = Duration::from_secs(15);

/// A running HAProxy.
#[derive(Debug)]
pub(crate) struct HaProxy {
    _process: Child,
}

fn configuration(layout: &Layout) -> String {
    let mut text = String::from(
        "global\n    maxconn 100\n    log 127.0.0.1 local2\n\n\
         defaults\n    log global\n    mode tcp\n    retries 2\n    timeout client 30m\n    timeout connect 4s\n    \
         timeout server 30m\n    timeout check 5s\n\n",
    );
    let _ = writeln!(
        text,
        "listen stats\n    mode http\n    bind {}\n    stats enable\n    stats uri /\n",
        layout.stats()
    );
    for (name, door, check) in [
        ("postgres", layout.primary(), "httpchk"),
        ("replicas", layout.replicas(), "httpchk GET /replica"),
    ] {
        let _ = writeln!(
            text,
            "listen {name}\n    bind {door}\n    option {check}\n    http-check expect status 200\n    \
             default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions"
        );
        for i in 0..MEMBERS {
            let (postgres, rest) = (layout.postgres(i), layout.rest(i).port());
            let _ = writeln!(
                text,
                "    server {} {postgres} maxconn 100 check port {rest}",
                node_name(i)
            );
        }
        text.push('\n');
    }
    text
}

impl HaProxy {
    /// Writes the configuration and starts HAProxy.
    pub(crate) fn start(layout: &Layout, account: &Account, program: &Path) -> Result<Self> {
        let dir: PathBuf = layout.root.join("haproxy");
        account.directory(&dir)?;
        let path = dir.join("haproxy.cfg");
        fs::write(&path, configuration(layout)).map_err(Error::io(|| format!("write {}", path.display())))?;
        let words =
            [program, Path::new("-db"), Path::new("-f"), &path].map(|word| word.display().to_string());
        let process = proc::start(account, None, &words, &dir, &dir.join("haproxy.log"))?;
        Ok(Self { _process: process })
    }
}

/// The template for operators, as the package installs it.
const TEMPLATE: &str = include_str!("../../agent/debian/haproxy.example.cfg");

/// A running HAProxy that the template configures.
#[derive(Debug)]
pub(crate) struct Tuned {
    _process: Child,
}

impl Tuned {
    /// Fills the template in and starts HAProxy.
    pub(crate) fn start(layout: &Layout, account: &Account, program: &Path) -> Result<Self> {
        let dir: PathBuf = layout.root.join("haproxy-tuned");
        account.directory(&dir)?;
        let path = dir.join("haproxy.cfg");
        fs::write(&path, filled(layout)).map_err(Error::io(|| format!("write {}", path.display())))?;
        let words =
            [program, Path::new("-db"), Path::new("-f"), &path].map(|word| word.display().to_string());
        let process = proc::start(account, None, &words, &dir, &dir.join("haproxy.log"))?;
        Ok(Self { _process: process })
    }
}

/// The template with the addresses of a cluster.
fn filled(layout: &Layout) -> String {
    let [primary, replicas] = layout.tuned();
    let mut text = TEMPLATE
        .replace("*:5000", &primary.to_string())
        .replace("*:5001", &replicas.to_string())
        .replace(
            "check port 8008",
            &format!("check port {}", layout.rest(0).port()),
        );
    for i in 0..MEMBERS {
        text = text.replace(&format!("10.0.0.{}:5432", i + 1), &layout.postgres(i).to_string());
    }
    text
}

/// Waits until HAProxy routes as it must: 5000 to `primary` and nowhere else, 5001 to replicas only, statistics on 7000.
pub(crate) async fn wait_routed(layout: &Layout, primary: u8, limit: Duration) -> Result<()> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        match routed(layout, primary).await {
            Ok(()) => return Ok(()),
            Err(last) if tokio::time::Instant::now() > end => {
                return Err(Error::Late {
                    what: "HAProxy to route as the roles are".into(),
                    limit,
                    last,
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

/// One look at all three doors; the error says what is wrong.
async fn routed(layout: &Layout, primary: u8) -> std::result::Result<(), String> {
    let page = http::get(layout.stats(), "/;csv", Duration::from_secs(2)).await;
    let page =
        page.map_err(|error| format!("the statistics on {} do not answer: {error}", layout.stats()))?;
    if page.status != 200 {
        return Err(format!(
            "the statistics on {} answer {}",
            layout.stats(),
            page.status
        ));
    }
    let up = |door: &str| -> BTreeSet<u8> {
        let is_up = |i: &u8| {
            page.body
                .lines()
                .any(|line| line.starts_with(&format!("{door},{},", node_name(*i))) && line.contains(",UP,"))
        };
        (0..MEMBERS).filter(is_up).collect()
    };
    let replicas: BTreeSet<u8> = (0..MEMBERS).filter(|i| *i != primary).collect();
    if up("postgres") != BTreeSet::from([primary]) || up("replicas") != replicas {
        return Err(format!(
            "servers up: primary {:?}, replicas {:?} (counted from 0)",
            up("postgres"),
            up("replicas")
        ));
    }
    let (node, recovering) = client::look(layout.primary())
        .await
        .map_err(|error| format!("5000: {error}"))?;
    if recovering || layout.node_at(node) != Some(primary) {
        return Err(format!(
            "{} leads to {node}, which is not the primary",
            layout.primary()
        ));
    }
    for _ in 0..4 {
        let (node, recovering) = client::look(layout.replicas())
            .await
            .map_err(|error| format!("5001: {error}"))?;
        if !recovering || layout.node_at(node) == Some(primary) {
            return Err(format!(
                "{} leads to {node}, which is not a replica",
                layout.replicas()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxy_accepts_the_configuration() {
        let layout = Layout::find(PathBuf::new()).unwrap();
        let text = configuration(&layout);
        assert!(text.contains("default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions"));
        accepted(&text);
        let tuned = filled(&layout);
        assert!(!tuned.contains("10.0.0.") && !tuned.contains("bind *"), "{tuned}");
        accepted(&tuned);
        accepted(TEMPLATE);
    }

    fn accepted(text: &str) {
        let Ok(program) = crate::cluster::program("haproxy") else {
            eprintln!("SKIPPED: haproxy is not installed");
            return;
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let checked = std::process::Command::new(program)
            .arg("-c")
            .arg("-f")
            .arg(file.path())
            .output()
            .unwrap();
        assert!(
            checked.status.success(),
            "{}",
            String::from_utf8_lossy(&checked.stderr)
        );
    }
}
