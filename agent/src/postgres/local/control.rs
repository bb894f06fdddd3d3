//! `global/pg_control`: a light read of its first bytes, and all of it through pg_controldata.
//!
//! The first 52 bytes of the file have meant the same since PostgreSQL 11: system identifier, format, catalogue, state, time, last
//! checkpoint, its redo position, its timeline. That suffices to see a stop or a promotion happen, without a process. Everything
//! else is read by PostgreSQL's own tool, and kept until the file changes.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::PoisonError;

use surus_core::types::{Lsn, SystemId, Timeline};
use surus_core::view::{ControlData, ControlState};

use super::super::site::{ControlFile, Light};
use super::{Error, Local, exec};

/// Changes whenever the file does.
pub(super) type Stamp = (i64, i64, u64);

/// Names in pg_controldata's output of what a standby must not have less of than its primary had.
const MINIMUMS: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// Reads the beginning of the control file; `None` if it is missing, short, or of a format whose beginning is not known.
pub(super) fn light(data_dir: &Path) -> Option<Light> {
    // Read twice: the server overwrites the file in place, and a torn read must not pass for a fact.
    let first = head(data_dir)?;
    let again = head(data_dir)?;
    if first == again {
        parse_light(&first)
    } else {
        parse_light(&head(data_dir)?)
    }
}

fn head(data_dir: &Path) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    File::open(data_dir.join("global/pg_control"))
        .and_then(|mut file| file.read_exact(&mut bytes))
        .ok()?;
    Some(bytes)
}

fn parse_light(bytes: &[u8; 64]) -> Option<Light> {
    let long = |at: usize| {
        let mut field = [0; 8];
        field.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(field)
    };
    let short = |at: usize| {
        let mut field = [0; 4];
        field.copy_from_slice(&bytes[at..at + 4]);
        u32::from_ne_bytes(field)
    };
    // 1300 is PostgreSQL 13 to 16, 1700 is 17, 1800 is 18.
    if !matches!(short(8), 1300..=1899) {
        return None;
    }
    Some(Light {
        system_id: SystemId(long(0)),
        state: match short(16) {
            1 => ControlState::ShutDown,
            2 => ControlState::ShutDownInRecovery,
            3 => ControlState::ShuttingDown,
            // 0 is "starting up", set only between the reading of the file and the beginning of recovery.
            0 | 4 => ControlState::InCrashRecovery,
            5 => ControlState::InArchiveRecovery,
            6 => ControlState::InProduction,
            _ => return None,
        },
        checkpoint: Lsn(long(32)),
        timeline: Timeline(short(48)),
    })
}

/// The control file's stamp, `None` if there is no such file.
pub(super) fn stamp(data_dir: &Path) -> Option<Stamp> {
    let meta = fs::metadata(data_dir.join("global/pg_control")).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.ino()))
}

fn parse(output: &str) -> Result<ControlFile, String> {
    let field = |name: &str| {
        output
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
            .ok_or_else(|| format!("its output has no line {name:?}"))
    };
    let number = |name: &str| {
        field(name)?
            .parse::<u64>()
            .map_err(|_| format!("its line {name:?} is no number"))
    };
    let position =
        |name: &str| Lsn::parse(field(name)?).ok_or_else(|| format!("its line {name:?} is no position"));
    if output.contains("CRC checksum does not match") {
        return Err("the control file's checksum is wrong".to_owned());
    }
    let state = match field("Database cluster state")? {
        "shut down" => ControlState::ShutDown,
        "shut down in recovery" => ControlState::ShutDownInRecovery,
        "shutting down" => ControlState::ShuttingDown,
        "starting up" | "in crash recovery" => ControlState::InCrashRecovery,
        "in archive recovery" => ControlState::InArchiveRecovery,
        "in production" => ControlState::InProduction,
        other => return Err(format!("the state {other:?} is not known")),
    };
    let narrow =
        |value: u64| u32::try_from(value).map_err(|_| format!("the timeline {value} is out of range"));
    let checkpoint = (
        position("Latest checkpoint location")?,
        narrow(number("Latest checkpoint's TimeLineID")?)?,
    );
    let recovered = (
        position("Minimum recovery ending location")?,
        narrow(number("Min recovery ending loc's timeline")?)?,
    );
    let (position, timeline) = if checkpoint.0 < recovered.0 {
        recovered
    } else {
        checkpoint
    };
    let rewindable = field("wal_log_hints setting")? == "on" || number("Data page checksum version")? != 0;
    Ok(ControlFile {
        data: ControlData {
            system_id: SystemId(number("Database system identifier")?),
            state,
            timeline: Timeline(timeline),
            position,
            rewindable,
            fork: None,
        },
        minimums: MINIMUMS
            .iter()
            .filter_map(|(line, parameter)| Some((*parameter, number(line).ok()?)))
            .collect(),
        segment: number("Bytes per WAL segment")?,
    })
}

impl Local {
    /// All of the control file. A process is run only if the file has changed since it was last read.
    pub(super) async fn read_control_file(&self) -> Result<ControlFile, Error> {
        let settings = self.settings();
        let now = self.at(stamp).await;
        if let Some(now) = now
            && let Some((then, known)) = &*self.control.lock().unwrap_or_else(PoisonError::into_inner)
            && *then == now
        {
            return Ok(known.clone());
        }
        let program = self.binary("pg_controldata");
        let output = exec::Tool::new(&program)
            .arg(&settings.data_dir)
            .limit(std::time::Duration::from_secs(10))
            .run()
            .await?;
        let file = parse(&output.stdout).map_err(|problem| {
            Error::Condition(format!(
                "pg_controldata cannot make sense of {}: {problem}",
                settings.data_dir.join("global/pg_control").display()
            ))
        })?;
        if let Some(now) = now {
            *self.control.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, file.clone()));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_state_checkpoint_and_timeline() {
        let mut bytes = [0; 64];
        bytes[0..8].copy_from_slice(&7_710_206_268_258_099_592_u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[32..40].copy_from_slice(&0x300_0028_u64.to_ne_bytes());
        bytes[48..52].copy_from_slice(&4_u32.to_ne_bytes());
        assert_eq!(
            parse_light(&bytes),
            Some(Light {
                system_id: SystemId(7_710_206_268_258_099_592),
                state: ControlState::ShutDown,
                checkpoint: Lsn(0x300_0028),
                timeline: Timeline(4),
            })
        );
        bytes[8..12].copy_from_slice(&942_u32.to_ne_bytes());
        assert_eq!(parse_light(&bytes), None);
    }

    #[test]
    fn the_later_of_checkpoint_and_recovery_end_is_the_position() {
        let output = "Database system identifier:           771\n\
            Database cluster state:               in archive recovery\n\
            Latest checkpoint location:           0/3000028\n\
            Latest checkpoint's TimeLineID:       1\n\
            Minimum recovery ending location:     0/4000000\n\
            Min recovery ending loc's timeline:   2\n\
            wal_log_hints setting:                off\n\
            max_connections setting:              120\n\
            Bytes per WAL segment:                16777216\n\
            Data page checksum version:           1\n";
        let file = parse(output).unwrap();
        assert_eq!(file.data.position, Lsn(0x400_0000));
        assert_eq!(file.data.timeline, Timeline(2));
        assert!(file.data.rewindable);
        assert_eq!(file.minimums, [("max_connections", 120)]);
        assert!(parse(&output.replace("in archive recovery", "on holiday")).is_err());
    }
}
