//! `surus-ci storm`: random faults on a real cluster with synchronous replication, while clients count what was acknowledged to them.
//!
//! Faults come one at a time or, one time in four, two. After each the cluster must get well by itself, and every write that was ever
//! acknowledged must be there. After a single fault commits must not have been held up for longer than `docs/durability.md` says.
//!
//! With the gate, whatever a primary showed to anybody must be there as well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{self, Habit, Plan, Route, Writer};
use crate::cluster::{self, Cluster};
use crate::demo::{fail, write};
use crate::error::{Error, Result, chain};
use crate::history;
use crate::layout::MEMBERS;
use crate::reader::Readers;
use crate::report::{Paint, Report, span};
use crate::standing;
use crate::strike::{Fallen, Kind, Strike, Whom};

/// What a client adds to the silence: it gives a write up after a second, and may have begun it just before.
const CLIENT: Duration = Duration::from_secs(1);
/// What a busy machine of two cores adds.
const MACHINE: Duration = Duration::from_secs(1);

/// What `storm` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Storm {
    /// The modes: on, quorum, strict (on, and strict)
    #[arg(long, value_delimiter = ',', default_value = "on,quorum,strict")]
    modes: Vec<String>,
    /// How many times faults come, in each mode
    #[arg(long, default_value_t = 200)]
    faults: u32,
    /// Keep clients out of a new primary for as long as no standby has what it shows, and look at what those see who are let in
    #[arg(long)]
    gate: bool,
    /// The same number draws the same faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write all figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// What clients saw of one kind of fault.
#[derive(Debug, Default)]
struct Silences {
    alone: Vec<Duration>,
    with_another: usize,
}

struct Course<'a> {
    cluster: &'a mut Cluster,
    report: Report,
    mode: String,
    writers: Vec<Writer>,
    readers: Option<Readers>,
    seen: BTreeMap<(Kind, &'static str), Silences>,
    broken: Vec<String>,
    figures: Vec<Value>,
}

/// Runs the suite.
///
/// # Errors
/// When an acknowledged write is gone, two primaries acknowledged, commits were held up for too long, or the cluster did not get well.
pub(crate) async fn storm(options: &Storm, report: Report) -> Result<()> {
    report.title(format!(
        "{} random faults in each of {}, seed {}",
        options.faults,
        options.modes.join(", "),
        options.seed
    ));
    cluster::with(&options.cluster, report, false, async |cluster| {
        let writers = plans(cluster).into_iter().map(Writer::start).collect();
        let mut course = Course {
            report,
            cluster,
            mode: String::new(),
            writers,
            readers: None,
            seen: BTreeMap::new(),
            broken: Vec::new(),
            figures: Vec::new(),
        };
        for mode in &options.modes {
            course.mode.clone_from(mode);
            course.run(options).await?;
        }
        course.end(options).await
    })
    .await
}

/// A client that finds the primary, and one that stays with each node.
fn plans(cluster: &Cluster) -> Vec<Plan> {
    let all: Vec<_> = cluster.nodes.iter().map(|node| node.postgres).collect();
    let plan = |name: &str, route, habit, pace, place: i64| Plan {
        name: name.to_owned(),
        route,
        habit,
        pace: Duration::from_millis(pace),
        retry: client::PAUSE,
        first: (place + 1) * 10_000_000,
        ports: None,
        psql: None,
    };
    let mut plans = vec![plan("direct", Route::Primary(all.clone()), Habit::Keep, 10, 0)];
    for (node, at) in cluster.nodes.iter().zip(all) {
        let (name, place) = (format!("on {}", node.name), i64::from(node.index) + 1);
        plans.push(plan(&name, Route::To(at), Habit::Stay, 50, place));
    }
    plans
}

