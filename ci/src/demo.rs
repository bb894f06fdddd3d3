//! `surus-ci demo`: one fault on a fresh cluster, shown as it happens. And `measure`: the same faults again and again, against limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::error::{Error, Result};
use crate::faults::Fault;
use crate::history::median;
use crate::report::{Paint, Report, span};
use crate::trial::{self, Crowd, DIRECT, Outcome, PROXY};

/// What the demo does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Demo {
    /// What happens to the primary
    #[arg(long, value_enum, default_value = "host")]
    fault: Fault,
    /// Leave the cluster running at the end
    #[arg(long)]
    keep: bool,
    /// Stop the cluster that an earlier `--keep` left, and do nothing else
    #[arg(long, exclusive = true)]
    stop: bool,
    /// How often the fault is injected
    #[arg(long, default_value_t = 1)]
    trials: u32,
    /// Write all figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// What `measure` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often each fault is injected
    #[arg(long, default_value_t = 5)]
    trials: u32,
    /// The faults; those with a limit when not given
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "stop,switchover,postgres,both"
    )]
    faults: Vec<Fault>,
    /// Write all figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// Runs the demo.
///
/// # Errors
/// When the cluster did not end healthy, or lost what it must not lose.
pub(crate) async fn demo(options: &Demo, report: Report) -> Result<()> {
    if options.stop {
        return cluster::stop_kept(report);
    }
    let fault = options.fault;
    report.title(format!(
        "surus demo: fault `{fault}` at the primary of a three-node cluster"
    ));
    cluster::with(&options.cluster, report, options.keep, async |cluster| {
        let mut outcomes = Vec::new();
        for number in 0..options.trials {
            let outcome = trial::run(cluster, fault, Crowd::Usual, i64::from(number) + 1).await?;
            trial::show(cluster, &outcome);
            outcomes.push(outcome);
        }
        let trials: Vec<Value> = outcomes.iter().map(Outcome::json).collect();
        write(options.json.as_deref(), &json!({ "trials": trials }))?;
        if options.trials > 1 {
            summary(
                report,
                &[(fault, outcomes.clone())],
                options.cluster.ttl.is_none(),
            );
        }
        fail(
            outcomes
                .iter()
                .flat_map(|outcome| outcome.broken.clone())
                .collect(),
        )?;
        let verdict = "three healthy members on one timeline; every acknowledged write accounted for";
        report.line(&report.paint(Paint::Green, verdict));
        if options.keep {
            next_steps(cluster);
        }
        Ok(())
    })
    .await
}

/// An error that names everything that is broken, if anything is.
pub(crate) fn fail(broken: Vec<String>) -> Result<()> {
    if broken.is_empty() {
        Ok(())
    } else {
        Err(Error::Unmet(broken.join("; ")))
    }
}

fn next_steps(cluster: &Cluster) {
    let report = cluster.report;
    let config = cluster.nodes[0].config().display().to_string();
    let surus = cluster
        .ctl
        .as_ref()
        .map_or_else(|| "patronictl".to_owned(), |path| path.display().to_string());
    let (door, stats) = (cluster.layout.primary(), cluster.layout.stats());
    report.title("the cluster runs on; try");
    for line in [
        format!("{surus} list -c {config}"),
        format!("{surus} switchover -c {config}"),
        format!("{surus} explain -c {config}"),
        format!("curl -s http://{}/patroni", cluster.nodes[0].rest),
        format!(
            "PGPASSWORD={} psql -h {} -p {} -U postgres",
            crate::client::PASSWORD,
            door.ip(),
            door.port()
        ),
        format!("http://{stats}/ in a browser"),
        format!("less {}", cluster.nodes[0].log().display()),
        "./ci/demo --stop".to_owned(),
    ] {
        report.line(&format!("  {line}"));
    }
    report.line("");
}

