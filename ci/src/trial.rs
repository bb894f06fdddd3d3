//! One fault from the first write to the last check: load, fault, recovery, rejoin, verification.
//!
//! Every suite is made of trials. A trial fails for what the product did wrong, each with a sentence in [`Outcome::broken`]; it never
//! stops at the first.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{self, Habit, Plan, Reader, Route, Writer};
use crate::cluster::Cluster;
use crate::error::{Error, Result, chain};
use crate::faults::{self, Fault};
use crate::ground;
use crate::haproxy;
use crate::history::{self, Log, Look, Outage, Overlap};
use crate::layout::MEMBERS;
use crate::phases::{Keys, Phases};
use crate::report::{Paint, outage, span};

/// The name of the client that finds the primary itself.
pub(crate) const DIRECT: &str = "direct";
/// The name of the client that does so through libpq, by a string of all hosts.
pub(crate) const LIBPQ: &str = "libpq";
/// The name of the client behind HAProxy.
pub(crate) const PROXY: &str = "HAProxy :5000";

/// Those whose silence is measured.
const MEASURED: [&str; 3] = [DIRECT, LIBPQ, PROXY];

/// The pause of every client but the first after a connection that did not come about. Each attempt is a process of a PostgreSQL, and on a
/// machine that all hosts share these take from the failover what the first client measures.
const RETRY: Duration = Duration::from_millis(100);

/// So old a server is before it is made to crash, which an earlier trial may have done as well.
const SETTLED: Duration = Duration::from_secs(12);

/// Who writes during a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// A direct client, one through libpq and one through HAProxy, and one on each node.
    Usual,
    /// The same, and on each node one more that opens a new connection for every write.
    Thick,
}

/// What one client saw of a fault.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// The client.
    pub(crate) client: String,
    /// Writes acknowledged to it.
    pub(crate) acked: usize,
    /// Writes and connections that failed.
    pub(crate) failed: usize,
    /// Its longest silence; `None` for a client that follows one node, whose silence says nothing.
    pub(crate) outage: Option<Outage>,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The fault.
    pub(crate) fault: Fault,
    /// Primary before and after.
    pub(crate) primary: (String, String),
    /// Timeline before and after.
    pub(crate) timeline: (u32, u32),
    /// The clients.
    pub(crate) sights: Vec<Sight>,
    /// The worst overlap of two primaries.
    pub(crate) overlap: Overlap,
    /// Where the time went, if another member took over.
    pub(crate) phases: Option<Phases>,
    /// Acknowledged writes that are gone, each in words.
    pub(crate) lost: Vec<String>,
    /// What HAProxy did meanwhile, beside the client behind it.
    pub(crate) routing: String,
    /// From the start of the repair to three healthy members.
    pub(crate) rejoin: Duration,
    /// What the product did wrong.
    pub(crate) broken: Vec<String>,
}

impl Outcome {
    /// The outage of a client.
    pub(crate) fn outage(&self, client: &str) -> Option<Outage> {
        self.sights
            .iter()
            .find(|sight| sight.client == client)
            .and_then(|sight| sight.outage)
    }

    /// True when asynchronous replication excuses the loss of acknowledged writes: the primary died, another member took over, and
    /// no write was acknowledged by the old one after that.
    fn inevitable(&self) -> bool {
        self.fault.may_lose() && self.primary.0 != self.primary.1 && self.overlap.length.is_zero()
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let sight = |sight: &Sight| {
            json!({"client": sight.client, "acknowledged": sight.acked, "failed": sight.failed,
                "outage_s": sight.outage.map(|outage| outage.length.as_secs_f64()), "outage_ended": sight.outage.map(|outage| outage.ended)})
        };
        json!({
            "fault": self.fault.to_string(),
            "primary_before": self.primary.0, "primary_after": self.primary.1,
            "timeline_before": self.timeline.0, "timeline_after": self.timeline.1,
            "clients": self.sights.iter().map(sight).collect::<Vec<_>>(),
            "overlap_ms": self.overlap.length.as_secs_f64() * 1e3, "overlap_acks": self.overlap.acks, "overlap_who": self.overlap.who,
            "phases": self.phases.map(|phases| phases.json()), "lost": self.lost, "haproxy": self.routing, "rejoin_s": self.rejoin.as_secs_f64(), "broken": self.broken,
        })
    }
}

