//! `surus-ci bench`: every fault of [`FAULTS`], again and again, against the budgets, and beside Patroni.
//!
//! Each fault has fresh clusters, one of each contestant, which are hit in turn, so that what befalls the machine befalls both. A fault of
//! which a median is above its budget is tried once more before that counts: machines are shared.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::budgets;
use crate::cluster::{self, Cluster, Hosts};
use crate::demo::fail;
use crate::error::{Error, Result, chain};
use crate::faults::Fault;
use crate::history::percentile;
use crate::patroni::{self, Rival};
use crate::report::{Report, span};
use crate::trial::{self, Crowd, DIRECT, LIBPQ, Outcome, PROXY};
use crate::{ground, plot};

/// What is measured, in the order of the report.
pub(crate) const FAULTS: [Fault; 17] = [
    Fault::Stop,
    Fault::Switchover,
    Fault::Postgres,
    Fault::Backend,
    Fault::Agent,
    Fault::Guard,
    Fault::Freeze,
    Fault::Both,
    Fault::Host,
    Fault::HostEtcd,
    Fault::Isolated,
    Fault::NoEtcd,
    Fault::NoPeers,
    Fault::EtcdLeader,
    Fault::EtcdQuorum,
    Fault::Hung,
    Fault::DiskFull,
];

/// The name of our own agent.
pub(crate) const OURS: &str = "surus";

/// The size in MiB of the disk that is to be full.
const DISK: u32 = 512;

/// What `bench` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Bench {
    /// How often each fault is injected; 20, or 3 if quick
    #[arg(long)]
    trials: Option<u32>,
    /// A few trials of each fault, whose medians are held against the budgets for that
    #[arg(long)]
    quick: bool,
    /// The faults; all of them when not given
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Another agent, measured in the same run in turn with ours
    #[arg(long, value_enum)]
    against: Option<Rival>,
    /// In how many of the trials the other agent takes part, which needs far longer for each; in all when not given
    #[arg(long, value_name = "N", requires = "against", value_parser = clap::value_parser!(u32).range(1..))]
    against_trials: Option<u32>,
    /// Write bench.json, bench.md and bench.svg there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What the hosts are; network namespaces where root can make them, else loopback, where no network is cut and no disk filled
    #[arg(long, value_enum)]
    hosts: Option<Hosts>,
    /// Where PostgreSQL's programs are; the newest in /usr/lib/postgresql when not given
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// One agent's trials of one fault.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Whose.
    pub(crate) agent: String,
    /// The fault.
    pub(crate) fault: Fault,
    /// What came of them.
    outcomes: Vec<Outcome>,
    /// Why there are no more of them.
    failure: Option<String>,
    /// How long the direct client may be kept from writing, of our own agent.
    pub(crate) limit: Option<Duration>,
}

/// A contestant: its name, and its cluster's options.
pub(crate) type Contestant = (String, cluster::Options);

/// Runs the bench.
///
/// # Errors
/// When a budget is broken, or a trial found the product at fault.
pub(crate) async fn bench(options: &Bench, report: Report) -> Result<()> {
    let budgets = budgets::all()?.fault;
    let trials = options.trials.unwrap_or(if options.quick { 3 } else { 20 });
    let shared = options.against_trials.map_or(trials, |shared| shared.min(trials));
    let contestants = contestants(options, report)?;
    let faults = faults(options, report);
    let mut all: Vec<Series> = Vec::new();
    for fault in faults {
        let limit = budgets
            .get(&fault.to_string())
            .map(|budget| budget.limit(options.quick));
        let mut series = play(&contestants, fault, trials, shared, limit, report).await?;
        // What a second look could hide is not looked at twice.
        if options.quick
            && series
                .iter()
                .any(|series| series.over(true) && series.wrong().is_empty())
        {
            report.say(format!("{fault} is above its budget: once more"));
            series = play(&contestants, fault, trials, shared, limit, report).await?;
        }
        all.extend(series);
        // A run of hours that is cut short has told of what it has done.
        write(options.out.as_deref(), &all, options.quick)?;
    }
    report.line("");
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|series| series.row(options.quick, report))
        .collect();
    report.table(&HEAD, &rows);
    fail(
        all.iter()
            .flat_map(|series| series.broken(options.quick))
            .collect(),
    )
}

impl Bench {
    fn hosts(&self) -> Hosts {
        let able = || {
            if ground::possible() {
                Hosts::Namespaces
            } else {
                Hosts::Loopback
            }
        };
        self.hosts.unwrap_or_else(able)
    }
}