/// Measures the direct client's outage for several faults on one cluster, against the limits.
///
/// # Errors
/// When a median is above its limit, or a trial found the product at fault.
pub(crate) async fn measure(options: &Measure, report: Report) -> Result<()> {
    report.title(format!("surus measure: {} trials per fault", options.trials));
    cluster::with(&options.cluster, report, false, async |cluster| {
        let mut outcomes: Vec<(Fault, Vec<Outcome>)> = Vec::new();
        let mut number = 0;
        for fault in &options.faults {
            let mut of_fault = Vec::new();
            for trial in 1..=options.trials {
                number += 1;
                report.title(format!("{fault}, trial {trial} of {}", options.trials));
                let outcome = trial::run(cluster, *fault, Crowd::Usual, number).await?;
                trial::show(cluster, &outcome);
                of_fault.push(outcome);
            }
            outcomes.push((*fault, of_fault));
        }
        let (figures, mut broken) = summary(report, &outcomes, options.cluster.ttl.is_none());
        let trials = || outcomes.iter().flat_map(|(_, outcomes)| outcomes);
        let all: Vec<Value> = trials().map(Outcome::json).collect();
        write(
            options.json.as_deref(),
            &json!({"faults": figures, "trials": all}),
        )?;
        broken.extend(trials().flat_map(|outcome| outcome.broken.clone()));
        fail(broken)
    })
    .await
}

/// The closing table: per fault the medians and the limit; returns the figures and what is above its limit.
fn summary(report: Report, faults: &[(Fault, Vec<Outcome>)], defaults: bool) -> (Vec<Value>, Vec<String>) {
    let (mut rows, mut figures, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for (fault, outcomes) in faults {
        let lengths = |client: &str| -> Vec<Duration> {
            outcomes
                .iter()
                .filter_map(|outcome| outcome.outage(client))
                .map(|outage| outage.length)
                .collect()
        };
        let (mut direct, mut proxy) = (lengths(DIRECT), lengths(PROXY));
        let (middle, behind) = (median(&mut direct), median(&mut proxy));
        // The limits are for default settings: with another lease they say nothing.
        let limit = fault.limit().filter(|_| defaults);
        let above = limit.is_some_and(|limit| middle.is_none_or(|middle| middle > limit));
        if above {
            let found = middle.map_or_else(|| "nothing measured".into(), span);
            broken.push(format!(
                "{fault}: {found} is above the limit of {}",
                limit.map_or_else(String::new, span)
            ));
        }
        let text = |value: Option<Duration>| value.map_or_else(|| "–".into(), span);
        let lost: usize = outcomes.iter().map(|outcome| outcome.lost.len()).sum();
        let overlap = outcomes
            .iter()
            .map(|outcome| outcome.overlap.length)
            .max()
            .unwrap_or_default();
        rows.push(vec![
            fault.to_string(),
            outcomes.len().to_string(),
            text(middle),
            format!(
                "{} – {}",
                text(direct.first().copied()),
                text(direct.last().copied())
            ),
            text(behind),
            limit.map_or_else(|| "–".into(), span),
            span(overlap),
            lost.to_string(),
            report.verdict(!above && outcomes.iter().all(|outcome| outcome.broken.is_empty())),
        ]);
        let seconds = |values: &[Duration]| values.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
        figures.push(json!({
            "fault": fault.to_string(), "direct_s": seconds(&direct), "haproxy_s": seconds(&proxy),
            "direct_median_s": middle.map(|value| value.as_secs_f64()), "limit_s": limit.map(|value| value.as_secs_f64()),
            "within_limit": !above, "overlap_ms": overlap.as_secs_f64() * 1e3, "lost": lost,
        }));
    }
    report.line("");
    report.table(
        &[
            "fault",
            "trials",
            "direct, median",
            "direct, range",
            "HAProxy, median",
            "limit",
            "two primaries",
            "lost",
            "",
        ],
        &rows,
    );
    (figures, broken)
}

/// Writes figures, if a file is asked for.
pub(crate) fn write(path: Option<&Path>, figures: &Value) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, format!("{figures:#}\n")).map_err(Error::io(|| format!("write {}", path.display())))
}