impl Course<'_> {
    async fn run(&mut self, options: &Storm) -> Result<()> {
        let strict = self.mode == "strict";
        let mode = if strict { "on" } else { &self.mode };
        let change = json!({"synchronous_mode": mode, "synchronous_mode_strict": strict});
        self.report.title(format!("mode {}", self.mode));
        self.cluster.wait_healthy(Duration::from_secs(90)).await?;
        self.cluster.order("PATCH", "/config", &change).await?;
        self.well().await?;
        if options.gate && self.readers.is_none() {
            self.shut().await?;
            self.well().await?;
        }
        let mut rng = Rng::with_seed(options.seed);
        let ttl = self.cluster.patience();
        for number in 1..=options.faults {
            let first = Strike::draw(&mut rng, ttl);
            let second = (rng.u8(0..4) == 0).then(|| {
                let after = Duration::from_secs_f64(3.0 * rng.f64());
                (after, Strike::draw(&mut rng, ttl))
            });
            self.round(number, first, second).await?;
        }
        Ok(())
    }

    /// Has new primaries keep clients out, and readers try.
    async fn shut(&mut self) -> Result<()> {
        let primary = self.cluster.wait_healthy(Duration::from_secs(90)).await?;
        let at = Route::To(self.cluster.nodes[usize::from(primary)].postgres);
        Readers::make_user(&client::connect(&at).await?).await?;
        let change = json!({"synchronous_gate_timeout": 30, "synchronous_gate_hold": true});
        self.cluster.order("PATCH", "/config", &change).await?;
        // Where PostgreSQL finds its rules can be said at a start only, and the agent says it in a synchronous mode.
        for node in 0..MEMBERS {
            self.cluster.restart(node).await?;
            self.cluster.wait_healthy(Duration::from_secs(90)).await?;
        }
        let firsts: Vec<_> = plans(self.cluster).iter().map(|plan| plan.first).collect();
        let nodes = self.cluster.nodes.iter().map(|node| node.postgres);
        self.readers = Some(Readers::start(nodes, &firsts));
        Ok(())
    }

    /// Faults, the way back, and what is left of what was acknowledged.
    async fn round(&mut self, number: u32, first: Strike, second: Option<(Duration, Strike)>) -> Result<()> {
        let began = Instant::now();
        let mut all = vec![(began, first)];
        all.extend(second.map(|(after, strike)| (began + after, strike)));
        self.faults(&all).await?;
        let words = match &second {
            Some((after, other)) => format!("{first}; {} later {other}", span(*after)),
            None => first.to_string(),
        };
        self.well().await.map_err(|error| {
            Error::Unmet(format!(
                "{}, fault {number}, {words}: {}",
                self.mode,
                chain(&error)
            ))
        })?;
        let outage = self.writers[0].look(|log| log.outage(began, Instant::now()));
        let silence = outage.map_or(Duration::MAX, |outage| outage.length);
        let lost = self.lost().await?;

        let limit = self.limit().filter(|_| second.is_none());
        let late = limit.filter(|limit| *limit < silence);
        let line = format!(
            "{} #{number}: {words}: the client waited {}, well after {}",
            self.mode,
            span(silence),
            span(began.elapsed())
        );
        if late.is_some() || !lost.is_empty() {
            let late = late.map_or_else(String::new, |limit| format!("; {} is the limit", span(limit)));
            let text = format!("{line}{late}; lost: {lost:?}");
            self.report.say(self.report.paint(Paint::Red, &text));
            self.broken.push(text);
        } else {
            self.report.say(&line);
        }
        let seen = self.seen.entry((first.kind, first.place())).or_default();
        if second.is_none() {
            seen.alone.push(silence);
        } else {
            seen.with_another += 1;
        }
        self.figures.push(json!({
            "mode": self.mode, "number": number, "faults": words, "faults_at_once": all.len(),
            "longest_silence_s": silence.as_secs_f64(), "well_after_s": began.elapsed().as_secs_f64(), "lost": lost,
        }));
        Ok(())
    }

    /// Lets faults come and end, each at its time.
    async fn faults(&mut self, all: &[(Instant, Strike)]) -> Result<()> {
        let mut under_way = Vec::new();
        for (at, strike) in all {
            self.end_faults(&mut under_way, Some(*at)).await?;
            sleep_until(*at).await;
            let place = self.place(strike).await;
            let fallen = strike.fall(self.cluster, place).await?;
            under_way.push((*at + strike.lasts, fallen));
        }
        self.end_faults(&mut under_way, None).await
    }

    /// Ends faults in the order of their times: those that are over before `next`, or all.
    async fn end_faults(
        &mut self,
        under_way: &mut Vec<(Instant, Fallen)>,
        next: Option<Instant>,
    ) -> Result<()> {
        // An agent that stands still does not end.
        let freezes = |(at, fallen): &(Instant, Fallen)| Some((fallen.freezes()?, *at));
        let frozen: Vec<(u8, Instant)> = under_way.iter().filter_map(freezes).collect();
        for (at, fallen) in under_way.iter_mut() {
            let of_it = frozen.iter().filter(|(node, _)| fallen.awaits() == Some(*node));
            *at = of_it.map(|(_, until)| *until).fold(*at, Instant::max);
        }
        under_way.sort_by_key(|(at, fallen)| (*at, fallen.awaits().is_some()));
        let over = under_way.partition_point(|(at, _)| next.is_none_or(|next| *at < next));
        for (at, fallen) in under_way.drain(..over) {
            sleep_until(at).await;
            fallen.end(self.cluster).await?;
        }
        Ok(())
    }

    /// Whom it hits now. Where nobody is what it looks for, another node takes its place.
    async fn place(&self, strike: &Strike) -> u8 {
        let seen = self.cluster.seen().await.unwrap_or_default();
        let primary = seen.primary.unwrap_or_default();
        match strike.whom {
            Whom::Primary | Whom::Cluster => primary,
            Whom::Synchronous => seen.named.first().copied().unwrap_or((primary + 1) % MEMBERS),
            Whom::Next(places) => (primary + places) % MEMBERS,
        }
    }

    /// All members are well, the key holds whom it should, and writes are acknowledged.
    async fn well(&mut self) -> Result<()> {
        self.cluster.wait_healthy(Duration::from_secs(120)).await?;
        let full = if self.mode == "quorum" { 2 } else { 1 };
        let limit = Duration::from_secs(60);
        self.cluster
            .until_seen("the sync key to be full", limit, |seen| seen.named.len() == full)
            .await?;
        standing::flowing(&self.writers[0], "an acknowledged write", Duration::from_secs(20)).await
    }

    /// How long commits may be held up by one fault: `ttl` and two rounds, as `docs/durability.md` says, and what the client adds. Strict mode
    /// promises nothing: where the primary dies and the other replica was ahead of the one that leads now, they wait until it is rewound.
    fn limit(&self) -> Option<Duration> {
        let limit = self.cluster.patience().mul_f64(1.4) + CLIENT + MACHINE;
        (self.mode != "strict").then_some(limit)
    }

    /// What was acknowledged, or seen with the gate, and is not there.
    async fn lost(&self) -> Result<Vec<i64>> {
        let acked =
            |writer: &Writer| writer.look(|log| log.acks.iter().map(|ack| ack.id).collect::<Vec<_>>());
        let mut known: BTreeSet<i64> = self.writers.iter().flat_map(acked).collect();
        known.extend(self.readers.iter().flat_map(|readers| readers.sight().rows));
        // Who leads may change in the very moment.
        for _ in 0..20 {
            let seen = self.cluster.seen().await.unwrap_or_default();
            if let Some(primary) = seen.primary
                && let Ok(present) = self.cluster.rows(primary).await
            {
                return Ok(known.difference(&present).copied().collect());
            }
            sleep(Duration::from_millis(500)).await;
        }
        Err(Error::Unmet("nobody could be asked what is there".to_owned()))
    }

    async fn end(mut self, options: &Storm) -> Result<()> {
        let mut logs = Vec::new();
        for writer in std::mem::take(&mut self.writers) {
            logs.push(writer.stop().await);
        }
        let overlap = history::overlap(&logs);
        let rows: Vec<Vec<String>> = self
            .seen
            .iter_mut()
            .map(|((kind, place), seen)| {
                let longest = seen.alone.iter().max().copied();
                vec![
                    kind.text().to_owned(),
                    (*place).to_owned(),
                    seen.alone.len().to_string(),
                    history::median(&mut seen.alone).map_or("–".into(), span),
                    longest.map_or("–".into(), span),
                    seen.with_another.to_string(),
                ]
            })
            .collect();
        let head = [
            "fault",
            "at the",
            "alone",
            "median silence",
            "longest",
            "with another",
        ];
        self.report.line("");
        self.report.table(&head, &rows);
        let acknowledged: usize = logs.iter().map(|log| log.acks.len()).sum();
        self.report.say(format!(
            "{acknowledged} writes acknowledged; {} timelines; two primaries for {}",
            history::timelines(&logs).len(),
            span(overlap.length)
        ));
        let sight = self.readers.take().map(|readers| readers.sight());
        if let Some(sight) = &sight {
            self.report.say(format!(
                "{} looks at a primary, {} rows seen; {} times a reader was kept out",
                sight.looks,
                sight.rows.len(),
                sight.kept_out
            ));
            if sight.looks == 0 || sight.kept_out == 0 {
                self.broken
                    .push("the gate kept nobody out, or everybody".to_owned());
            }
        }
        if !overlap.length.is_zero() {
            self.broken.push(format!("two primaries: {}", overlap.who));
        }
        write(
            options.json.as_deref(),
            &json!({
                "rounds": self.figures, "acknowledged": acknowledged, "broken": self.broken,
                "looks": sight.as_ref().map(|sight| sight.looks), "kept_out": sight.map(|sight| sight.kept_out),
            }),
        )?;
        fail(self.broken)
    }
}