fn plans(cluster: &Cluster, crowd: Crowd, number: i64) -> Vec<Plan> {
    let pace = Duration::from_millis(20);
    let all: Vec<_> = cluster.nodes.iter().map(|node| node.postgres).collect();
    let cuttable = cluster.layout.network().is_some();
    let mut plans: Vec<Plan> = Vec::new();
    let mut add = |name: String, route, habit, pace| {
        let first = number * 1_000_000_000 + (plans.len() as i64 + 1) * 10_000_000;
        // Who follows one node sits beside it: no cut of its network is between them.
        let others = plans.iter().filter(|plan| plan.ports.is_some()).count();
        let turn = ground::BESIDE.start + 500 * u16::try_from(others).unwrap_or(0);
        let beside = cuttable && matches!(habit, Habit::Stay | Habit::Renew);
        plans.push(Plan {
            route,
            habit,
            pace,
            retry: if name == DIRECT { client::PAUSE } else { RETRY },
            first,
            ports: beside.then(|| turn..turn + 500),
            psql: (name == LIBPQ).then(|| cluster.bin.join("psql")),
            name,
        });
    };
    add(DIRECT.into(), Route::Primary(all.clone()), Habit::Keep, pace);
    add(LIBPQ.into(), Route::Primary(all), Habit::Keep, pace);
    add(
        PROXY.into(),
        Route::To(cluster.layout.primary()),
        Habit::Keep,
        pace,
    );
    for node in &cluster.nodes {
        add(
            format!("on {}", node.name),
            Route::To(node.postgres),
            Habit::Stay,
            pace,
        );
        if crowd == Crowd::Thick {
            add(
                format!("on {}, new connections", node.name),
                Route::To(node.postgres),
                Habit::Renew,
                3 * pace,
            );
        }
    }
    plans
}

/// Runs a trial; `number` keeps its rows apart from those of other trials on the same cluster.
///
/// # Errors
/// When the cluster does not recover, or the harness cannot find out.
pub(crate) async fn run(cluster: &mut Cluster, fault: Fault, crowd: Crowd, number: i64) -> Result<Outcome> {
    let report = cluster.report;
    let before = cluster.wait_healthy(Duration::from_secs(60)).await?;
    haproxy::wait_routed(&cluster.layout, before, 2 * haproxy::NOTICE).await?;
    let writers: Vec<Writer> = plans(cluster, crowd, number)
        .into_iter()
        .map(Writer::start)
        .collect();
    let keys = Keys::watch(&cluster.layout);
    let (replicas, statistics) = (cluster.layout.replicas(), cluster.layout.stats());
    let reader = Reader::start(replicas, statistics, Duration::from_millis(200));
    if fault.crashes() {
        sleep(SETTLED).await;
    }
    let timeline = warm_up(&writers, Duration::from_secs(10)).await?;
    let name = cluster.nodes[usize::from(before)].name.clone();
    report.say(format!(
        "clients write; {name} is primary on timeline {timeline}; HAProxy routes as it must"
    ));

    let injected = faults::inject(cluster, fault, before).await?;
    report.say(report.paint(Paint::Yellow, format!("fault {fault}: {}", injected.what)));
    let mut broken = Vec::new();
    if let Err(error) = recover(cluster, fault, before, injected.at, &writers, timeline).await {
        // Two primaries look like this too: go on, so that they are seen and measured.
        report.say(report.paint(Paint::Red, chain(&error)));
        broken.push(chain(&error));
    }
    report.say(format!("clients write again: {}", silences(&writers)));
    if let Some(command) = injected.command {
        match command.await {
            Ok(Ok(text)) => report.say(format!(
                "the operator was told: {}",
                text.lines()
                    .find(|line| line.contains("witched"))
                    .unwrap_or("nothing")
            )),
            Ok(Err(error)) => broken.push(format!("the switchover command failed: {}", chain(&error))),
            Err(error) => broken.push(format!("the switchover command did not end: {error}")),
        }
    }

    let repair = Instant::now();
    faults::heal(cluster, fault, before)?;
    let after = cluster.wait_healthy(Duration::from_secs(120)).await?;
    let rejoin = repair.elapsed();
    report.say(format!(
        "three healthy members on one timeline {} after the repair",
        span(rejoin)
    ));
    haproxy::wait_routed(&cluster.layout, after, 2 * haproxy::NOTICE).await?;
    sleep(Duration::from_millis(500)).await;

    let end = Instant::now();
    let looks = reader.stop().await;
    let mut logs = Vec::new();
    for writer in writers {
        logs.push(writer.stop().await);
    }
    let present = cluster.rows(after).await?;
    let outcome = Outcome {
        fault,
        primary: (name, cluster.nodes[usize::from(after)].name.clone()),
        timeline: (
            timeline,
            history::timelines(&logs).last().copied().unwrap_or(timeline),
        ),
        sights: logs.iter().map(|log| sight(log, injected.at, end)).collect(),
        overlap: history::overlap(&logs),
        phases: moved(&logs, injected.at, cluster.nodes[usize::from(before)].postgres)
            .and_then(|first| keys.phases(injected.at, first)),
        lost: lost(&logs, &present, injected.at),
        routing: String::new(),
        rejoin,
        broken,
    };
    Ok(judge(cluster, outcome, &looks, &logs))
}

