//! `surus-ci router`: what clients behind the built-in router see of a fault, beside those that find the primary themselves; and whether a
//! client that opens a session for each transaction loses one in a switchover.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::client::{self, Habit, PASSWORD, Plan, Route, Writer, look};
use crate::cluster::{self, Cluster};
use crate::demo::{fail, write};
use crate::error::{Error, Result, chain};
use crate::faults::{self, Fault};
use crate::haproxy::Tuned;
use crate::history::{self, Log, median};
use crate::http;
use crate::layout::MEMBERS;
use crate::proc;
use crate::report::{Report, span};

/// So much more than the direct client may the one behind the router wait.
const ALLOWANCE: Duration = Duration::from_millis(50);

const DIRECT: &str = "direct";
const ROUTED: &str = "router";
const DIRECT_NEW: &str = "direct, new sessions";
const ROUTED_NEW: &str = "router, new sessions";
const HAPROXY: &str = "HAProxy, tuned";

/// What `router` does.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "router")]
pub(crate) struct Options {
    /// How often each fault is injected
    #[arg(long, default_value_t = 3)]
    trials: u32,
    /// The faults
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "stop,switchover,postgres,host"
    )]
    faults: Vec<Fault>,
    /// How many switchovers, and as many stops of the agent, happen under pgbench
    #[arg(long, default_value_t = 3)]
    switchovers: u32,
    /// Write all figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// Runs the suite.
