//! `surus-ci demo`: one fault on a fresh cluster, shown as it happens.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::error::{Error, Result};
use crate::faults::Fault;
use crate::report::{Paint, Report};
use crate::trial::{self, Crowd};

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
    if options.keep && options.cluster.hosts == Some(cluster::Hosts::Namespaces) {
        let text = "networks go with the run: --keep is for --hosts loopback";
        return Err(Error::Unable(text.into()));
    }
    let fault = options.fault;
    report.title(format!(
        "surus demo: fault `{fault}` at the primary of a three-node cluster"
    ));
    cluster::with(&options.cluster, report, options.keep, async |cluster| {
        let outcome = trial::run(cluster, fault, Crowd::Usual, 1).await?;
        trial::show(cluster, &outcome);
        write(options.json.as_deref(), &outcome.json())?;
        fail(outcome.broken)?;
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

/// Writes figures, if a file is asked for.
pub(crate) fn write(path: Option<&Path>, figures: &Value) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, format!("{figures:#}\n")).map_err(Error::io(|| format!("write {}", path.display())))
}
