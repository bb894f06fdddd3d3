//! `surus-ci cost`: what an agent and its guard cost their host, on real processes, against `ci/budgets.toml` and beside Patroni.
//!
//! On an idle cluster: memory, processor time, etcd's writes, and how soon an agent is ready that starts beside a running PostgreSQL. Then with
//! health checks as fast as one core answers them, at rest and while another member takes over. Agent and client of these are bound to a
//! core each, but a shared machine has other work for both; so what counts is how many checks the agent answers in a second of *its*
//! processor time.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::bench::{self, OURS};
use crate::budgets;
use crate::cluster::{self, Cluster};
use crate::demo::{fail, write};
use crate::error::{Error, Result};
use crate::faults::{self, Fault};
use crate::history::percentile;
use crate::http;
use crate::load::{Answers, Load, Target};
use crate::patroni::Rival;
use crate::proc;
use crate::report::Report;

/// What `cost` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long the idle cluster is watched, in seconds; 60, or 30 if quick
    #[arg(long)]
    seconds: Option<u32>,
    /// Hold it against what a shared machine may add
    #[arg(long)]
    quick: bool,
    /// Another agent, measured the same way after ours
    #[arg(long, value_enum)]
    against: Option<Rival>,
    /// Write all figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// One figure that has a budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Its name in the file of budgets.
    pub(crate) name: &'static str,
    what: &'static str,
    unit: &'static str,
    /// More is better.
    least: bool,
    digits: usize,
}

const fn cost(name: &'static str, what: &'static str, unit: &'static str, digits: usize) -> Cost {
    Cost {
        name,
        what,
        unit,
        least: false,
        digits,
    }
}

/// Everything that is measured, in the order of [`Figures::budgeted`].
pub(crate) const COSTS: [Cost; 6] = [
    cost("memory", "agent and guard, Pss", "MiB", 1),
    cost("core", "idle, of a core", "%", 2),
    cost("writes", "etcd's writes in a turn", "", 2),
    cost("start", "start to 200 from /liveness", "ms", 0),
    Cost {
        least: true,
        ..cost(
            "checks",
            "GET /primary while another takes over",
            "/s of a core",
            0,
        )
    },
    cost("patience", "p99 of these", "ms", 1),
];

/// How often an idle cluster that costs too much is looked at: whatever else the machine does makes caches cold and adds to it, never takes
/// from it.
const LOOKS: u32 = 3;
/// How often an agent is started.
const STARTS: usize = 5;
/// How long the checks go on at rest.
const AT_REST: Duration = Duration::from_secs(5);
/// What the agents take for their loop's turn when nothing is configured.
const TURN: [(&str, f64); 2] = [(OURS, 1.0), ("patroni", 10.0)];

/// What the checks of one page came to.
#[derive(Clone, Copy, Debug)]
struct Checks {
    /// As they came, on this machine.
    rate: f64,
    /// In a second of the agent's processor time.
    per_core: f64,
    p50: Duration,
    p99: Duration,
    failed: usize,
}

impl Checks {
    fn json(&self) -> Value {
        json!({"per_s": self.rate, "per_core_s": self.per_core, "p50_s": self.p50.as_secs_f64(), "p99_s": self.p99.as_secs_f64(), "failed": self.failed})
    }

    fn cell(&self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        format!(
            "{:.0}/s ({:.0}/s as it came), p50 {:.1} ms, p99 {:.1} ms",
            self.per_core,
            self.rate,
            ms(self.p50),
            ms(self.p99)
        )
    }
}

/// All of one agent.
#[derive(Clone, Debug)]
struct Figures {
    agent: String,
    memory_mib: f64,
    core_percent: f64,
    writes: f64,
    start: Duration,
    ready: Duration,
    primary: Checks,
    metrics: Checks,
    taking_over: Checks,
    broken: Vec<String>,
}

impl Figures {
    fn budgeted(&self) -> [f64; 6] {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        [
            self.memory_mib,
            self.core_percent,
            self.writes,
            ms(self.start),
            self.taking_over.per_core,
            ms(self.taking_over.p99),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "agent": self.agent, "memory_mib": self.memory_mib, "core_percent": self.core_percent, "writes_per_turn": self.writes,
            "start_s": self.start.as_secs_f64(), "ready_s": self.ready.as_secs_f64(), "primary": self.primary.json(), "metrics": self.metrics.json(),
            "primary_while_taking_over": self.taking_over.json(), "broken": self.broken,
        })
    }
}