/// What was asked for; else what can be done here, and what cannot is said.
fn faults(options: &Bench, report: Report) -> Vec<Fault> {
    if !options.faults.is_empty() {
        return options.faults.clone();
    }
    let able = options.hosts() == Hosts::Namespaces;
    let (all, out): (Vec<Fault>, Vec<Fault>) = FAULTS.iter().partition(|fault| able || !fault.takes_root());
    if !out.is_empty() {
        let names: Vec<String> = out.iter().map(Fault::to_string).collect();
        report.say(format!("left out, for they take root: {}", names.join(", ")));
    }
    all
}

/// Ours and, if wanted, another's cluster.
///
/// # Errors
/// When the other agent cannot be installed.
pub(crate) fn contest(
    ours: &cluster::Options,
    against: Option<Rival>,
    report: Report,
) -> Result<Vec<Contestant>> {
    let mut all = vec![(OURS.to_owned(), ours.clone())];
    if against == Some(Rival::Patroni) {
        all.push(("patroni".to_owned(), patroni::beside(ours, report)?));
    }
    Ok(all)
}

fn contestants(options: &Bench, report: Report) -> Result<Vec<Contestant>> {
    let ours = cluster::Options {
        hosts: Some(options.hosts()),
        bin_dir: options.bin_dir.clone(),
        ..cluster::Options::default()
    };
    contest(&ours, options.against, report)
}

/// Plays a fault on a fresh cluster of each contestant, in turn; the rival's takes part in the first `shared` trials and is gone after them.
async fn play(
    contestants: &[Contestant],
    fault: Fault,
    trials: u32,
    shared: u32,
    limit: Option<Duration>,
    report: Report,
) -> Result<Vec<Series>> {
    let series = |(agent, _): &Contestant| Series {
        agent: agent.clone(),
        fault,
        outcomes: Vec::new(),
        failure: None,
        limit: limit.filter(|_| agent == OURS),
    };
    let mut all: Vec<Series> = contestants.iter().map(series).collect();
    let (mine, rivals) = all.split_at_mut(1);
    let (ours, options) = (&mut mine[0], on_disk(&contestants[0].1, fault));
    let played = cluster::with(&options, report, false, async |cluster| {
        let mut done = 0;
        if let ([theirs], [_, (_, others)]) = (rivals, contestants) {
            let others = on_disk(others, fault);
            let beside = cluster::with(&others, report, false, async |beside| {
                while done < shared {
                    done += 1;
                    ours.trial(cluster, done, trials).await;
                    theirs.trial(beside, done, shared).await;
                }
                Ok(())
            });
            let beside = beside.await;
            theirs.note(beside)?;
        }
        for number in done + 1..=trials {
            ours.trial(cluster, number, trials).await;
        }
        Ok(())
    });
    let played = played.await;
    mine[0].note(played)?;
    Ok(all)
}

fn on_disk(options: &cluster::Options, fault: Fault) -> cluster::Options {
    cluster::Options {
        disk: (fault == Fault::DiskFull).then_some(DISK),
        ..options.clone()
    }
}

const HEAD: [&str; 13] = [
    "fault",
    "agent",
    "trials",
    "direct: median",
    "p95",
    "max",
    "libpq: median",
    "HAProxy: median",
    "detect / race / promote",
    "healthy after",
    "two primaries",
    "lost",
    "budget",
];

impl Series {
    fn ours(&self) -> bool {
        self.agent == OURS
    }

    /// One more trial, unless one before could not be ended.
    async fn trial(&mut self, cluster: &mut Cluster, number: u32, trials: u32) {
        // Nobody else has a guard.
        if self.failure.is_some() || self.fault == Fault::Guard && !self.ours() {
            return;
        }
        let (fault, agent) = (self.fault, &self.agent);
        cluster
            .report
            .title(format!("{fault}, {agent}, trial {number} of {trials}"));
        match trial::run(cluster, fault, Crowd::Usual, i64::from(number)).await {
            Ok(outcome) => {
                trial::show(cluster, &outcome);
                self.outcomes.push(outcome);
            }
            Err(error) => self.failure = Some(chain(&error)),
        }
    }

