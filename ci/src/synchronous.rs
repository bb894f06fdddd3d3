//! `surus-ci synchronous`: what clients see of synchronous replication on a real cluster, in each of its modes.
//!
//! A client writes all the while; no write that was acknowledged to it may be gone, whoever dies. The suite kills standbys and primaries
//! whole, freezes a standby, and looks at the `sync` key through `/cluster` and `/sync`, and at the setting in the primary itself.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{self, Habit, Plan, Route, Writer};
use crate::cluster::{self, Cluster};
use crate::demo::{fail, write};
use crate::error::{Error, Result};
use crate::history;
use crate::http;
use crate::proc;
use crate::report::{Report, span};
use crate::standing::{self, Seen};

/// The user's own setting: it waits for either replica, whoever is primary.
const OWN: &str = "1 (surus1,surus2,surus3)";

/// How long a commit may still be on its way when standbys have just been killed.
const UNDER_WAY: Duration = Duration::from_millis(1200);

/// For so long etcd's writes are counted while nothing happens, and what a round that begins a little earlier may add to that for each member
/// and the leader.
const AT_REST: (Duration, u64) = (Duration::from_secs(12), 4);

/// The default `loop_wait` of our own agent.
const ROUND: Duration = Duration::from_secs(1);

/// What `synchronous` does.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plays {
    /// The modes
    #[arg(long, value_delimiter = ',', default_value = "on,quorum")]
    modes: Vec<String>,
    /// Write all figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// What came of the steps so far.
struct Course<'a> {
    cluster: &'a mut Cluster,
    mode: String,
    writer: Writer,
    /// How often etcd is written to at rest without the mode.
    writes: u64,
    rows: Vec<Vec<String>>,
    figures: Vec<Value>,
    broken: Vec<String>,
}

/// Runs the suite.
///
/// # Errors
/// When an acknowledged write is gone, two primaries wrote, or something took longer than promised.
pub(crate) async fn synchronous(options: &Plays, report: Report) -> Result<()> {
    report.title("synchronous replication: who stands in for whom, and what a client sees of it");
    cluster::with(&options.cluster, report, false, async |cluster| {
        let all: Vec<_> = cluster.nodes.iter().map(|node| node.postgres).collect();
        let writer = Writer::start(Plan {
            name: "client".to_owned(),
            route: Route::Primary(all),
            habit: Habit::Keep,
            pace: Duration::from_millis(10),
            retry: client::PAUSE,
            first: 10_000_000,
            ports: None,
            psql: None,
        });
        let mut course = Course {
            cluster,
            mode: String::new(),
            writer,
            writes: 0,
            rows: Vec::new(),
            figures: Vec::new(),
            broken: Vec::new(),
        };
        let parameters = json!({"postgresql": {"parameters": {"synchronous_standby_names": OWN}}});
        course.patch(&parameters).await?;
        course
            .until("the user's own setting", 20, |seen| seen.names == OWN)
            .await?;
        course.writes = course.writes().await?;
        for mode in &options.modes {
            course.mode.clone_from(mode);
            course.run().await?;
        }
        course.end(options).await
    })
    .await
}

/// Kills it at once.
fn kill(what: &str, pid: Option<i32>) -> Result<()> {
    let pid = pid.ok_or_else(|| Error::Unmet(format!("{what}: it does not run")))?;
    proc::signal(pid, Signal::KILL);
    Ok(())
}