///
/// # Errors
/// When a median behind the router is above the direct one by more than the allowance, or pgbench had a failed transaction.
pub(crate) async fn router(options: &Options, report: Report) -> Result<()> {
    report.title(format!(
        "surus router: {} trials per fault, {} switchovers under pgbench -C",
        options.trials, options.switchovers
    ));
    cluster::with(&options.cluster, report, false, async |cluster| {
        let _router = start(cluster)?;
        let _haproxy = Tuned::start(&cluster.layout, &cluster.account, &cluster::program("haproxy")?)?;
        let [_, _, status] = cluster.layout.router();
        wait_ready(status).await?;
        beside_agent(cluster).await?;
        let (mut broken, mut figures, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut number = 0;
        for fault in &options.faults {
            let mut outages: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
            for _ in 0..options.trials {
                number += 1;
                report.title(format!("fault `{fault}`"));
                for (name, outage) in trial(cluster, *fault, number, &mut broken).await? {
                    outages.entry(name).or_default().push(outage);
                }
            }
            let mut middle = |name| outages.get_mut(name).and_then(|outages| median(outages));
            let all = [DIRECT, ROUTED, DIRECT_NEW, ROUTED_NEW, HAPROXY].map(|name| (name, middle(name)));
            let (direct, routed) = (all[0].1, all[1].1);
            let within = match (direct, routed) {
                (Some(direct), Some(routed)) => routed <= direct + ALLOWANCE,
                _ => false,
            };
            let text = |length: Option<Duration>| length.map_or_else(|| "–".to_owned(), span);
            if !within {
                broken.push(format!(
                    "{fault}: {} behind the router, {} direct: more than {} apart",
                    text(routed),
                    text(direct),
                    span(ALLOWANCE)
                ));
            }
            let mut row = vec![fault.to_string()];
            row.extend(all.iter().map(|(_, length)| text(*length)));
            row.push(report.verdict(within));
            rows.push(row);
            let seconds =
                |outages: &Vec<Duration>| outages.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
            let named: BTreeMap<_, _> = outages
                .iter()
                .map(|(name, outages)| (*name, seconds(outages)))
                .collect();
            figures.push(json!({"fault": fault.to_string(), "outages_s": named, "within": within}));
        }
        let pgbench = under_pgbench(options, cluster, &mut broken).await?;
        report.line("");
        let head = [
            "fault, medians",
            DIRECT,
            ROUTED,
            DIRECT_NEW,
            ROUTED_NEW,
            HAPROXY,
            "",
        ];
        report.table(&head, &rows);
        for line in &pgbench {
            report.line(line);
        }
        write(
            options.json.as_deref(),
            &json!({"faults": figures, "pgbench": pgbench, "broken": broken}),
        )?;
        fail(broken)
    })
    .await
}

/// Starts `surus router` as it would stand on an application's host: it knows etcd and its doors, and nothing of PostgreSQL.
fn start(cluster: &Cluster) -> Result<Child> {
    let Some(surus) = &cluster.ctl else {
        return Err(Error::Unable(
            "somebody else's agent has no router of ours".into(),
        ));
    };
    let dir = cluster.layout.root.join("router");
    cluster.account.directory(&dir)?;
    let hosts: String = (0..MEMBERS)
        .map(|i| format!("  - {}\n", cluster.layout.etcd_client(i)))
        .collect();
    let doors = cluster.layout.router();
    let config = format!(
        "scope: demo\nnamespace: /db/\netcd3:\n  hosts:\n{hosts}router:\n  primary: {}\n  replicas: {}\n  status: {}\n",
        doors[0], doors[1], doors[2]
    );
    let path = dir.join("router.yml");
    fs::write(&path, config).map_err(Error::io(|| format!("write {}", path.display())))?;
    cluster.account.own(&path)?;
    let words = [
        surus.display().to_string(),
        "router".to_owned(),
        path.display().to_string(),
    ];
    proc::start(&cluster.account, None, &words, &dir, &dir.join("router.log"))
}

/// Gives the agent of a replica a section `router`, starts it anew, and looks where its door leads.
async fn beside_agent(cluster: &mut Cluster) -> Result<()> {
    let primary = cluster.wait_healthy(Duration::from_secs(60)).await?;
    let replica = (primary + 1) % MEMBERS;
    let [door, status] = cluster.layout.router_of_agent();
    let path = cluster.nodes[usize::from(replica)].config();
    let opened = || format!("open {}", path.display());
    let before = fs::read_to_string(&path).map_err(Error::io(opened))?;
    let section = format!("router:\n  primary: {door}\n  status: {status}\n");
    fs::write(&path, format!("{before}{section}")).map_err(Error::io(opened))?;
    faults::inject(cluster, Fault::Agent, replica).await?;
    faults::heal(cluster, Fault::Agent, replica)?;
    wait_ready(status).await?;
    let (node, recovering) = look(door)
        .await
        .map_err(|error| Error::Unmet(format!("the router beside an agent: {error}")))?;
    if recovering || cluster.layout.node_at(node) != Some(primary) {
        return Err(Error::Unmet(format!(
            "the router beside an agent leads to {node}"
        )));
    }
    fs::write(&path, before).map_err(Error::io(opened))?;
    let name = &cluster.nodes[usize::from(replica)].name;
    cluster.report.say(format!(
        "the router beside the agent of {name} leads to the primary"
    ));
    Ok(())
}

/// Waits until the router says that it is ready.
async fn wait_ready(status: SocketAddrV4) -> Result<()> {
    let limit = Duration::from_secs(20);
    let end = Instant::now() + limit;
    loop {
        let last = match http::get(status, "/readiness", Duration::from_secs(1)).await {
            Ok(answer) if answer.status == 200 => return Ok(()),
            Ok(answer) => answer.body,
            Err(error) => error.to_string(),
        };
        if Instant::now() > end {
            return Err(Error::Late {
                what: "the router to be ready".into(),
                limit,
                last,
            });
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// One fault; returns each client's outage.
async fn trial(
    cluster: &mut Cluster,
    fault: Fault,
    number: i64,
    broken: &mut Vec<String>,
) -> Result<Vec<(&'static str, Duration)>> {
    let report = cluster.report;
    let primary = cluster.wait_healthy(Duration::from_secs(60)).await?;
    let writers = start_writers(cluster, number);
    let timeline = settle(&writers, 0, Instant::now(), Duration::from_secs(30)).await?;
    sleep(Duration::from_secs(1)).await;
    let injected = faults::inject(cluster, fault, primary).await?;
    report.say(&injected.what);
    let above = if fault.moves() { timeline } else { 0 };
    sleep(Duration::from_secs(2)).await;
    if let Err(error) = settle(&writers, above, injected.at, Duration::from_secs(60)).await {
        broken.push(format!("{fault}: {}", chain(&error)));
    }
    if let Some(command) = injected.command {
        match command.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => broken.push(format!("the switchover command failed: {}", chain(&error))),
            Err(error) => broken.push(format!("the switchover command did not end: {error}")),
        }
    }
    faults::heal(cluster, fault, primary)?;
    let after = cluster.wait_healthy(Duration::from_secs(120)).await?;
    let end = Instant::now();
    let mut logs = Vec::new();
    for writer in writers {
        logs.push(writer.stop().await);
    }
    judge(cluster, fault, after, &logs, broken).await?;
    let mut found = Vec::new();
    for name in [DIRECT, ROUTED, DIRECT_NEW, ROUTED_NEW, HAPROXY] {
        let log = logs.iter().find(|log| log.name == name);
        let Some(outage) = log.and_then(|log| log.outage(injected.at, end)) else {
            broken.push(format!("{fault}: `{name}` wrote nothing"));
            continue;
        };
        let failed = log.map_or(0, |log| log.troubles.len());
        report.say(format!(
            "{name}: {} without a write, {failed} failed",
            span(outage.length)
        ));
        found.push((name, outage.length));
    }
    Ok(found)
}

fn start_writers(cluster: &Cluster, number: i64) -> Vec<Writer> {
    let all: Vec<_> = cluster.nodes.iter().map(|node| node.postgres).collect();
    let [router, ..] = cluster.layout.router();
    let [haproxy, _] = cluster.layout.tuned();
    let plans = [
        (DIRECT, Route::Primary(all.clone()), Habit::Keep),
        (ROUTED, Route::To(router), Habit::Keep),
        (DIRECT_NEW, Route::Primary(all), Habit::Renew),
        (ROUTED_NEW, Route::To(router), Habit::Renew),
        (HAPROXY, Route::To(haproxy), Habit::Keep),
    ];
    let plan = |(index, (name, route, habit)): (i64, (&str, Route, Habit))| Plan {
        name: name.to_owned(),
        route,
        habit,
        pace: Duration::from_millis(20),
        retry: client::PAUSE,
        first: number * 1_000_000_000 + (index + 1) * 10_000_000,
        ports: None,
        psql: None,
    };
    (0..).zip(plans).map(plan).map(Writer::start).collect()
}

/// Waits until every client has a write on a timeline above `above` acknowledged after `since`; returns the timeline.
async fn settle(writers: &[Writer], above: u32, since: Instant, limit: Duration) -> Result<u32> {
    let end = Instant::now() + limit;
    loop {
        let fresh = |writer: &Writer| {
            let ack = writer.last()?;
            (since < ack.acked && above < ack.timeline && ack.acked.elapsed() < Duration::from_secs(1))
                .then_some(ack.timeline)
        };
        let found: Vec<_> = writers.iter().map(fresh).collect();
        if let Some(timelines) = found.iter().copied().collect::<Option<Vec<u32>>>() {
            return Ok(timelines.into_iter().max().unwrap_or(0));
        }
        if Instant::now() > end {
            let silent: Vec<_> = writers
                .iter()
                .zip(&found)
                .filter(|(_, found)| found.is_none())
                .map(|(writer, _)| writer.name())
                .collect();
            return Err(Error::Late {
                what: "every client to write".into(),
                limit,
                last: format!("not {}", silent.join(", ")),
            });
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Two primaries, or writes that are gone for no reason.
async fn judge(
    cluster: &Cluster,
    fault: Fault,
    primary: u8,
    logs: &[Log],
    broken: &mut Vec<String>,
) -> Result<()> {
    let overlap = history::overlap(logs);
    if !overlap.length.is_zero() {
        broken.push(format!(
            "{fault}: two primaries for {}: {}",
            span(overlap.length),
            overlap.who
        ));
    }
    let present = cluster.rows(primary).await?;
    let lost = history::missing(logs, &present).len();
    if lost > 0 && !fault.may_lose() {
        broken.push(format!("{fault}: {lost} acknowledged writes are gone"));
    }
    Ok(())
}

/// Switchovers, and stops of the agent, under a client that opens a session for each transaction. Returns what came of each, in words.
async fn under_pgbench(
    options: &Options,
    cluster: &mut Cluster,
    broken: &mut Vec<String>,
) -> Result<Vec<String>> {
    let report = cluster.report;
    let pgbench = cluster.bin.join("pgbench").display().to_string();
    let [router, ..] = cluster.layout.router();
    let conninfo = format!(
        "host={} port={} user=postgres password={PASSWORD} dbname=postgres",
        router.ip(),
        router.port()
    );
    let words = |arguments: &[&str]| -> Vec<String> {
        std::iter::once(pgbench.as_str())
            .chain(arguments.iter().copied())
            .chain([conninfo.as_str()])
            .map(str::to_owned)
            .collect()
    };
    let (account, dir) = (cluster.account.clone(), cluster.layout.root.join("router"));
    if options.switchovers > 0 {
        cluster.wait_healthy(Duration::from_secs(60)).await?;
        proc::run(
            &account,
            &words(&["-i", "-q", "-s", "2"]),
            &dir,
            Duration::from_secs(60),
        )
        .await?;
    }
    let mut lines = Vec::new();
    let deeds = (0..options.switchovers).flat_map(|_| [Fault::Switchover, Fault::Stop]);
    for fault in deeds {
        let primary = cluster.wait_healthy(Duration::from_secs(120)).await?;
        report.title(format!("`{fault}` under pgbench -C"));
        // A thread of pgbench that waits for a connection lets the transactions of its other clients stand, so each has one of its own.
        let arguments = words(&["-C", "-n", "-c", "8", "-j", "8", "-T", "6"]);
        let (account, dir) = (account.clone(), dir.clone());
        let bench =
            tokio::spawn(async move { proc::run(&account, &arguments, &dir, Duration::from_secs(90)).await });
        sleep(Duration::from_secs(2)).await;
        let injected = faults::inject(cluster, fault, primary).await?;
        if let Some(command) = injected.command
            && !matches!(command.await, Ok(Ok(_)))
        {
            broken.push("the switchover command under pgbench failed".to_owned());
        }
        let output = bench
            .await
            .map_err(|error| Error::Unable(format!("pgbench was not awaited: {error}")))?;
        faults::heal(cluster, fault, primary)?;
        if cluster.wait_healthy(Duration::from_secs(120)).await? == primary {
            broken.push(format!("{fault} under pgbench: the primary is where it was"));
        }
        let line = match output
            .map_err(|error| chain(&error))
            .and_then(|text| verdict(&text))
        {
            Ok(processed) => format!("pgbench -C, {fault}: {processed} transactions, none failed"),
            Err(why) => {
                broken.push(format!("pgbench -C, {fault}: {why}"));
                format!("pgbench -C, {fault}: {why}")
            }
        };
        report.say(&line);
        lines.push(line);
    }
    Ok(lines)
}

/// How many transactions pgbench says were processed, if it says that none failed.
fn verdict(output: &str) -> std::result::Result<u64, String> {
    let after = |label: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(label))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let processed = after("number of transactions actually processed: ");
    let failed = after("number of failed transactions: ");
    match (processed, failed) {
        (Some(processed), Some(0)) if processed > 0 && !output.contains("abort") => Ok(processed),
        _ => Err(format!("pgbench said: {}", output.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn only_a_run_without_a_failure_is_good() {
        let good =
            "number of transactions actually processed: 812\nnumber of failed transactions: 0 (0.000%)\n";
        assert_eq!(verdict(good), Ok(812));
        for bad in [
            good.replace("812", "0"),
            good.replace(": 0 (", ": 1 ("),
            good.replace("number of failed", "number of"),
            format!("{good}pgbench: error: Run was aborted; the above results are incomplete.\n"),
            String::new(),
        ] {
            assert!(verdict(&bad).is_err(), "{bad}");
        }
    }
}
