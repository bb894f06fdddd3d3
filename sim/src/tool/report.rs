//! `surus-sim report`: a run as a page for the browser.

use std::fs;
use std::path::PathBuf;

use surus_sim::record::Keep;
use surus_sim::report;

use crate::Trouble;
use crate::subject::Subject;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// The file to write; by default its name says world, seed and verdict
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let job = args.subject.job()?;
    let outcome = job.run(Keep::Messages);
    let verdict = outcome
        .violation
        .as_ref()
        .map_or("well", |violation| violation.invariant.code());
    let usual = || PathBuf::from(format!("{}-{}-{verdict}.html", job.world, job.seed));
    let path = args.output.clone().unwrap_or_else(usual);
    let page = report::page(&job, &outcome);
    fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}", outcome.verdict());
    println!("{}", path.display());
    Ok(outcome.violation.is_some())
}
