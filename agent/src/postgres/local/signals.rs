//! Signal files and signals: what makes a server a standby, stops, promotes or wakes it; and the numbers of timelines.

use std::fs;
use std::path::{Path, PathBuf};

use surus_core::types::Timeline;

use super::super::Signal;
use super::super::probe::parse_history;
use super::directory::{self, at_work};
use super::{Error, control, files, hollow};

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
        sweep(data_dir)?;
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

/// Removes segments of timelines of which nothing has arrived (see [`hollow`]), and the history files of those that nothing here is of: no
/// checkpoint, and no WAL.
///
/// An empty one was left by a promotion that did not happen here. Another was fetched from a server that promoted and was lost before any of its
/// WAL came: PostgreSQL takes the newest file for its target, whatever has become of that timeline, and then finds no server that has it.
/// One that the upstream does have is fetched again.
///
/// Where an empty one stands for the timeline of the last WAL here, it was fetched from a server that never was on that timeline, and the
/// standby came to it through a later one's: that says how it began, and is about to be removed.
fn sweep(data_dir: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(data_dir.join("pg_wal")) else {
        return Ok(());
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let segment = |name: &String| {
        let whole = 24 <= name.len() && name.as_bytes()[..24].iter().all(u8::is_ascii_hexdigit);
        if whole { number(&name[..8]) } else { None }
    };
    let own = control::light(data_dir).map_or(1, |light| light.timeline.0);
    hollow::remove(data_dir, own, &mut names)?;
    let last = names
        .iter()
        .filter_map(segment)
        .max()
        .unwrap_or_default()
        .max(own);
    let history = |name: &String| number(name.strip_suffix(".history")?);
    let mut later: Vec<u32> = names
        .iter()
        .filter_map(history)
        .filter(|timeline| last < *timeline)
        .collect();
    later.sort_unstable();
    let placeholder = history_file(data_dir, last);
    if fs::metadata(&placeholder).is_ok_and(|file| file.len() == 0) {
        let told = later
            .iter()
            .find_map(|timeline| way_to(last, &history_file(data_dir, *timeline)));
        if let Some(lines) = told {
            files::write(&placeholder, lines.as_bytes(), 0o600)?;
            tracing::info!(
                timeline = last,
                "wrote the history of a timeline that only a number had been reserved for"
            );
        }
    }
    for timeline in later {
        files::remove(&history_file(data_dir, timeline))?;
        tracing::info!(
            timeline,
            "removed the history file of a timeline that no WAL is here of"
        );
    }
    Ok(())
}

/// The history of `timeline` by that of a later one, if this came of it.
fn way_to(timeline: u32, later: &Path) -> Option<String> {
    let text = fs::read_to_string(later).ok()?;
    let number = |line: &str| Some(parse_history(line).first()?.timeline.0);
    let came = text.lines().any(|line| number(line) == Some(timeline));
    let before = text
        .lines()
        .filter(|line| number(line).is_some_and(|number| number < timeline));
    came.then(|| before.flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_for_the_timeline_of_the_last_wal_becomes_its_history() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        fs::write(wal.join("000000030000000000000003"), "").unwrap();
        reserve(dir.path(), Timeline(4)).unwrap();
        fs::write(history_file(dir.path(), 4), "1\t0/5000000\tx\n").unwrap();
        fs::write(
            history_file(dir.path(), 5),
            "1\t0/1000000\tx\n\n3\t0/3000000\ty\n",
        )
        .unwrap();
        sweep(dir.path()).unwrap();
        assert_eq!(
            fs::read_to_string(history_file(dir.path(), 3)).unwrap(),
            "1\t0/1000000\tx\n"
        );
        assert_eq!(fs::read_to_string(history_file(dir.path(), 2)).unwrap(), "");
        assert!(!history_file(dir.path(), 5).exists());
    }

    #[test]
    fn histories_are_swept_above_the_last_timeline_that_wal_is_here_of() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        reserve(dir.path(), Timeline(3)).unwrap();
        assert!(history_file(dir.path(), 2).exists() && history_file(dir.path(), 3).exists());
        fs::write(history_file(dir.path(), 4), "1\t0/3000000\tx\n").unwrap();
        fs::write(wal.join("000000040000000000000003.partial"), "").unwrap();
        fs::write(history_file(dir.path(), 5), "4\t0/3000000\tx\n").unwrap();
        reserve(dir.path(), Timeline(6)).unwrap();
        sweep(dir.path()).unwrap();
        let left: Vec<bool> = (2..=6)
            .map(|number| history_file(dir.path(), number).exists())
            .collect();
        assert_eq!(left, [true, true, true, false, false]);
        reserve(dir.path(), Timeline(1)).unwrap();
        assert!(reserve(dir.path(), Timeline(5000)).is_err());
    }
}