/// Measures.
///
/// # Errors
/// When our own agent costs more than its budget.
pub(crate) async fn cost_of(options: &Options, report: Report) -> Result<()> {
    let bounds = budgets::all()?.cost;
    let mut all = Vec::new();
    for (agent, cluster) in bench::contest(&options.cluster, options.against, report)? {
        report.title(format!("what {agent} costs"));
        let measured = cluster::with(&cluster, report, false, async |cluster| {
            measure(cluster, &agent, options, report).await
        });
        all.push(measured.await?);
    }
    let mut broken: Vec<String> = all[0].broken.clone();
    let mut rows = Vec::new();
    for (at, cost) in COSTS.iter().enumerate() {
        let limit = bounds[cost.name].limit(options.quick);
        let text = |value: f64| format!("{value:.*} {}", cost.digits, cost.unit).trim().to_owned();
        let ours = all[0].budgeted()[at];
        let good = if cost.least { limit <= ours } else { ours <= limit };
        if !good {
            broken.push(format!(
                "{}: {}, the budget is {}",
                cost.what,
                text(ours),
                text(limit)
            ));
        }
        let bound = if cost.least { "at least" } else { "at most" };
        let mut row = vec![cost.what.to_owned(), format!("{bound} {}", text(limit))];
        row.extend(all.iter().map(|figures| text(figures.budgeted()[at])));
        row.push(report.verdict(good));
        rows.push(row);
    }
    let pages = ["GET /primary at rest", "GET /metrics at rest", COSTS[4].what];
    for (at, what) in pages.into_iter().enumerate() {
        let mut row = vec![what.to_owned(), "–".to_owned()];
        let of = |figures: &Figures| [figures.primary, figures.metrics, figures.taking_over][at].cell();
        row.extend(all.iter().map(of));
        row.push(String::new());
        rows.push(row);
    }
    let mut head = vec!["", "budget"];
    head.extend(all.iter().map(|figures| figures.agent.as_str()));
    head.push("");
    report.line("");
    report.table(&head, &rows);
    let figures: Vec<Value> = all.iter().map(Figures::json).collect();
    write(
        options.json.as_deref(),
        &json!({"quick": options.quick, "agents": figures}),
    )?;
    fail(broken)
}

async fn measure(cluster: &mut Cluster, agent: &str, options: &Options, report: Report) -> Result<Figures> {
    let turn = TURN.iter().find(|(name, _)| *name == agent);
    let turn = turn.map_or(1.0, |(_, seconds)| *seconds);
    let seconds = options.seconds.unwrap_or(if options.quick { 30 } else { 60 });
    let enough = budgets::all()?.cost["core"].limit(options.quick);
    let primary = cluster.wait_healthy(Duration::from_secs(60)).await?;
    cluster.hush();
    sleep(Duration::from_secs(10)).await;
    let (core_percent, writes) = idle(cluster, primary, seconds, enough, turn).await?;
    let memory_mib = memory(cluster)?;
    report.say(format!(
        "idle for {seconds} s: {memory_mib:.1} MiB, {core_percent:.2} % of a core, {writes:.2} writes of etcd in a turn"
    ));
    let replica = usize::from((primary + 1) % crate::layout::MEMBERS);
    let [start, ready] = starts(cluster, replica).await?;
    report.say(format!(
        "an agent that starts beside a running PostgreSQL is alive after {:.0} ms and ready after {:.0} ms",
        start.as_secs_f64() * 1e3,
        ready.as_secs_f64() * 1e3
    ));
    let rest = async |_: &mut Cluster| {
        sleep(AT_REST).await;
        Ok(())
    };
    let of_primary = check(cluster, usize::from(primary), "/primary", rest).await?;
    report.say(format!("GET /primary: {}", of_primary.cell()));
    let metrics = check(cluster, usize::from(primary), "/metrics", rest).await?;
    report.say(format!("GET /metrics: {}", metrics.cell()));
    let patience = cluster.patience() + Duration::from_secs(5);
    let fault = async |cluster: &mut Cluster| {
        sleep(Duration::from_secs(1)).await;
        let injected = faults::inject(cluster, Fault::Both, primary).await?;
        report.say(injected.what);
        sleep(patience).await;
        Ok(())
    };
    let taking_over = check(cluster, replica, "/primary", fault).await?;
    report.say(format!(
        "GET /primary while another takes over: {}",
        taking_over.cell()
    ));
    let mut broken = Vec::new();
    match cluster.seen().await {
        Ok(seen) if seen.primary.is_some_and(|leader| leader != primary) => {}
        seen => broken.push(format!("nobody else has taken over: {seen:?}")),
    }
    for (what, checks) in [("at rest", of_primary), ("while another takes over", taking_over)] {
        if checks.failed > 0 {
            broken.push(format!("{} checks had no answer {what}", checks.failed));
        }
    }
    faults::heal(cluster, Fault::Both, primary)?;
    Ok(Figures {
        agent: agent.to_owned(),
        memory_mib,
        core_percent,
        writes,
        start,
        ready,
        primary: of_primary,
        metrics,
        taking_over,
        broken,
    })
}