    /// Clusters that did not come about end the series, and not the run; an interruption ends everything.
    fn note(&mut self, played: Result<()>) -> Result<()> {
        match played {
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error) => {
                self.failure.get_or_insert(chain(&error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The outages of a client, the shortest first.
    pub(crate) fn outages(&self, client: &str) -> Vec<Duration> {
        let of = |outcome: &Outcome| outcome.outage(client).map(|outage| outage.length);
        let mut all: Vec<Duration> = self.outcomes.iter().filter_map(of).collect();
        all.sort_unstable();
        all
    }

    /// What is held against the limit.
    fn measured(&self, quick: bool) -> Option<Duration> {
        percentile(&self.outages(DIRECT), if quick { 50 } else { 95 })
    }

    fn over(&self, quick: bool) -> bool {
        self.limit
            .is_some_and(|limit| self.measured(quick).is_none_or(|measured| limit < measured))
    }

    /// What our own agent did wrong, slowness apart; a rival's faults are figures.
    fn wrong(&self) -> Vec<String> {
        let all = self.outcomes.iter().flat_map(|outcome| outcome.broken.clone());
        all.chain(self.failure.clone()).filter(|_| self.ours()).collect()
    }

    /// The same, and what took too long.
    fn broken(&self, quick: bool) -> Vec<String> {
        let mut all = self.wrong();
        if let Some(limit) = self.limit.filter(|_| self.over(quick)).map(span) {
            all.push(match self.measured(quick) {
                Some(found) => format!("{} is above the budget of {limit}", span(found)),
                None => format!("nothing was measured that the budget of {limit} could allow"),
            });
        }
        all.into_iter()
            .map(|text| format!("{}: {text}", self.fault))
            .collect()
    }

    fn phases(&self) -> String {
        let part = |part: fn(&crate::phases::Phases) -> Duration| {
            let mut all: Vec<Duration> = self
                .outcomes
                .iter()
                .filter_map(|outcome| outcome.phases.as_ref())
                .map(part)
                .collect();
            all.sort_unstable();
            percentile(&all, 50).map(span)
        };
        let parts = [
            part(|phases| phases.detect),
            part(|phases| phases.race),
            part(|phases| phases.promote),
        ];
        let known: Vec<String> = parts.into_iter().flatten().collect();
        if known.is_empty() {
            "–".into()
        } else {
            known.join(" / ")
        }
    }

    fn row(&self, quick: bool, report: Report) -> Vec<String> {
        let text = |value: Option<Duration>| value.map_or_else(|| "–".into(), span);
        let (direct, libpq, proxy) = (self.outages(DIRECT), self.outages(LIBPQ), self.outages(PROXY));
        let mut rejoins: Vec<Duration> = self.outcomes.iter().map(|outcome| outcome.rejoin).collect();
        rejoins.sort_unstable();
        let overlap = self.outcomes.iter().map(|outcome| outcome.overlap.length).max();
        let lost: usize = self.outcomes.iter().map(|outcome| outcome.lost.len()).sum();
        let verdict = self.ours().then(|| report.verdict(self.broken(quick).is_empty()));
        let gave_up = self.failure.as_ref().map(|_| "gave up".to_owned());
        let budget: Vec<String> = self
            .limit
            .map(span)
            .into_iter()
            .chain(verdict.or(gave_up))
            .collect();
        let budget = if budget.is_empty() {
            "–".into()
        } else {
            budget.join(" ")
        };
        vec![
            self.fault.to_string(),
            self.agent.clone(),
            self.outcomes.len().to_string(),
            text(percentile(&direct, 50)),
            text(percentile(&direct, 95)),
            text(direct.last().copied()),
            text(percentile(&libpq, 50)),
            text(percentile(&proxy, 50)),
            self.phases(),
            text(percentile(&rejoins, 50)),
            text(overlap),
            lost.to_string(),
            budget,
        ]
    }

    fn json(&self, quick: bool) -> Value {
        let seconds = |values: &[Duration]| values.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
        json!({
            "fault": self.fault.to_string(), "agent": self.agent, "direct_s": seconds(&self.outages(DIRECT)),
            "libpq_s": seconds(&self.outages(LIBPQ)), "haproxy_s": seconds(&self.outages(PROXY)), "limit_s": self.limit.map(|limit| limit.as_secs_f64()),
            "broken": self.broken(quick), "failure": self.failure,
            "trials": self.outcomes.iter().map(Outcome::json).collect::<Vec<_>>(),
        })
    }
}

fn write(dir: Option<&Path>, all: &[Series], quick: bool) -> Result<()> {
    let Some(dir) = dir else { return Ok(()) };
    fs::create_dir_all(dir).map_err(Error::io(|| format!("create {}", dir.display())))?;
    let figures =
        json!({ "quick": quick, "series": all.iter().map(|series| series.json(quick)).collect::<Vec<_>>() });
    let files = [
        ("bench.json", format!("{figures:#}\n")),
        ("bench.md", markdown(all, quick)),
        ("bench.svg", plot::svg(all)?),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::io(|| format!("write {}", path.display())))?;
    }
    Ok(())
}

fn markdown(all: &[Series], quick: bool) -> String {
    let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), "---|".repeat(HEAD.len()));
    for series in all {
        let _ = writeln!(
            text,
            "| {} |",
            series.row(quick, Report::new().plain()).join(" | ")
        );
    }
    text
}