impl Course<'_> {
    /// All steps of one mode.
    async fn run(&mut self) -> Result<()> {
        let report = self.cluster.report;
        let (mode, full) = (self.mode.clone(), self.full());
        report.title(format!("synchronous_mode: {mode}"));
        self.settle().await?;
        let began = Instant::now();
        self.patch(&json!({"synchronous_mode": mode, "synchronous_mode_strict": false}))
            .await?;
        let seen = self
            .until("standbys in the sync key", 15, |seen| seen.named.len() == full)
            .await?;
        self.note("the sync key is filled", began, 6.0, true).await;
        self.doors(&seen).await;
        self.at_rest().await?;
        if mode == "on" {
            self.count().await?;
        }

        // The standby that commits wait for dies, comes back, and is frozen.
        let (victim, began) = self.kill_named().await?;
        self.until("another in its place", 15, |seen| {
            seen.named.len() == 1 && !seen.named.contains(&victim)
        })
        .await?;
        self.note("a synchronous standby is killed", began, 3.0, true)
            .await;
        self.revive(&[victim]).await?;
        let victim = self.named().await?;
        let pids: Vec<i32> = proc::of(&self.cluster.nodes[usize::from(victim)].dir)
            .iter()
            .map(|process| process.pid)
            .collect();
        let began = Instant::now();
        pids.iter().for_each(|pid| proc::signal(*pid, Signal::STOP));
        let frozen = self
            .until("another in its place", 30, |seen| {
                !seen.named.is_empty() && !seen.named.contains(&victim)
            })
            .await;
        let ttl = self.cluster.patience().as_secs_f64();
        self.note("a synchronous standby is frozen", began, ttl + 3.0, true)
            .await;
        pids.iter().for_each(|pid| proc::signal(*pid, Signal::CONT));
        frozen?;
        self.revive(&[]).await?;

        // It is restarted: it says so first, and the leader lets it go.
        let victim = self.named().await?;
        let began = Instant::now();
        self.cluster.restart(victim).await?;
        self.note("a synchronous standby is restarted by order", began, 1.0, false)
            .await;
        self.revive(&[]).await?;

        // What a client need not notice: nobody else is to be elected.
        let old = self.primary().await?;
        let what = "the primary's agent is killed";
        let node = &mut self.cluster.nodes[usize::from(old)];
        let began = Instant::now();
        kill(what, node.agent())?;
        sleep(Duration::from_secs(1)).await;
        self.cluster.nodes[usize::from(old)].start()?;
        sleep(Duration::from_secs(2)).await;
        self.note(what, began, 1.0, false).await;
        self.revive(&[]).await?;
        let other = if mode == "quorum" { "on" } else { "quorum" };
        let began = Instant::now();
        for mode in [other, mode.as_str()] {
            self.patch(&json!({ "synchronous_mode": mode })).await?;
            self.mode = mode.to_owned();
            let (full, any) = (self.full(), mode == "quorum");
            self.until("the other mode", 15, |seen| {
                seen.named.len() == full && seen.names.starts_with("ANY") == any
            })
            .await?;
        }
        self.note("the other mode and back", began, 6.0, false).await;
        if self.primary().await? != old {
            self.broken
                .push(format!("{mode}: the primary moved without need"));
        }

        // The primary dies, first its PostgreSQL and then all of it.
        let postmaster = "the primary's postmaster is killed";
        for (what, limit) in [(postmaster, 3.0), ("the primary's host dies", ttl + 2.0)] {
            let seen = self.look().await?;
            let old = seen
                .primary
                .ok_or_else(|| Error::Unmet("nobody leads".to_owned()))?;
            let node = &mut self.cluster.nodes[usize::from(old)];
            let began = Instant::now();
            if what == postmaster {
                kill(what, node.postmaster())?;
            } else {
                node.kill_all()?;
            }
            // Whose postmaster alone died may be elected anew, as a replica by then: where the others have just granted it to stay, for one.
            let timeline = self.timeline();
            let now = self
                .until("a new primary", 30, |now| {
                    let anew = what == postmaster && timeline < self.timeline();
                    now.primary.is_some_and(|new| new != old || anew)
                })
                .await?;
            self.flowing(30).await?;
            self.note(what, began, limit, false).await;
            let fit = |new: u8| seen.named.contains(&new) || new == old && what == postmaster;
            if !now.primary.is_some_and(fit) {
                self.broken.push(format!(
                    "{mode}: {:?} leads after {old}, and {:?} were synchronous",
                    now.primary, seen.named
                ));
            }
            let dead = (what != postmaster).then_some(old);
            self.revive(dead.as_slice()).await?;
        }
        let began = Instant::now();
        self.cluster.switchover().await?;
        self.flowing(30).await?;
        self.note("switchover", began, 2.0, false).await;
        self.revive(&[]).await?;

        self.both(false).await?;
        self.patch(&json!({"synchronous_mode_strict": true})).await?;
        self.both(true).await?;

        let began = Instant::now();
        self.patch(&json!({"synchronous_mode": "off", "synchronous_mode_strict": false}))
            .await?;
        self.until("the user's own setting", 15, |seen| {
            seen.named.is_empty() && seen.names == OWN
        })
        .await?;
        self.note("the mode is turned off", began, 3.0, true).await;
        Ok(())
    }

    /// Both standbys die: commits go on after a while or, in strict mode, wait for one to come back.
    async fn both(&mut self, strict: bool) -> Result<()> {
        self.settle().await?;
        let primary = self.primary().await?;
        let standbys: Vec<u8> = (0..3).filter(|index| *index != primary).collect();
        let began = Instant::now();
        for index in &standbys {
            self.cluster.nodes[usize::from(*index)].kill_all()?;
        }
        let ttl = self.cluster.patience().as_secs_f64();
        if strict {
            sleep(Duration::from_secs_f64(2.0 * ttl)).await;
            let late = self
                .writer
                .last()
                .map(|ack| ack.acked.saturating_duration_since(began));
            if late.is_some_and(|late| UNDER_WAY < late) {
                self.broken.push(format!(
                    "{}: in strict mode a commit was acknowledged without a standby, {} after both died",
                    self.mode,
                    span(late.unwrap_or_default())
                ));
            }
            let began = Instant::now();
            self.cluster.nodes[usize::from(standbys[0])].start()?;
            self.flowing(60).await?;
            self.note("strict: one of two dead standbys comes back", began, 15.0, false)
                .await;
        } else {
            self.flowing(30).await?;
            self.until("an empty sync key", 15, |seen| seen.named.is_empty())
                .await?;
            self.note("both standbys die", began, ttl + 2.0, true).await;
        }
        let dead: Vec<u8> = standbys
            .into_iter()
            .filter(|index| self.cluster.nodes[usize::from(*index)].agent().is_none())
            .collect();
        self.revive(&dead).await
    }

    /// The mode adds nothing to what etcd is written to while nothing happens.
    async fn at_rest(&mut self) -> Result<()> {
        let (writes, before) = (self.writes().await?, self.writes);
        let text = format!(
            "{}: {writes} writes of etcd in {} at rest, {before} without the mode",
            self.mode,
            span(AT_REST.0)
        );
        self.cluster.report.say(&text);
        if before + AT_REST.1 < writes {
            self.broken.push(text);
        }
        self.figures.push(json!({
            "mode": self.mode, "what": "writes of etcd at rest", "seconds": AT_REST.0.as_secs_f64(),
            "writes": writes, "without_the_mode": before,
        }));
        Ok(())
    }

    async fn writes(&self) -> Result<u64> {
        let before = self.cluster.etcd.revision().await?;
        sleep(AT_REST.0).await;
        Ok(self.cluster.etcd.revision().await? - before)
    }

    /// One standby more by order, and one less: each within two rounds.
    async fn count(&mut self) -> Result<()> {
        for count in [2, 1] {
            let began = Instant::now();
            self.patch(&json!({ "synchronous_node_count": count })).await?;
            self.until("the standbys that were asked for", 15, |seen| {
                // One alone is named without a number.
                seen.named.len() == count && seen.names.starts_with("2 ") == (count == 2)
            })
            .await?;
            let what = format!("synchronous_node_count: {count}");
            self.note(&what, began, 2.0 * ROUND.as_secs_f64(), true).await;
        }
        Ok(())
    }

    /// How many standbys the mode has in the `sync` key.
    fn full(&self) -> usize {
        if self.mode == "quorum" { 2 } else { 1 }
    }

    /// Starts dead hosts again and waits until everything is as before.
    async fn revive(&mut self, dead: &[u8]) -> Result<()> {
        for index in dead {
            self.cluster.nodes[usize::from(*index)].start()?;
        }
        self.settle().await?;
        let full = self.full();
        self.until("all standbys that there should be in the sync key", 30, |seen| {
            seen.named.len() == full
        })
        .await?;
        self.flowing(10).await
    }

    /// The timeline of the last acknowledged write.
    fn timeline(&self) -> u32 {
        self.writer.last().map_or(0, |ack| ack.timeline)
    }

    async fn settle(&mut self) -> Result<()> {
        self.cluster.wait_healthy(Duration::from_secs(90)).await.map(drop)
    }

    async fn kill_named(&mut self) -> Result<(u8, Instant)> {
        let victim = self.named().await?;
        let began = Instant::now();
        self.cluster.nodes[usize::from(victim)].kill_all()?;
        Ok((victim, began))
    }

    async fn named(&self) -> Result<u8> {
        let seen = self.look().await?;
        let first = seen.named.first().copied();
        first.ok_or_else(|| Error::Unmet("no member is synchronous".to_owned()))
    }

    async fn primary(&self) -> Result<u8> {
        let seen = self.look().await?;
        seen.primary
            .ok_or_else(|| Error::Unmet("nobody leads".to_owned()))
    }

    async fn patch(&self, change: &Value) -> Result<()> {
        self.cluster.order("PATCH", "/config", change).await
    }

    async fn look(&self) -> Result<Seen> {
        self.cluster.seen().await.map_err(Error::Unmet)
    }

    async fn until(&self, what: &str, seconds: u64, satisfied: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let what = format!("{what} ({})", self.mode);
        self.cluster
            .until_seen(&what, Duration::from_secs(seconds), satisfied)
            .await
    }

    async fn flowing(&self, seconds: u64) -> Result<()> {
        let what = format!("an acknowledged write ({})", self.mode);
        standing::flowing(&self.writer, &what, Duration::from_secs(seconds)).await
    }

    /// Writes down what came since `began`: how long until now if `state`, and the longest silence of the client, which may have lasted
    /// for `most` seconds.
    async fn note(&mut self, what: &str, began: Instant, most: f64, state: bool) {
        let took = began.elapsed();
        sleep(Duration::from_millis(300)).await;
        let silence = self
            .writer
            .look(|log| log.outage(began, Instant::now()))
            .map_or(Duration::MAX, |outage| outage.length);
        let took = state.then_some(took);
        let worst = silence.max(took.unwrap_or_default());
        let good = worst.as_secs_f64() <= most;
        let report = self.cluster.report;
        let took_text = took.map_or_else(|| "–".to_owned(), span);
        report.say(format!(
            "{}: {what}: {took_text}; the client waited {}",
            self.mode,
            span(silence)
        ));
        if !good {
            self.broken.push(format!(
                "{}: {what}: took {took_text}, the client waited {}, and {most:.1} s are the limit",
                self.mode,
                span(silence)
            ));
        }
        self.rows.push(vec![
            self.mode.clone(),
            what.to_owned(),
            took_text,
            span(silence),
            format!("{most:.1} s"),
            report.verdict(good),
        ]);
        self.figures.push(json!({
            "mode": self.mode, "what": what, "took_s": took.map(|took| took.as_secs_f64()),
            "longest_silence_s": silence.as_secs_f64(), "limit_s": most,
        }));
    }

    /// What each member's REST API says of itself.
    async fn doors(&mut self, seen: &Seen) {
        let (own, other) = if self.mode == "quorum" {
            ("/quorum", "/sync")
        } else {
            ("/sync", "/quorum")
        };
        let listed = self.list().await;
        let word = if self.mode == "quorum" {
            "Quorum Standby"
        } else {
            "Sync Standby"
        };
        if listed
            .as_ref()
            .is_none_or(|listed| listed.matches(word).count() != seen.named.len())
        {
            self.broken
                .push(format!("{}: `surus list` says {listed:?}", self.mode));
        }
        for index in 0..3 {
            let (rest, name) = {
                let node = &self.cluster.nodes[usize::from(index)];
                (node.rest, node.name.clone())
            };
            let (named, leads) = (seen.named.contains(&index), seen.primary == Some(index));
            let read_only = format!("/read-only-{}", &own[1..]);
            for (path, good) in [
                (own, named),
                (other, false),
                ("/async", !named && !leads),
                (read_only.as_str(), named || leads),
            ] {
                let answer = http::get(rest, path, Duration::from_secs(2)).await;
                let status = answer.map_or(0, |answer| answer.status);
                if status != if good { 200 } else { 503 } {
                    self.broken
                        .push(format!("{}: {name} answers {path} with {status}", self.mode));
                }
            }
            let answer = http::get(rest, "/patroni", Duration::from_secs(2)).await;
            let body = answer.map_or(Value::Null, |answer| {
                serde_json::from_str(&answer.body).unwrap_or_default()
            });
            let word = format!("{}_standby", &own[1..]);
            if body.get(&word).is_some() != named {
                self.broken
                    .push(format!("{}: {word} of {name} is wrong in {body}", self.mode));
            }
        }
    }

    /// What the operator's command lists.
    async fn list(&self) -> Option<String> {
        let node = &self.cluster.nodes[0];
        let ctl = self.cluster.ctl.as_ref()?.display().to_string();
        let words = [
            ctl,
            "list".to_owned(),
            "-c".to_owned(),
            node.config().display().to_string(),
        ];
        let limit = Duration::from_secs(10);
        proc::run(&self.cluster.account, &words, &node.dir, limit)
            .await
            .ok()
    }

    /// Counts what was acknowledged and is gone.
    async fn end(mut self, options: &Plays) -> Result<()> {
        self.settle().await?;
        let primary = self.primary().await?;
        let logs = [self.writer.stop().await];
        let present = self.cluster.rows(primary).await?;
        let lost = history::missing(&logs, &present).len();
        let overlap = history::overlap(&logs);
        let report = self.cluster.report;
        report.line("");
        report.table(&["mode", "what", "took", "silence", "limit", ""], &self.rows);
        report.say(format!(
            "{} writes acknowledged, {lost} of them gone",
            logs[0].acks.len()
        ));
        if lost > 0 {
            self.broken.push(format!("{lost} acknowledged writes are gone"));
        }
        if !overlap.length.is_zero() {
            self.broken.push(format!("two primaries: {}", overlap.who));
        }
        write(
            options.json.as_deref(),
            &json!({"steps": self.figures, "acknowledged": logs[0].acks.len(), "lost": lost, "broken": self.broken}),
        )?;
        fail(self.broken)
    }
}
