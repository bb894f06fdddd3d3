//! pg_rewind: bringing a diverged data directory onto the leader's history.
//!
//! What this node alone holds, its WAL from the fork on, is copied to `<data_dir>.diverged-<time>` before anything is touched. It is
//! copied and not linked: pg_rewind truncates and rewrites WAL files in place, and PostgreSQL recycles them, so a second name for the
//! same file would change with it.

use std::fs;
use std::path::{Path, PathBuf};

use surus_core::action::Upstream;
use surus_core::input::Outcome;
use surus_core::types::{Lsn, Timeline};
use surus_core::view::HistoryLine;

use super::conf::{Role, recovery};
use super::connect::{address, conninfo};
use super::directory::{Found, Marker};
use super::error::report;
use super::probe::parse_history;
use super::{Error, Postgres, Progress, blocking, directory, exec, files, text};

/// All kept diverged WAL together. Beyond it the oldest goes.
const KEPT_BYTES: u64 = 1 << 30;

impl Postgres {
    /// Rewinds the stopped data directory onto the leader's history. Afterwards it can be started as a replica.
    pub async fn rewind(&self, leader: &Upstream) -> Outcome {
        let result = self.rewind_onto(leader).await;
        self.progress.set(None);
        report("rewind", result, |()| Outcome::Ok)
    }

