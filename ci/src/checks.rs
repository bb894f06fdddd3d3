//! The suites on real processes that `./ci/test` runs: each asserts one promise of the product and prints what it measured.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::client::{self, Habit, Plan, Route, Writer};
use crate::cluster::{self, Cluster};
use crate::demo::{fail, write};
use crate::error::Result;
use crate::faults::{self, Fault};
use crate::history::{self, Log};
use crate::report::{Report, outage, span};
use crate::trial::{self, Crowd, DIRECT, Outcome};

/// A suite's options.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Suite {
    /// Write all figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// Kills and freezes of agent and guard under writers on every node: at no instant do two nodes acknowledge writes.
///
/// # Errors
/// When any trial found two primaries or something else broken.
pub(crate) async fn split_brain(suite: &Suite, report: Report) -> Result<()> {
    report.title("split brain: writers on every node while agent and guard are killed or frozen");
    let faults = [Fault::Orphan, Fault::Guard, Fault::Both, Fault::Freeze];
    cluster::with(&suite.cluster, report, false, async |cluster| {
        let mut outcomes = Vec::new();
        for (fault, number) in faults.into_iter().zip(1..) {
            if suite.cluster.agent.is_some() && fault == Fault::Guard {
                continue;
            }
            report.title(format!("fault `{fault}`"));
            let outcome = trial::run(cluster, fault, Crowd::Thick, number).await?;
            trial::show(cluster, &outcome);
            outcomes.push(outcome);
        }
        let trials: Vec<_> = outcomes.iter().map(Outcome::json).collect();
        write(suite.json.as_deref(), &json!({ "trials": trials }))?;
        let row = |outcome: &Outcome| {
            let overlap = &outcome.overlap;
            let (length, meanwhile, lost) =
                (span(overlap.length), overlap.acks.to_string(), outcome.lost.len());
            let verdict = report.verdict(overlap.length.is_zero());
            let direct = outage(outcome.outage(DIRECT));
            vec![
                outcome.fault.to_string(),
                length,
                meanwhile,
                direct,
                lost.to_string(),
                verdict,
            ]
        };
        let head = [
            "fault",
            "two primaries",
            "writes meanwhile",
            "direct outage",
            "lost",
            "",
        ];
        report.line("");
        report.table(&head, &outcomes.iter().map(row).collect::<Vec<_>>());
        fail(outcomes.into_iter().flat_map(|outcome| outcome.broken).collect())
    })
    .await
}

/// Writers that keep their connections: found by address, behind HAProxy, and on the primary.
fn steady(cluster: &Cluster, primary: u8) -> Vec<Writer> {
    let all: Vec<_> = cluster.nodes.iter().map(|node| node.postgres).collect();
    let routes = [
        (DIRECT, Route::Primary(all)),
        (trial::PROXY, Route::To(cluster.layout.primary())),
        (
            "on the primary",
            Route::To(cluster.nodes[usize::from(primary)].postgres),
        ),
    ];
    let plan = |(i, (name, route)): (usize, (&str, Route))| {
        let first = (i as i64 + 1) * 10_000_000;
        Writer::start(Plan {
            name: name.into(),
            route,
            habit: Habit::Keep,
            pace: Duration::from_millis(10),
            retry: client::PAUSE,
            first,
            ports: None,
            psql: None,
        })
    };
    routes.into_iter().enumerate().map(plan).collect()
}

