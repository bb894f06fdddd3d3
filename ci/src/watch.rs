//! Shows a cluster as it changes: one line whenever a member's role, state or timeline does.
//!
//! It asks every agent for its own view (`GET /patroni`), which needs no DCS, ten times a second.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::http;
use crate::report::{Paint, Report};

/// One member's state, as far as a change of it is worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    role: String,
    state: String,
    timeline: Option<u64>,
}

/// What one poll of one member gave.
struct Seen {
    state: State,
    position: Option<u64>,
}

/// A task that prints changes until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Watch {
    /// Starts to watch.
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let members = cluster
            .nodes
            .iter()
            .map(|node| (node.name.clone(), node.rest))
            .collect();
        Self(tokio::spawn(watch(members, cluster.report)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask(at: SocketAddrV4) -> Option<Seen> {
    let answer = http::get(at, "/patroni", Duration::from_millis(500)).await.ok()?;
    let body: Value = serde_json::from_str(&answer.body).ok()?;
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
    let xlog = |key: &str| {
        body.get("xlog")
            .and_then(|xlog| xlog.get(key))
            .and_then(Value::as_u64)
    };
    let replication = body.get("replication_state").and_then(Value::as_str);
    let state = match (replication, text("state")) {
        (Some(replication), state) if state == "running" => replication.to_owned(),
        (_, state) => state,
    };
    let timeline = body.get("timeline").and_then(Value::as_u64);
    let position = xlog("location").or_else(|| xlog("replayed_location"));
    Some(Seen {
        state: State {
            role: text("role"),
            state,
            timeline,
        },
        position,
    })
}

async fn watch(members: Vec<(String, SocketAddrV4)>, report: Report) {
    let mut known: Vec<Option<Option<State>>> = vec![None; members.len()];
    let mut lead = 0;
    loop {
        for ((name, rest), known) in members.iter().zip(&mut known) {
            let seen = ask(*rest).await;
            let position = seen.as_ref().and_then(|seen| seen.position);
            let primary = seen.as_ref().is_some_and(|seen| seen.state.role == "primary");
            if primary {
                lead = position.unwrap_or(lead);
            }
            let state = seen.map(|seen| seen.state);
            if known.as_ref() != Some(&state) {
                report.say(line(
                    report,
                    name,
                    state.as_ref(),
                    position.filter(|_| !primary).map(|at| lead.saturating_sub(at)),
                ));
                *known = Some(state);
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn line(report: Report, name: &str, state: Option<&State>, lag: Option<u64>) -> String {
    let Some(State {
        role,
        state,
        timeline,
    }) = state
    else {
        return format!("  {name:8} {}", report.paint(Paint::Red, "does not answer"));
    };
    let paint = match (role.as_str(), state.as_str()) {
        ("primary", "running") => Paint::Green,
        ("replica", "streaming") => Paint::Dim,
        _ => Paint::Yellow,
    };
    let timeline = timeline.map_or_else(|| "-".to_owned(), |timeline| timeline.to_string());
    let lag = lag.map(|lag| format!("  lag {lag} B")).unwrap_or_default();
    format!(
        "  {name:8} {}",
        report.paint(paint, format!("{role:8} {state:12} TL {timeline}{lag}"))
    )
}