    async fn rewind_onto(&self, leader: &Upstream) -> Result<(), Error> {
        let settings = self.settings();
        let data_dir = settings.data_dir.clone();
        let major = self.catalogue().await?.major;
        let look = {
            let data_dir = data_dir.clone();
            move || {
                (
                    directory::postmaster(&data_dir),
                    directory::inspect(&data_dir, Some(major)),
                )
            }
        };
        let (running, found) = blocking(look).await;
        if let Some(file) = running {
            return Err(Error::Condition(format!(
                "the server (process {}) runs; it must be stopped before pg_rewind",
                file.pid
            )));
        }
        match found {
            Found::Cluster => {}
            Found::Empty => return Err(Error::Condition(format!("{} is empty", data_dir.display()))),
            Found::Incomplete(text) | Found::Unusable(text) => return Err(Error::Condition(text)),
        }
        let control = self.control_file().await?;
        if !control.data.rewindable {
            return Err(Error::Condition(
                "pg_rewind needs data checksums or wal_log_hints = on, and this data directory was written with neither".to_owned(),
            ));
        }
        let (leader_timeline, leader_history) = self.leader_history(leader).await?;
        {
            let data_dir = data_dir.clone();
            blocking(move || directory::remove_stale_pid_file(&data_dir)).await?;
        }
        let kept = Keeping {
            data_dir: data_dir.clone(),
            own: control.data.timeline,
            leader: leader_timeline,
            leader_history,
            segment: control.segment,
            time: self.timestamp(),
        };
        blocking(move || kept.keep()).await?;
        // pg_rewind starts the server itself if it was not stopped cleanly, and reads restore_command: both need our configuration.
        let upstream = leader.clone();
        let for_recovery = std::sync::Arc::clone(&settings);
        let recovery = blocking(move || recovery(&for_recovery, Some(&upstream))).await?;
        self.configure(&Role::Replica(recovery), &control.minimums, None)
            .await?;
        // Its crash recovery is a single-user server, which refuses to be a standby. The next start writes the file anew.
        let signal = data_dir.join("standby.signal");
        blocking(move || match std::fs::remove_file(&signal) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::File {
                what: "remove",
                path: signal,
                source,
            }),
            _ => Ok(()),
        })
        .await?;
        let place = address(leader)?;
        let role = settings.rewind.as_ref().unwrap_or(&settings.superuser);
        let mut further = vec![
            ("application_name", "Surus rewind"),
            ("dbname", settings.database.as_str()),
            ("target_session_attrs", "read-write"),
        ];
        further.extend(super::basebackup::PATIENCE);
        let dsn = conninfo(&settings, role, &place, &further);
        self.refuse_sockets(leader, &dsn).await?;
        self.run_pg_rewind(&data_dir, &dsn, major).await?;
        // Its memory of positions is of the history that was left.
        let mut memory = self.memory();
        memory.received = None;
        memory.history = None;
        memory.control = None;
        drop(memory);
        tracing::info!(leader = %leader.name, timeline = %leader_timeline, "rewound");
        Ok(())
    }

    /// pg_rewind fails half-way at a source whose Unix socket lies in its data directory, so it is not begun then.
    async fn refuse_sockets(&self, leader: &Upstream, dsn: &str) -> Result<(), Error> {
        let found = exec::Tool::new(&self.binary("psql"))
            .args(["--no-psqlrc", "--no-password", "--no-align", "--tuples-only", "--quiet", "--command"])
            .arg("SELECT f FROM pg_catalog.pg_ls_dir('.', true, false) f WHERE f LIKE '.s.PGSQL.%' AND f NOT LIKE '%.lock'")
            .arg(dsn)
            .limit(std::time::Duration::from_secs(10))
            .run()
            .await?;
        if found.stdout.trim().is_empty() {
            return Ok(());
        }
        Err(Error::Condition(format!(
            "pg_rewind cannot copy from {}, whose Unix socket lies in its data directory; set unix_socket_directories to another \
             directory there, or clone this node anew",
            leader.name
        )))
    }

    async fn run_pg_rewind(&self, data_dir: &Path, dsn: &str, major: u32) -> Result<(), Error> {
        let settings = self.settings();
        let mut tool = exec::Tool::new(&self.binary("pg_rewind"))
            .arg("-D")
            .arg(data_dir)
            .args(["--source-server", dsn, "--progress"])
            .env("PGPASSFILE", &settings.pgpass);
        if settings.recovery_conf.contains_key("restore_command") {
            tool = tool.arg("--restore-target-wal");
        }
        let outside = settings.config_dir != settings.data_dir;
        // Before 15 pg_rewind looks for postgresql.conf in the data directory only.
        let lent = if outside && major < 15 {
            Some(data_dir.join("postgresql.conf")).filter(|path| !path.exists())
        } else {
            None
        };
        if outside && 15 <= major {
            let mut option = std::ffi::OsString::from("--config-file=");
            option.push(settings.config_dir.join("postgresql.conf"));
            tool = tool.arg(option);
        }
        if let Some(lent) = lent.clone() {
            let include = text(&settings.config_dir.join("postgresql.conf")).replace('\'', "''");
            blocking(move || files::write(&lent, format!("include '{include}'\n").as_bytes(), 0o600)).await?;
        }
        let mut marker = Marker {
            operation: "rewind".to_owned(),
            pid: None,
            since: self.timestamp(),
            only_ours: false,
        };
        {
            let (marker, data_dir) = (marker.clone(), data_dir.to_owned());
            blocking(move || marker.write(&data_dir)).await?;
        }
        let mut touched = false;
        let result = tool
            .started(|pid| {
                marker.pid = Some(pid);
                // Only who does it is missing from the marker then; that it is being done stands in it already.
                if let Err(error) = marker.write(data_dir) {
                    tracing::warn!(error = %error.chain(), "marker not completed");
                }
            })
            .lines(|line| {
                if line.contains("need to copy") {
                    touched = true;
                }
                if let Some((done, total)) = progress(line) {
                    self.progress.set(Some(Progress {
                        operation: "rewind",
                        done_bytes: done * 1024,
                        total_bytes: total * 1024,
                    }));
                } else {
                    tracing::info!("{}", line.trim());
                }
            })
            .run()
            .await;
        let done = result.is_ok();
        let data_dir = data_dir.to_owned();
        blocking(move || {
            if let Some(lent) = lent {
                files::remove(&lent)?;
            }
            // Until it begins to copy it has changed nothing, and a failure leaves a directory that is as good as before.
            if done || !touched {
                Marker::remove(&data_dir)
            } else {
                Ok(())
            }
        })
        .await?;
        result.map(|_| ())
    }
}

