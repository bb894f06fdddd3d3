//! Leaving recovery.
//!
//! PostgreSQL calls its new timeline the first number, counted from its own, that has no history file. A node that has missed a
//! promotion would therefore take a number that exists elsewhere with another history. An empty history file under each such number
//! makes it go on counting (tried on PostgreSQL 15: two empty files, timeline 4 after 1). Replicas fetch them with the real one. They
//! must not be the newest of a directory when a standby starts there, for it would take the last for its target and refuse to
//! start: [`sweep_placeholders`] sees to that.
//!
//! A standby that has lost its upstream less than `wal_retrieve_retry_interval` ago (5 s), which is the very moment of a failover, may
//! notice the request just before it goes to sleep for the rest of that time, and then promotes only when it wakes (seen on 15.18:
//! 5.05 s). So the startup process is woken until it is done.

use std::fs;
use std::path::Path;
use std::time::Duration;

use surus_core::input::Outcome;
use surus_core::types::{Generation, MonoTime, Timeline};

use tokio_postgres::Client;

use super::connect::Link;
use super::error::report;
use super::{Error, Postgres, blocking, directory, files};

/// How often a promotion is looked at: it takes about 30 ms on an idle standby, and each question half a millisecond.
const TICK: Duration = Duration::from_millis(3);

/// How often the startup process is woken while it has not promoted: it reads its configuration each time, in about a millisecond.
const WAKE: Duration = Duration::from_millis(15);

/// How long one question to a server that is being promoted may take before another connection is tried.
const QUERY_LIMIT: Duration = Duration::from_millis(500);

/// More missing timelines than this are no accident but a wrong number.
const PLACEHOLDERS: u32 = 1000;

impl Postgres {
    /// Leaves recovery, the guard armed with `guard_until` first. The new timeline is above `above`. Returns when writes are
    /// accepted; on a server that is primary already it only sets the deadline.
    pub async fn promote(
        &self,
        guard_until: MonoTime,
        valid_until: MonoTime,
        above: Timeline,
        generation: Generation,
    ) -> Outcome {
        let work = self.leave_recovery(guard_until, valid_until, above, generation);
        report("promote", work.await, |changed| {
            if changed {
                self.callback("on_role_change", "primary");
            }
            Outcome::Ok
        })
    }

    /// Returns whether the role changed.
    async fn leave_recovery(
        &self,
        guard_until: MonoTime,
        valid_until: MonoTime,
        above: Timeline,
        generation: Generation,
    ) -> Result<bool, Error> {
        self.still_valid(valid_until, generation)?;
        let settings = self.settings();
        if let Some(hook) = &settings.pre_promote {
            let left = valid_until.since(self.clock.now());
            self.hook("pre_promote", hook, left).await?;
        }
        let mut link = match self.link().await {
            Ok((_, found)) if !found.recovering => {
                self.still_valid(valid_until, generation)?;
                self.control.set_deadline(Some(guard_until), generation).await?;
                return Ok(false);
            }
            Ok((link, _)) => Some(link),
            Err(error) => {
                // Before a standby is consistent it takes no connections, but it can be promoted.
                tracing::warn!(error = %error.chain(), "the standby takes no connections; promoting by signal");
                None
            }
        };
        let data_dir = settings.data_dir.clone();
        blocking(move || place_holders(&data_dir, above)).await?;
        // From here on the server may accept writes at any moment, so the guard comes first.
        self.still_valid(valid_until, generation)?;
        self.control.set_deadline(Some(guard_until), generation).await?;
        if let Err(refused) = self.still_valid(valid_until, generation) {
            self.control.set_deadline(None, generation).await?;
            return Err(refused);
        }
        match &link {
            Some(link) => {
                let asked = link.client().query_one("SELECT pg_promote(wait := false)", &[]);
                let lost = |problem: String| {
                    Error::Unknown(format!("the request for promotion was not answered: {problem}"))
                };
                tokio::time::timeout(QUERY_LIMIT, asked)
                    .await
                    .map_err(|_| lost(format!("nothing came within {QUERY_LIMIT:?}")))?
                    .map_err(|error| lost(super::error::chain(&error)))?;
            }
            None => {
                let data_dir = settings.data_dir.clone();
                blocking(move || promote_by_signal(&data_dir)).await?;
            }
        }
        self.memory().primary = Some(true);
        let limit = Duration::from_secs(settings.pg_ctl_timeout.max(1));
        let deadline = self.clock.now().plus(limit);
        let mut woken = self.clock.now();
        loop {
            let recovering = match link.take() {
                Some(open) => {
                    let recovering = in_recovery(open.client()).await;
                    if recovering.is_ok() {
                        link = Some(open);
                    }
                    recovering.ok()
                }
                None => match self.link().await {
                    Ok((open, recovering)) => {
                        link = Some(open);
                        Some(recovering)
                    }
                    Err(_) => None,
                },
            };
            if let Some(found) = recovering {
                if !found.recovering {
                    break;
                }
                if let Some(startup) = found.startup
                    && woken.plus(WAKE) <= self.clock.now()
                {
                    wake(&settings.data_dir, startup).await;
                    woken = self.clock.now();
                }
            }
            if deadline <= self.clock.now() {
                return Err(Error::Unknown(format!(
                    "promotion was requested and has not ended within {limit:?}"
                )));
            }
            tokio::time::sleep(TICK).await;
        }
        let mut memory = self.memory();
        memory.received = None;
        memory.history = None;
        Ok(true)
    }

