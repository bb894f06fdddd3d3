//! Signal files and signals: what makes a server a standby, stops, promotes or wakes it; and the numbers of timelines.

use std::fs;
use std::path::{Path, PathBuf};

use surus_core::types::Timeline;

use super::super::Signal;
use super::directory::{self, at_work};
use super::{Error, control, files};

/// More missing timelines than this are no accident but a wrong number.
const PLACEHOLDERS: u32 = 1000;

/// Signals a server directly; [`Signal::Kill`] goes to every process of it.
pub(super) fn signal(data_dir: &Path, pid: u32, signal: Signal) -> Result<(), Error> {
    use rustix::process::Signal as Unix;
    let unix = match signal {
        Signal::Smart => Unix::TERM,
        Signal::Fast => Unix::INT,
        Signal::Immediate => Unix::QUIT,
        Signal::Reload => Unix::HUP,
        Signal::Kill => Unix::KILL,
    };
    let mut targets = vec![pid];
    if signal == Signal::Kill {
        targets.extend(directory::users(data_dir));
    }
    for target in targets {
        if at_work(target, data_dir)
            && let Some(target) = i32::try_from(target)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            && let Err(error) = rustix::process::kill_process(target, unix)
            && error != rustix::io::Errno::SRCH
        {
            return Err(Error::Condition(format!(
                "cannot signal PostgreSQL (process {pid}): {error}"
            )));
        }
    }
    Ok(())
}

/// Wakes the startup process. SIGHUP does so, and does no harm to any process of PostgreSQL that might have its number by now.
pub(super) fn wake(data_dir: &Path, startup: u32) {
    if at_work(startup, data_dir)
        && let Some(pid) = i32::try_from(startup)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
    {
        // It may have ended in this moment, which is what is waited for.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::HUP);
    }
}

/// What pg_ctl does: a file, and SIGUSR1 to the postmaster.
pub(super) fn promote(data_dir: &Path) -> Result<(), Error> {
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

/// Puts signal files in order and clears away what a dead server left. Returns whether it took a standby.signal away.
pub(super) fn prepare(data_dir: &Path, primary: bool) -> Result<bool, Error> {
    directory::remove_stale_pid_file(data_dir)?;
    let standby = data_dir.join("standby.signal");
    let recovery = data_dir.join("recovery.signal");
    let taken = primary && standby.exists();
    if primary {
        files::remove(&standby)?;
    } else {
        files::write(&standby, b"", 0o600)?;
        files::remove(&recovery)?;
        sweep_placeholders(data_dir)?;
    }
    Ok(taken)
}

/// Writes standby.signal, or takes it away.
pub(super) fn set_standby(data_dir: &Path, standby: bool) -> Result<(), Error> {
    let signal = data_dir.join("standby.signal");
    if standby {
        files::write(&signal, b"", 0o600).map(|_| ())
    } else {
        files::remove(&signal)
    }
}

/// The history file of a timeline.
pub(super) fn history_file(data_dir: &Path, timeline: u32) -> PathBuf {
    data_dir.join(format!("pg_wal/{timeline:08X}.history"))
}

/// Puts an empty history file under each number up to `above` that has none, above the timeline of the last checkpoint.
///
/// Counting starts at the checkpoint's timeline, which may be behind the one being replayed: the files of those in between exist,
/// for the standby came through them.
pub(super) fn reserve(data_dir: &Path, above: Timeline) -> Result<(), Error> {
    let own = control::light(data_dir).map_or(1, |light| light.timeline.0);
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
fn sweep_placeholders(data_dir: &Path) -> Result<(), Error> {
    let wal = data_dir.join("pg_wal");
    let Ok(entries) = fs::read_dir(&wal) else {
        return Ok(());
    };
    let own = control::light(data_dir).map_or(1, |light| light.timeline.0);
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
        reserve(dir.path(), Timeline(3)).unwrap();
        assert!(history_file(dir.path(), 2).exists() && history_file(dir.path(), 3).exists());
        fs::write(history_file(dir.path(), 4), "1\t0/3000000\tx\n").unwrap();
        reserve(dir.path(), Timeline(5)).unwrap();
        sweep_placeholders(dir.path()).unwrap();
        let left: Vec<bool> = (2..=5)
            .map(|number| history_file(dir.path(), number).exists())
            .collect();
        assert_eq!(left, [true, true, true, false]);
        reserve(dir.path(), Timeline(1)).unwrap();
        assert!(reserve(dir.path(), Timeline(5000)).is_err());
    }
}