/// `kB copied/kB in all` of a line such as `123/456 kB (26%) copied`.
pub(super) fn progress(line: &str) -> Option<(u64, u64)> {
    let (numbers, _) = line.trim_start().split_once(" kB")?;
    let (done, total) = numbers.trim().split_once('/')?;
    Some((done.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// Where the own history left the leader's: the timeline of the last common point, and the point.
fn fork(
    own: Timeline,
    own_history: &[HistoryLine],
    leader: Timeline,
    leader_history: &[HistoryLine],
) -> (Timeline, Lsn) {
    let end = |history: &[HistoryLine], now: Timeline, timeline: Timeline| {
        if timeline == now {
            return Some(Lsn(u64::MAX));
        }
        history
            .iter()
            .find(|line| line.timeline == timeline)
            .map(|line| line.switch)
    };
    let mut common = (Timeline(1), Lsn(0));
    let mut path: Vec<Timeline> = own_history.iter().map(|line| line.timeline).collect();
    path.push(own);
    for timeline in path {
        let (Some(ours), Some(theirs)) = (
            end(own_history, own, timeline),
            end(leader_history, leader, timeline),
        ) else {
            break;
        };
        common = (timeline, ours.min(theirs));
        if ours != theirs {
            break;
        }
    }
    common
}

/// What is needed to keep diverged WAL.
struct Keeping {
    data_dir: PathBuf,
    own: Timeline,
    leader: Timeline,
    leader_history: Vec<HistoryLine>,
    segment: u64,
    time: String,
}

impl Keeping {
    /// Copies the WAL files from the fork on, newest first until the bound, and lets older collections go for it.
    fn keep(&self) -> Result<(), Error> {
        let wal = self.data_dir.join("pg_wal");
        let own_history = fs::read_to_string(wal.join(format!("{:08X}.history", self.own.0)))
            .map(|content| parse_history(&content))
            .unwrap_or_default();
        let (timeline, point) = fork(self.own, &own_history, self.leader, &self.leader_history);
        let segments = (1_u64 << 32) / self.segment.max(1);
        let mut wanted: Vec<(u64, PathBuf, u64)> = fs::read_dir(&wal)
            .map_err(Error::file("read", &wal))?
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (on, number) = segment_of(&name, segments)?;
                let ends = (number + 1).saturating_mul(self.segment);
                let diverged = timeline.0 <= on && on <= self.own.0 && point.0 < ends;
                let size = entry.metadata().ok()?.len();
                diverged.then(|| (number, entry.path(), size))
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort();
        let mut total: u64 = wanted.iter().map(|(_, _, size)| size).sum();
        while KEPT_BYTES < total && 1 < wanted.len() {
            let (_, path, size) = wanted.remove(0);
            total -= size;
            tracing::warn!(file = %path.display(), "diverged WAL is more than is kept: left out its oldest file");
        }
        make_room(&self.data_dir, total);
        let target = directory::unused(&self.data_dir, &format!(".diverged-{}", self.time));
        directory::create(&target)?;
        for (_, path, _) in &wanted {
            let name = path.file_name().unwrap_or_default();
            fs::copy(path, target.join(name))
                .and_then(|_| fs::File::open(target.join(name))?.sync_all())
                .map_err(Error::file("keep a copy of", path))?;
        }
        for line in fs::read_dir(&wal).into_iter().flatten().flatten() {
            let name = line.file_name();
            if name.to_string_lossy().ends_with(".history") {
                fs::copy(line.path(), target.join(&name))
                    .map_err(Error::file("keep a copy of", &line.path()))?;
            }
        }
        files::sync_parent(&target.join("x"))?;
        files::sync_parent(&target)?;
        tracing::warn!(
            kept = %target.display(),
            files = wanted.len(),
            bytes = total,
            fork = %point,
            timeline = %timeline,
            "kept the WAL that only this node has; read it with pg_waldump"
        );
        Ok(())
    }
}

/// Timeline and number of a WAL file, partial ones included.
fn segment_of(name: &str, segments: u64) -> Option<(u32, u64)> {
    let name = name.strip_suffix(".partial").unwrap_or(name);
    if name.len() != 24 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| u32::from_str_radix(name.get(range)?, 16).ok();
    let number = u64::from(part(8..16)?) * segments + u64::from(part(16..24)?);
    Some((part(0..8)?, number))
}

/// Lets the oldest collections go until `needed` more bytes fit.
fn make_room(data_dir: &Path, needed: u64) {
    let prefix = format!(
        "{}.diverged-",
        data_dir.file_name().unwrap_or_default().to_string_lossy()
    );
    let size = |dir: &Path| -> u64 {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some(entry.metadata().ok()?.len()))
            .sum()
    };
    let mut kept: Vec<(String, PathBuf, u64)> = fs::read_dir(files::parent(data_dir))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let path = entry.path();
            name.starts_with(&prefix).then(|| {
                let bytes = size(&path);
                (name, path, bytes)
            })
        })
        .collect();
    kept.sort();
    let mut total = needed + kept.iter().map(|(_, _, bytes)| bytes).sum::<u64>();
    for (_, path, bytes) in kept {
        if total <= KEPT_BYTES {
            break;
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::warn!(removed = %path.display(), "let the oldest kept WAL go to make room"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot let old kept WAL go"),
        }
        total = total.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(timeline: u32, switch: u64) -> HistoryLine {
        HistoryLine {
            timeline: Timeline(timeline),
            switch: Lsn(switch),
            reason: String::new(),
            at: None,
            leader: None,
        }
    }

    #[test]
    fn the_fork_is_the_last_common_point() {
        let t = Timeline;
        assert_eq!(fork(t(1), &[], t(2), &[line(1, 50)]), (t(1), Lsn(50)));
        assert_eq!(
            fork(
                t(3),
                &[line(1, 50), line(2, 80)],
                t(4),
                &[line(1, 50), line(2, 70)]
            ),
            (t(2), Lsn(70))
        );
        assert_eq!(fork(t(2), &[line(1, 50)], t(3), &[line(1, 40)]), (t(1), Lsn(40)));
        assert_eq!(
            fork(t(2), &[line(1, 50)], t(2), &[line(1, 50)]),
            (t(2), Lsn(u64::MAX))
        );
    }

    #[test]
    fn wal_names_and_progress_are_read() {
        assert_eq!(segment_of("000000010000000200000003", 256), Some((1, 515)));
        assert_eq!(segment_of("00000002.history", 256), None);
        assert_eq!(progress("  123/  456 kB (26%) copied"), Some((123, 456)));
        assert_eq!(
            progress("22874/22874 kB (100%), 1/1 tablespace"),
            Some((22874, 22874))
        );
        assert_eq!(progress("pg_rewind: Done!"), None);
    }

    #[test]
    fn diverged_wal_is_copied_and_the_rest_is_not() {
        let root = tempfile::tempdir().unwrap();
        let data_dir = root.path().join("data");
        fs::create_dir_all(data_dir.join("pg_wal")).unwrap();
        for number in 1..=5 {
            fs::write(
                data_dir.join(format!("pg_wal/0000000100000000{number:08X}")),
                "wal",
            )
            .unwrap();
        }
        let keeping = Keeping {
            data_dir: data_dir.clone(),
            own: Timeline(1),
            leader: Timeline(2),
            leader_history: vec![line(1, 3 * (16 << 20) + 5)],
            segment: 16 << 20,
            time: "T".to_owned(),
        };
        keeping.keep().unwrap();
        let kept = root.path().join("data.diverged-T");
        let mut names: Vec<String> = fs::read_dir(&kept)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "000000010000000000000003",
                "000000010000000000000004",
                "000000010000000000000005"
            ]
        );
    }
}