    /// A connection that answers, and whether the server is in recovery.
    async fn link(&self) -> Result<(Link, Recovering), Error> {
        if let Some(heartbeat) = self.heartbeat.get()
            && let Ok(recovering) = in_recovery(&heartbeat.session.client).await
        {
            return Ok((Link::Shared(heartbeat), recovering));
        }
        let session = self.connect("Surus promotion", QUERY_LIMIT).await?;
        let recovering = in_recovery(&session.client).await?;
        Ok((Link::Own(session), recovering))
    }
}

/// Whether the server is in recovery, and the process that does the recovery.
#[derive(Debug, Clone, Copy)]
struct Recovering {
    recovering: bool,
    startup: Option<u32>,
}

async fn in_recovery(client: &Client) -> Result<Recovering, Error> {
    let asked = client.query_one(
        "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN \
         (SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup' LIMIT 1) END",
        &[],
    );
    let row = tokio::time::timeout(QUERY_LIMIT, asked)
        .await
        .map_err(|_| Error::Timeout {
            what: "asking whether the server is in recovery".to_owned(),
            limit: QUERY_LIMIT,
        })?
        .map_err(Error::query("tell whether it is in recovery"))?;
    Ok(Recovering {
        recovering: row.get(0),
        startup: row.get::<_, Option<i32>>(1).map(i32::cast_unsigned),
    })
}

/// Wakes the startup process. SIGHUP does so, and does no harm to any process of PostgreSQL that might have its number by now.
async fn wake(data_dir: &Path, startup: u32) {
    let data_dir = data_dir.to_owned();
    blocking(move || {
        if directory::at_work(startup, &data_dir)
            && let Some(pid) = i32::try_from(startup)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended in this moment, which is what is waited for.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::HUP);
        }
    })
    .await;
}

/// What pg_ctl does: a file, and SIGUSR1 to the postmaster.
fn promote_by_signal(data_dir: &Path) -> Result<(), Error> {
    let file = directory::postmaster(data_dir)
        .ok_or_else(|| Error::Condition(format!("no server runs in {}", data_dir.display())))?;
    files::write(&data_dir.join("promote"), b"", 0o600)?;
    let pid = i32::try_from(file.pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::Condition("postmaster.pid holds no process id".to_owned()))?;
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).map_err(|error| {
        Error::Condition(format!(
            "cannot signal PostgreSQL (process {}): {error}",
            file.pid
        ))
    })
}

fn history_file(data_dir: &Path, timeline: u32) -> std::path::PathBuf {
    data_dir.join(format!("pg_wal/{timeline:08X}.history"))
}

/// Puts an empty history file under each number up to `above` that has none, above the timeline of the last checkpoint.
///
/// Counting starts at the checkpoint's timeline, which may be behind the one being replayed: the files of those in between exist,
/// for the standby came through them.
fn place_holders(data_dir: &Path, above: Timeline) -> Result<(), Error> {
    let own = super::control::light(data_dir).map_or(1, |light| light.timeline.0);
    let Some(missing) = above.0.checked_sub(own) else {
        return Ok(());
    };
    if PLACEHOLDERS < missing {
        return Err(Error::Condition(format!(
            "the cluster's history speaks of timeline {above}, and this node is on {own}; if that is right, clone this node anew"
        )));
    }
    let mut placed = Vec::new();
    for timeline in own + 1..=above.0 {
        let path = history_file(data_dir, timeline);
        if !path.exists() {
            files::write(&path, b"", 0o600)?;
            placed.push(timeline);
        }
    }
    if !placed.is_empty() {
        tracing::info!(
            ?placed,
            "reserved the numbers of timelines that this node has not seen"
        );
    }
    Ok(())
}

/// Removes empty history files that have no real one above them: left by a promotion that did not happen.
pub(super) fn sweep_placeholders(data_dir: &Path) -> Result<(), Error> {
    let wal = data_dir.join("pg_wal");
    let Ok(entries) = fs::read_dir(&wal) else {
        return Ok(());
    };
    let own = super::control::light(data_dir).map_or(1, |light| light.timeline.0);
    let mut files_found: Vec<(u32, u64)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = u32::from_str_radix(name.strip_suffix(".history")?, 16).ok()?;
            Some((number, entry.metadata().ok()?.len()))
        })
        .collect();
    files_found.sort_unstable();
    while let Some((timeline, 0)) = files_found.pop() {
        if timeline <= own {
            break;
        }
        files::remove(&history_file(data_dir, timeline))?;
        tracing::info!(
            timeline,
            "removed the empty history file of a promotion that did not happen"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_swept_only_above_the_last_real_history() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pg_wal")).unwrap();
        place_holders(dir.path(), Timeline(3)).unwrap();
        assert!(history_file(dir.path(), 2).exists() && history_file(dir.path(), 3).exists());
        fs::write(history_file(dir.path(), 4), "1\t0/3000000\tx\n").unwrap();
        place_holders(dir.path(), Timeline(5)).unwrap();
        sweep_placeholders(dir.path()).unwrap();
        let left: Vec<bool> = (2..=5)
            .map(|number| history_file(dir.path(), number).exists())
            .collect();
        assert_eq!(left, [true, true, true, false]);
        place_holders(dir.path(), Timeline(1)).unwrap();
        assert!(place_holders(dir.path(), Timeline(5000)).is_err());
    }
}
