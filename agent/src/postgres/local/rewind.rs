//! pg_rewind, and the WAL that is kept before it.

use std::fs;
use std::path::{Path, PathBuf};

use surus_core::types::{Lsn, Timeline};
use surus_core::view::HistoryLine;

use super::super::probe::parse_history;
use super::super::site::{Divergence, OnProgress, Progress};
use super::directory::{self, Marker};
use super::{Error, Local, blocking, exec, files, signals, text};

/// All kept diverged WAL together. Beyond it the oldest goes.
const KEPT_BYTES: u64 = 1 << 30;

impl Local {
    /// Runs pg_rewind, under a marker from the moment on that it may change something.
    pub(super) async fn run_pg_rewind(&self, dsn: &str, told: OnProgress<'_>) -> Result<(), Error> {
        let settings = self.settings();
        let data_dir = settings.data_dir.as_path();
        let major = self.catalogue().await?.major;
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
                    told(Progress {
                        operation: "rewind",
                        done_bytes: done * 1024,
                        total_bytes: total * 1024,
                    });
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
        self.forget_control();
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

/// Copies the WAL files from the fork on, newest first until the bound, and lets older collections go for it.
///
/// It is copied and not linked: pg_rewind truncates and rewrites WAL files in place, and PostgreSQL recycles them, so a second name for the
/// same file would change with it.
pub(super) fn keep(data_dir: &Path, divergence: &Divergence, time: &str) -> Result<(), Error> {
    let wal = data_dir.join("pg_wal");
    let own_history = fs::read_to_string(signals::history_file(data_dir, divergence.own.0))
        .map(|content| parse_history(&content))
        .unwrap_or_default();
    let (timeline, point) = fork(
        divergence.own,
        &own_history,
        divergence.leader,
        &divergence.leader_history,
    );
    let segments = (1_u64 << 32) / divergence.segment.max(1);
    let mut wanted: Vec<(u64, PathBuf, u64)> = fs::read_dir(&wal)
        .map_err(Error::file("read", &wal))?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (on, number) = segment_of(&name, segments)?;
            let ends = (number + 1).saturating_mul(divergence.segment);
            let diverged = timeline.0 <= on && on <= divergence.own.0 && point.0 < ends;
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
    make_room(data_dir, total);
    let target = directory::unused(data_dir, &format!(".diverged-{time}"));
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
            fs::copy(line.path(), target.join(&name)).map_err(Error::file("keep a copy of", &line.path()))?;
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

/// Timeline and number of a WAL file, partial ones included.
pub(super) fn segment_of(name: &str, segments: u64) -> Option<(u32, u64)> {
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
        let divergence = Divergence {
            own: Timeline(1),
            leader: Timeline(2),
            leader_history: vec![line(1, 3 * (16 << 20) + 5)],
            segment: 16 << 20,
        };
        keep(&data_dir, &divergence, "T").unwrap();
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
