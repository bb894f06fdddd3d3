//! What the row of a probe says.

use std::collections::BTreeMap;

use surus_core::sync::Names;
use surus_core::types::{Lsn, SystemId, Timeline};
use surus_core::view::{ControlData, ControlState, Standby};
use tokio_postgres::Row;

/// A row of [`PROBE`](super::sql::PROBE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) written: Option<Lsn>,
    pub(super) written_timeline: Option<Timeline>,
    pub(super) replayed: Option<Lsn>,
    pub(super) received: Option<Lsn>,
    pub(super) streaming: bool,
    pub(super) receiver_timeline: Option<Timeline>,
    pub(super) checkpoint: Lsn,
    pub(super) checkpoint_timeline: Timeline,
    pub(super) recovered: Lsn,
    pub(super) recovered_timeline: Timeline,
    pub(super) rewindable: bool,
    pub(super) system_id: SystemId,
    pub(super) version: u32,
    pub(super) standbys: BTreeMap<String, Standby>,
    pub(super) slots: BTreeMap<String, Lsn>,
    pub(super) conninfo: String,
    pub(super) slot: String,
    pub(super) started: String,
    pub(super) synchronous: Names,
}

impl Answer {
    pub(super) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let lsn = |name: &str| -> Result<Option<Lsn>, tokio_postgres::Error> {
            Ok(row
                .try_get::<_, Option<String>>(name)?
                .as_deref()
                .and_then(Lsn::parse))
        };
        let timeline = |name: &str| -> Result<Option<Timeline>, tokio_postgres::Error> {
            let number = row.try_get::<_, Option<i32>>(name)?;
            Ok(number.map(|number| Timeline(number.cast_unsigned())))
        };
        let slots = row.try_get::<_, Vec<String>>("slots")?;
        Ok(Self {
            written: lsn("written")?,
            written_timeline: row
                .try_get::<_, Option<String>>("wal_file")?
                .and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok())
                .map(Timeline),
            replayed: lsn("replayed")?,
            received: lsn("received")?,
            streaming: row.try_get::<_, Option<String>>("receiver")?.as_deref() == Some("streaming"),
            receiver_timeline: timeline("receiver_timeline")?,
            checkpoint: lsn("checkpoint")?.unwrap_or_default(),
            checkpoint_timeline: timeline("checkpoint_timeline")?.unwrap_or_default(),
            recovered: lsn("recovered")?.unwrap_or_default(),
            recovered_timeline: timeline("recovered_timeline")?.unwrap_or_default(),
            rewindable: row.try_get("rewindable")?,
            system_id: SystemId(
                row.try_get::<_, String>("system_id")?
                    .parse::<i64>()
                    .map_or(0, i64::cast_unsigned),
            ),
            version: row.try_get::<_, i32>("version")?.cast_unsigned(),
            standbys: standbys(&row.try_get::<_, Vec<String>>("standbys")?),
            slots: slots
                .iter()
                .filter_map(|slot| {
                    let (name, position) = slot.split_once(' ')?;
                    Some((name.to_owned(), Lsn::parse(position)?))
                })
                .collect(),
            conninfo: row.try_get("conninfo")?,
            slot: row.try_get("slot")?,
            started: row.try_get("started")?,
            synchronous: Names::parse(row.try_get("synchronous")?),
        })
    }

    pub(super) fn control_data(&self) -> ControlData {
        // A promotion writes its end-of-recovery record into the control file as the minimal end of recovery, long before the first
        // checkpoint; pg_rewind looks at the checkpoint, so of a primary nothing else counts.
        let replays = self.written.is_none();
        let (position, timeline) = if replays && self.checkpoint < self.recovered {
            (self.recovered, self.recovered_timeline)
        } else {
            (self.checkpoint, self.checkpoint_timeline)
        };
        ControlData {
            system_id: self.system_id,
            state: if self.written.is_some() {
                ControlState::InProduction
            } else {
                ControlState::InArchiveRecovery
            },
            timeline,
            position,
            rewindable: self.rewindable,
            fork: None,
        }
    }
}

/// The standbys by name. PostgreSQL takes names that differ in case only for one, so each of them stands for the others too.
fn standbys(rows: &[String]) -> BTreeMap<String, Standby> {
    let read = |row: &String| {
        let mut words = row.splitn(3, ' ');
        let (state, position) = (words.next()?, Lsn::parse(words.next()?)?);
        Some((words.next()?.to_owned(), state == "streaming", position))
    };
    let rows: Vec<(String, bool, Lsn)> = rows.iter().filter_map(read).collect();
    let same = |name: &str| rows.iter().filter(|row| row.0.eq_ignore_ascii_case(name)).count();
    let mut standbys: BTreeMap<String, Standby> = BTreeMap::new();
    for (name, streaming, position) in &rows {
        let standby = standbys.entry(name.clone()).or_insert(Standby {
            streaming: false,
            position: *position,
            doubled: 1 < same(name),
        });
        standby.streaming |= streaming;
        standby.position = standby.position.min(*position);
    }
    standbys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standbys_of_one_name_are_not_taken_for_one_standby() {
        let rows = [
            "streaming 0/300 b",
            "catchup 0/0 c",
            "streaming 0/100 my node",
            "catchup 0/90 my node",
            "streaming 0/100 D",
            "streaming 0/100 d",
            "nonsense",
        ];
        let standbys = standbys(&rows.map(str::to_owned));
        let seen = |name: &str| {
            let standby = standbys[name];
            (standby.streaming, standby.position, standby.doubled)
        };
        assert_eq!(standbys.len(), 5);
        assert_eq!(seen("b"), (true, Lsn(0x300), false));
        assert_eq!(seen("c"), (false, Lsn(0), false));
        assert_eq!(seen("my node"), (true, Lsn(0x90), true));
        assert!(seen("d").2 && seen("D").2);
    }

    #[test]
    fn a_promotion_is_in_the_control_file_only_with_its_checkpoint() {
        let promoted = Answer {
            written: Some(Lsn(900)),
            written_timeline: Some(Timeline(2)),
            replayed: None,
            received: None,
            streaming: false,
            receiver_timeline: None,
            checkpoint: Lsn(100),
            checkpoint_timeline: Timeline(1),
            recovered: Lsn(800),
            recovered_timeline: Timeline(2),
            rewindable: true,
            system_id: SystemId(7),
            version: 150_000,
            standbys: BTreeMap::new(),
            slots: BTreeMap::new(),
            conninfo: String::new(),
            slot: String::new(),
            started: String::new(),
            synchronous: Names::Alone,
        };
        assert_eq!(promoted.control_data().timeline, Timeline(1));
        let replica = Answer {
            written: None,
            ..promoted
        };
        assert_eq!(replica.control_data().timeline, Timeline(2));
    }
}