/// The first write after `fault` that another server than this one acknowledged.
fn moved(logs: &[Log], fault: Instant, from: SocketAddrV4) -> Option<Instant> {
    let acks = logs.iter().flat_map(|log| &log.acks);
    let others = acks.filter(|ack| fault < ack.acked && ack.node != *from.ip());
    others.map(|ack| ack.acked).min()
}

/// Waits until all whose silence is measured have writes acknowledged; returns the timeline.
async fn warm_up(writers: &[Writer], limit: Duration) -> Result<u32> {
    sleep(Duration::from_secs(2)).await;
    let end = Instant::now() + limit;
    loop {
        let last = |name: &str| {
            writers
                .iter()
                .find(|writer| writer.name() == name)
                .and_then(Writer::last)
        };
        let all: Option<Vec<_>> = MEASURED.into_iter().map(last).collect();
        if let Some(ack) = all.and_then(|all| all.into_iter().next()) {
            return Ok(ack.timeline);
        }
        if Instant::now() > end {
            return Err(Error::Late {
                what: "the first acknowledged writes".into(),
                limit,
                last: "none".into(),
            });
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the clients write again, on a newer timeline where the fault moves the primary.
async fn recover(
    cluster: &mut Cluster,
    fault: Fault,
    primary: u8,
    at: Instant,
    writers: &[Writer],
    timeline: u32,
) -> Result<()> {
    let ttl = cluster.patience();
    match fault {
        Fault::Agent => {
            // As `RestartSec=1` does; then long enough for a deadline that nobody extended to strike.
            sleep_until(at + Duration::from_secs(1)).await;
            faults::heal(cluster, fault, primary)?;
            sleep_until(at + 2 * ttl).await;
        }
        Fault::Freeze => {
            sleep_until(at + 3 * ttl).await;
            faults::heal(cluster, fault, primary)?;
        }
        _ if let Some(lasts) = fault.lasts() => {
            sleep_until(at + lasts).await;
            faults::heal(cluster, fault, primary)?;
        }
        _ => sleep_until(at + Duration::from_secs(3)).await,
    }
    let limit = 4 * ttl + Duration::from_secs(60);
    loop {
        let fresh = |name: &str| {
            let ack = writers
                .iter()
                .find(|writer| writer.name() == name)
                .and_then(Writer::last);
            ack.is_some_and(|ack| {
                ack.acked.elapsed() < Duration::from_millis(300)
                    && (!fault.moves() || ack.timeline > timeline)
            })
        };
        if MEASURED.into_iter().all(fresh) {
            return Ok(());
        }
        if at.elapsed() > limit {
            return Err(Error::Late {
                what: format!("the clients to write again after the fault `{fault}`"),
                limit,
                last: silences(writers),
            });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The newest acknowledgement of each client whose silence is measured, in words.
fn silences(writers: &[Writer]) -> String {
    MEASURED
        .map(|name| format!("{name} {}", silence(writers, name)))
        .join(", ")
}

/// The newest acknowledgement of a client, in words.
fn silence(writers: &[Writer], name: &str) -> String {
    match writers
        .iter()
        .find(|writer| writer.name() == name)
        .and_then(Writer::last)
    {
        Some(ack) => format!(
            "{} ago on {} (TL {})",
            span(ack.acked.elapsed()),
            ack.node,
            ack.timeline
        ),
        None => "never".into(),
    }
}

fn sight(log: &Log, from: Instant, to: Instant) -> Sight {
    let follows_one = log.name.starts_with("on ");
    Sight {
        client: log.name.clone(),
        acked: log.acks.len(),
        failed: log.troubles.len(),
        outage: if follows_one { None } else { log.outage(from, to) },
    }
}

fn lost(logs: &[Log], present: &BTreeSet<i64>, fault: Instant) -> Vec<String> {
    let when = |at: Instant| match at.checked_duration_since(fault) {
        Some(after) => format!("{} after the fault", span(after)),
        None => format!("{} before the fault", span(fault - at)),
    };
    let missing = history::missing(logs, present);
    let word = missing.iter().map(|(client, ack)| {
        format!(
            "row {} of `{client}`, acknowledged {} by {} on timeline {}",
            ack.id,
            when(ack.acked),
            ack.node,
            ack.timeline
        )
    });
    word.collect()
}

fn judge(cluster: &Cluster, mut outcome: Outcome, looks: &[Look], logs: &[Log]) -> Outcome {
    let fault = outcome.fault;
    let moved = outcome.primary.0 != outcome.primary.1;
    if !outcome.overlap.length.is_zero() {
        let Overlap { length, acks, who } = &outcome.overlap;
        outcome.broken.push(format!(
            "two primaries for {}: {who}; {acks} writes acknowledged by the older one meanwhile",
            span(*length)
        ));
    }
    if !outcome.lost.is_empty() && !outcome.inevitable() {
        outcome.broken.push(format!(
            "{} acknowledged writes are gone although nothing made that inevitable",
            outcome.lost.len()
        ));
    }
    if fault.moves() != moved && !fault.may_move() {
        outcome.broken.push(format!(
            "the primary was {} and is {}",
            outcome.primary.0, outcome.primary.1
        ));
    }
    for client in MEASURED {
        if outcome.outage(client).is_none_or(|outage| !outage.ended) {
            outcome
                .broken
                .push(format!("the client `{client}` did not get to write again"));
        }
    }
    outcome.routing = routing(cluster, &mut outcome, looks, logs);
    outcome
}

/// What HAProxy did meanwhile, in a sentence; what it must not do goes to the trial's faults.
fn routing(cluster: &Cluster, outcome: &mut Outcome, looks: &[Look], logs: &[Log]) -> String {
    let moved = outcome.primary.0 != outcome.primary.1;
    let newest = outcome.timeline.1;
    // The first write on the new timeline is when the new primary stopped being a replica.
    let acks = logs.iter().flat_map(|log| &log.acks);
    let change = acks
        .filter(|ack| moved && ack.timeline == newest)
        .map(|ack| ack.acked)
        .min();
    let primary = cluster
        .nodes
        .iter()
        .find(|node| node.name == outcome.primary.1)
        .map(|node| *node.postgres.ip());
    let at_primary = |look: &&Look| {
        look.found
            .is_some_and(|(node, recovering)| !recovering || Some(node) == primary)
    };
    let strays = change.map(|change| {
        looks
            .iter()
            .filter(at_primary)
            .filter(|look| look.at > change)
            .map(|look| look.at - change)
            .max()
    });
    let stray = strays.flatten().unwrap_or_default();
    if stray > haproxy::NOTICE {
        outcome.broken.push(format!(
            "port 5001 still led to the primary {} after the change",
            span(stray)
        ));
    }
    let answered = looks.iter().filter(|look| look.found.is_some()).count();
    if answered * usize::from(MEMBERS) < looks.len() {
        outcome.broken.push("port 5001 failed most of the time".into());
    }
    let statistics = looks.iter().filter(|look| look.statistics).count();
    // A busy machine may make one of them late.
    if statistics * 10 < looks.len() * 9 {
        outcome.broken.push(format!(
            "the statistics page failed {} of {} times",
            looks.len() - statistics,
            looks.len()
        ));
    }
    let noticed = if stray.is_zero() {
        String::new()
    } else {
        format!(", the new primary among them for {}", span(stray))
    };
    format!(
        "port 5001 answered {answered} of {} reads{noticed}; statistics {statistics} of {}",
        looks.len(),
        looks.len()
    )
}

/// Prints what the clients saw.
pub(crate) fn show(cluster: &Cluster, outcome: &Outcome) {
    let report = cluster.report;
    let rows: Vec<Vec<String>> = outcome
        .sights
        .iter()
        .map(|sight| {
            let silence = if sight.client.starts_with("on ") {
                "–".into()
            } else {
                outage(sight.outage)
            };
            vec![
                sight.client.clone(),
                silence,
                sight.acked.to_string(),
                sight.failed.to_string(),
            ]
        })
        .collect();
    report.table(&["client", "longest outage", "acknowledged", "failed"], &rows);
    let (before, after) = &outcome.primary;
    report.line(&format!(
        "primary          {before} on timeline {} → {after} on timeline {}",
        outcome.timeline.0, outcome.timeline.1
    ));
    let overlap = span(outcome.overlap.length);
    report.line(&format!(
        "two primaries    {overlap} {}",
        report.verdict(outcome.overlap.length.is_zero())
    ));
    let lost = match outcome.lost.len() {
        0 => "none".to_owned(),
        n if outcome.inevitable() => {
            format!("{n} (asynchronous replication makes this inevitable for this fault)")
        }
        n => n.to_string(),
    };
    report.line(&format!("writes lost      {lost}"));
    for line in outcome.lost.iter().take(20) {
        report.line(&format!("                 {line}"));
    }
    if let Some(more) = outcome.lost.len().checked_sub(20).filter(|more| *more > 0) {
        report.line(&format!(
            "                 and {more} more; `--json` has them all"
        ));
    }
    report.line(&format!("HAProxy          {}", outcome.routing));
    report.line(&format!("rejoined after   {}", span(outcome.rejoin)));
    for sentence in &outcome.broken {
        report.line(&format!("{} {sentence}", report.paint(Paint::Red, "BROKEN:")));
    }
}
