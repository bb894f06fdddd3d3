//! The one query of a probe, and what its row says.

use std::collections::{BTreeMap, BTreeSet};

use surus_core::types::{Lsn, SystemId, Timeline};
use surus_core::view::{ControlData, ControlState};
use tokio_postgres::Row;

/// Everything a probe wants to know, in one row. Whether the server is in recovery is asked anew where it decides if a function may
/// be called, since it can leave recovery in the midst of the query.
pub(super) const QUERY: &str = "\
SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn()::text END AS written, \
CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END AS wal_file, \
pg_last_wal_replay_lsn()::text AS replayed, \
pg_last_wal_receive_lsn()::text AS received, \
r.status AS receiver, \
r.received_tli AS receiver_timeline, \
k.timeline_id AS checkpoint_timeline, \
k.checkpoint_lsn::text AS checkpoint, \
m.min_recovery_end_lsn::text AS recovered, \
m.min_recovery_end_timeline AS recovered_timeline, \
i.data_page_checksum_version <> 0 OR current_setting('wal_log_hints')::bool AS rewindable, \
s.system_identifier::text AS system_id, \
current_setting('server_version_num')::int AS version, \
ARRAY(SELECT application_name FROM pg_stat_replication WHERE state IN ('streaming', 'catchup'))::text[] AS standbys, \
ARRAY(SELECT slot_name || ' ' || coalesce(restart_lsn, '0/0')::text FROM pg_replication_slots \
WHERE slot_type = 'physical' AND NOT temporary)::text[] AS slots, \
current_setting('primary_conninfo') AS conninfo, \
current_setting('primary_slot_name') AS slot, \
to_char(pg_postmaster_start_time(), 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM') AS started \
FROM pg_control_checkpoint() k, pg_control_recovery() m, pg_control_init() i, pg_control_system() s \
LEFT JOIN pg_stat_wal_receiver r ON true";

/// A row of [`QUERY`].
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
    pub(super) standbys: BTreeSet<String>,
    pub(super) slots: BTreeMap<String, Lsn>,
    pub(super) conninfo: String,
    pub(super) slot: String,
    pub(super) started: String,
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
            standbys: row.try_get::<_, Vec<String>>("standbys")?.into_iter().collect(),
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
        })
    }

    pub(super) fn control_data(&self) -> ControlData {
        let (position, timeline) = if self.checkpoint < self.recovered {
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
        }
    }
}