/// The worst of the hosts: processor time in per cent of a core, the least of up to [`LOOKS`]; and writes of one agent to etcd in a turn
/// of `turn` seconds.
async fn idle(
    cluster: &mut Cluster,
    primary: u8,
    seconds: u32,
    enough: f64,
    turn: f64,
) -> Result<(f64, f64)> {
    let pids: Vec<Vec<i32>> = cluster
        .nodes
        .iter_mut()
        .map(|node| node.overhead().into_iter().map(|(_, pid)| pid).collect())
        .collect();
    let (mut core, mut writes) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..LOOKS {
        let before: Vec<u64> = pids.iter().map(|pids| ticks(pids)).collect();
        let written = cluster.etcd.versions().await?;
        let start = Instant::now();
        sleep(Duration::from_secs(u64::from(seconds))).await;
        let took = start.elapsed().as_secs_f64();
        let worst = pids.iter().zip(before).map(|(pids, before)| ticks(pids) - before);
        // A tick is a hundredth of a second, so ticks over seconds are percent.
        core = core.min(worst.max().unwrap_or_default() as f64 / took);
        // What is not a member's own key is the leader's to write.
        let mut by_member = vec![0_u64; cluster.nodes.len()];
        for (key, version) in cluster.etcd.versions().await? {
            let owner = cluster
                .nodes
                .iter()
                .position(|node| key.ends_with(&format!("/members/{}", node.name)));
            by_member[owner.unwrap_or(usize::from(primary))] +=
                version.saturating_sub(written.get(&key).copied().unwrap_or(0));
        }
        let most = by_member.into_iter().max().unwrap_or_default() as f64;
        writes = writes.min(most * turn / took);
        if core <= enough {
            break;
        }
    }
    Ok((core, writes))
}

/// Processor time that these have used, in hundredths of a second.
fn ticks(pids: &[i32]) -> u64 {
    pids.iter().filter_map(|pid| proc::cpu_ticks(*pid)).sum()
}

/// Of the host that takes most, in MiB.
fn memory(cluster: &mut Cluster) -> Result<f64> {
    let mut most = 0;
    for node in &mut cluster.nodes {
        let mut sum = 0;
        for (_, pid) in node.overhead() {
            sum += proc::pss_kib(pid).ok_or_else(|| {
                Error::Unable(format!(
                    "/proc/{pid}/smaps_rollup cannot be read: this takes CAP_SYS_PTRACE"
                ))
            })?;
        }
        most = most.max(sum);
    }
    Ok(most as f64 / 1024.0)
}

/// How soon a replica's agent that starts while its PostgreSQL runs is alive, and how soon it is ready: the medians of some starts.
async fn starts(cluster: &mut Cluster, replica: usize) -> Result<[Duration; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..STARTS {
        let node = &mut cluster.nodes[replica];
        let agent = node
            .agent()
            .ok_or_else(|| Error::Unmet("an agent has ended".into()))?;
        proc::signal(agent, rustix::process::Signal::KILL);
        while node.agent().is_some() {
            sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        node.start()?;
        for (path, all) in ["/liveness", "/readiness"].into_iter().zip(&mut all) {
            until_ok(node.rest, path, Duration::from_secs(60)).await?;
            all.push(start.elapsed());
        }
        sleep(Duration::from_secs(2)).await;
    }
    Ok(all.map(|mut all| {
        all.sort_unstable();
        percentile(&all, 50).unwrap_or_default()
    }))
}

async fn until_ok(at: SocketAddrV4, path: &str, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        let answer = http::get(at, path, limit).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        sleep(Duration::from_millis(1)).await;
    }
    Err(Error::Late {
        what: format!("200 from {path} of an agent that was started"),
        limit,
        last: "another status, or no connection".into(),
    })
}

/// Asks an agent, on one core, for a page as fast as it answers while `body` goes on.
async fn check(
    cluster: &mut Cluster,
    node: usize,
    path: &'static str,
    body: impl AsyncFnOnce(&mut Cluster) -> Result<()>,
) -> Result<Checks> {
    let at = cluster.nodes[node].rest;
    let agent = cluster.nodes[node].agent();
    let agent = agent.ok_or_else(|| Error::Unmet("an agent has ended".into()))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    proc::bind(agent, 0)?;
    let before = ticks(&[agent]);
    let load = Load::start(Target { at, path }, (1 < cores).then_some(1));
    let done = body(cluster).await;
    let answers = load.stop().await?;
    let used = ticks(&[agent]).saturating_sub(before);
    done?;
    Ok(checks(&answers, used))
}

fn checks(answers: &Answers, ticks: u64) -> Checks {
    let count = answers.codes.values().sum::<usize>() as f64;
    let at = |percent| percentile(&answers.times, percent).unwrap_or_default();
    Checks {
        rate: count / answers.took.as_secs_f64(),
        per_core: count * 100.0 / (ticks.max(1) as f64),
        p50: at(50),
        p99: at(99),
        failed: answers.failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_the_agents_own_time() {
        let answers = Answers {
            codes: [(200, 900), (503, 100)].into(),
            failed: 0,
            times: (1..=1000).map(Duration::from_micros).collect(),
            took: Duration::from_secs(1),
        };
        let checks = checks(&answers, 5);
        assert_eq!((checks.rate, checks.per_core), (1000.0, 20_000.0));
        assert_eq!(
            (checks.p50, checks.p99),
            (Duration::from_micros(500), Duration::from_micros(990))
        );
    }
}