/// Does `act` to a cluster under load and asserts that nobody noticed: same primary, postmaster, guard and timeline, every client with
/// its first connection and no failed write, every acknowledged row there.
async fn undisturbed(
    suite: &Suite,
    report: Report,
    act: impl AsyncFnOnce(&mut Cluster, u8) -> Result<()>,
) -> Result<()> {
    cluster::with(&suite.cluster, report, false, async |cluster| {
        let primary = cluster.wait_healthy(Duration::from_secs(60)).await?;
        let writers = steady(cluster, primary);
        sleep(Duration::from_secs(2)).await;
        let standing = |cluster: &mut Cluster| {
            let node = &mut cluster.nodes[usize::from(primary)];
            (node.postmaster(), node.guard())
        };
        let before = standing(cluster);
        let start = Instant::now();
        act(cluster, primary).await?;
        let now = cluster.wait_healthy(Duration::from_secs(60)).await?;
        sleep(Duration::from_secs(1)).await;
        let (end, after) = (Instant::now(), standing(cluster));
        let mut logs = Vec::new();
        for writer in writers {
            logs.push(writer.stop().await);
        }
        let present = cluster.rows(now).await?;
        let mut broken = Vec::new();
        if now != primary {
            let name = |i: u8| &cluster.nodes[usize::from(i)].name;
            broken.push(format!(
                "the primary moved from {} to {}",
                name(primary),
                name(now)
            ));
        }
        if before != after {
            broken.push(format!("postmaster and guard were {before:?} and are {after:?}"));
        }
        broken.extend(noticed(&logs, &present, start));
        let mut rows = Vec::new();
        let mut figures = Vec::new();
        for log in &logs {
            let silence = log.outage(start, end);
            let (acked, failed) = (log.acks.len(), log.troubles.len());
            let counts = [acked.to_string(), failed.to_string(), log.connections.to_string()];
            rows.push(
                [log.name.clone(), outage(silence)]
                    .into_iter()
                    .chain(counts)
                    .collect(),
            );
            figures.push(json!({
                "client": log.name, "acknowledged": acked, "failed": failed, "connections": log.connections,
                "longest_silence_s": silence.map(|silence| silence.length.as_secs_f64()),
            }));
        }
        report.table(
            &[
                "client",
                "longest silence",
                "acknowledged",
                "failed",
                "connections",
            ],
            &rows,
        );
        write(
            suite.json.as_deref(),
            &json!({"clients": figures, "broken": broken}),
        )?;
        fail(broken)
    })
    .await
}

/// What the clients noticed, in sentences.
fn noticed(logs: &[Log], present: &BTreeSet<i64>, start: Instant) -> Vec<String> {
    let mut broken = Vec::new();
    let timelines = history::timelines(logs);
    if timelines.len() != 1 {
        broken.push(format!("writes went to timelines {timelines:?}"));
    }
    let lost = history::missing(logs, present).len();
    if lost > 0 {
        broken.push(format!("{lost} acknowledged writes are gone"));
    }
    for log in logs {
        if log.connections != 1 {
            broken.push(format!("`{}` had to connect {} times", log.name, log.connections));
        }
        if let Some(trouble) = log.troubles.first() {
            let at = span(trouble.at.saturating_duration_since(start));
            let (name, times, what) = (&log.name, log.troubles.len(), &trouble.what);
            broken.push(format!(
                "`{name}` failed {times} times, first {at} after the start: {what}"
            ));
        }
    }
    broken
}

/// The agent dies and comes back over a running primary: no connection drops, no write fails.
///
/// # Errors
/// When a client noticed, or the primary was touched.
pub(crate) async fn agent_restart(suite: &Suite, report: Report) -> Result<()> {
    report.title("agent restart: kill -9 and start, five times, over a running primary");
    undisturbed(suite, report, async |cluster, primary| {
        for round in 1..=5_u32 {
            let injected = faults::inject(cluster, Fault::Agent, primary).await?;
            report.say(format!("round {round}: {}", injected.what));
            sleep(Duration::from_millis(u64::from(round - 1) * 250)).await;
            faults::heal(cluster, Fault::Agent, primary)?;
            // Past the deadline of the lease that the dead agent had: the new one must have taken over.
            sleep(cluster.patience() + Duration::from_secs(1)).await;
        }
        Ok(())
    })
    .await
}

/// All of etcd stops for a minute and comes back: the primary goes on, and nobody is elected.
///
/// # Errors
/// When a client noticed, or another member took over.
pub(crate) async fn etcd_outage(suite: &Suite, seconds: u64, report: Report) -> Result<()> {
    report.title(format!("etcd outage: all members killed, back after {seconds} s"));
    undisturbed(suite, report, async |cluster, _| {
        // The failsafe list must have been published once.
        sleep(cluster.patience()).await;
        cluster.etcd.kill().await;
        report.say("etcd: all members killed");
        sleep(Duration::from_secs(seconds)).await;
        cluster.etcd.start().await?;
        report.say("etcd: all members back");
        sleep(2 * cluster.patience()).await;
        Ok(())
    })
    .await
}
