//! What each statement says of the model: those of the agent, word for word, and two of the clients'.

use std::sync::Arc;
use std::time::Duration;

use surus::postgres::sql;
use surus_core::types::Lsn;
use tokio::sync::oneshot;

use super::super::hub::Hub;
use super::PORT;
use super::register;
use super::wire::{Columns, Row, Type, Value};
use crate::model::postgres::probe::Probe;
use crate::model::postgres::{Refusal, Server, SyncLevel};

/// A client's write; the value follows. Answered when it is acknowledged.
pub const WRITE: &str = "WRITE ";
/// A client's read; the register follows.
pub const READ: &str = "READ ";

/// Bytes of WAL of a client's write.
const BYTES: u64 = 200;

/// What a statement costs at the least, as finely as time passes here.
const COST: Duration = Duration::from_millis(1);

/// The process of a standby that replays.
const STARTUP: i32 = 77;

/// A statement's answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) columns: Columns,
    pub(super) rows: Vec<Row>,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (code, text) = match refusal {
            Refusal::StartingUp => ("57P03", "the database system is starting up"),
            Refusal::ShuttingDown => ("57P03", "the database system is shutting down"),
            Refusal::NotRunning | Refusal::NoCluster | Refusal::Silent | Refusal::Running => {
                ("57P01", "terminating connection due to administrator command")
            }
            Refusal::InRecovery => ("25006", "cannot execute this during recovery"),
            Refusal::NotInRecovery => ("55000", "recovery is not in progress"),
            Refusal::Disk => ("58030", "could not write to file"),
            Refusal::Other(text) => ("55000", text),
        };
        Self::new(code, text)
    }
}

const PROBE: Columns = &[
    ("written", Type::Text),
    ("wal_file", Type::Text),
    ("replayed", Type::Text),
    ("received", Type::Text),
    ("receiver", Type::Text),
    ("receiver_timeline", Type::Int4),
    ("checkpoint_timeline", Type::Int4),
    ("checkpoint", Type::Text),
    ("recovered", Type::Text),
    ("recovered_timeline", Type::Int4),
    ("rewindable", Type::Bool),
    ("system_id", Type::Text),
    ("version", Type::Int4),
    ("standbys", Type::TextArray),
    ("slots", Type::TextArray),
    ("conninfo", Type::Text),
    ("slot", Type::Text),
    ("started", Type::Text),
    ("synchronous", Type::Text),
];
const TEXT: Columns = &[("text", Type::Text)];
const BOOL: Columns = &[("bool", Type::Bool)];
const GATE: Columns = &[("loaded", Type::Text), ("pending_restart", Type::Bool)];
const INT: Columns = &[("int", Type::Int4)];
const RECOVERING: Columns = &[("recovering", Type::Bool), ("pid", Type::Int4)];
const SLOTS: Columns = &[
    ("slot_name", Type::Text),
    ("physical", Type::Bool),
    ("active", Type::Bool),
    ("restart", Type::Text),
    ("holds", Type::Bool),
    ("lost", Type::Bool),
];
const SETTINGS: Columns = &[
    ("name", Type::Text),
    ("setting", Type::Text),
    ("unit", Type::Text),
    ("vartype", Type::Text),
    ("pending_restart", Type::Bool),
];
const WALSENDERS: Columns = &[
    ("usename", Type::Text),
    ("application_name", Type::Text),
    ("client_addr", Type::Text),
    ("state", Type::Text),
    ("sync_state", Type::Text),
    ("sync_priority", Type::Int4),
];
const SYNCHRONOUS: Columns = &[
    ("setting", Type::Text),
    ("loaded", Type::Text),
    ("source", Type::Text),
    ("recovering", Type::Bool),
];
const ACKNOWLEDGERS: Columns = &[
    ("pid", Type::Int4),
    ("application_name", Type::Text),
    ("sync_priority", Type::Int4),
    ("streams", Type::Bool),
    ("answered", Type::Text),
];
const REPLAY: Columns = &[
    ("at", Type::Text),
    ("paused", Type::Bool),
    ("recovering", Type::Bool),
];
const IDENTITY: Columns = &[
    ("systemid", Type::Text),
    ("timeline", Type::Int4),
    ("xlogpos", Type::Text),
    ("dbname", Type::Text),
];
const HISTORY: Columns = &[("filename", Type::Text), ("content", Type::Text)];

/// The types of a statement's parameters and its columns; `None` for one that the agent does not use.
pub(super) fn describe(statement: &str) -> Option<(&'static [Type], Columns)> {
    Some(match statement {
        sql::PROBE => (&[], PROBE),
        sql::DATA_DIRECTORY | sql::POSITION | sql::LOADED => (&[], TEXT),
        sql::IN_RECOVERY | sql::PROMOTE => (&[], BOOL),
        sql::RECOVERING => (&[], RECOVERING),
        sql::SLOTS => (&[], SLOTS),
        sql::SETTINGS => (&[], SETTINGS),
        sql::WALSENDERS => (&[], WALSENDERS),
        sql::REPLAY => (&[], REPLAY),
        sql::SYNCHRONOUS => (&[], SYNCHRONOUS),
        sql::ACKNOWLEDGERS => (&[], ACKNOWLEDGERS),
        sql::CHECKPOINTER_SLEEPS => (&[], BOOL),
        sql::GATE => (&[], GATE),
        sql::DISMISS => (&[], INT),
        sql::CREATE_SLOT | sql::DROP_SLOT => (&[Type::Name], TEXT),
        sql::ADVANCE_SLOT => (&[Type::Name, Type::Text], TEXT),
        sql::ROLE => (&[Type::Name], INT),
        sql::UNFINISHED => (&[Type::Int4], INT),
        sql::CHECKPOINT => (&[], &[]),
        _ => return None,
    })
}

fn lsn(position: Lsn) -> Option<Value> {
    Some(Value::Text(position.to_string()))
}

fn text(text: impl Into<String>) -> Option<Value> {
    Some(Value::Text(text.into()))
}

fn int(number: u32) -> Option<Value> {
    Some(Value::Int4(number.cast_signed()))
}

fn one(columns: Columns, row: Row) -> Answer {
    Answer {
        columns,
        rows: vec![row],
    }
}

/// A file of the log: timeline, and the segment of the position.
fn wal_file(position: Lsn, timeline: u32) -> String {
    format!(
        "{timeline:08X}{:08X}{:08X}",
        position.0 >> 32,
        (position.0 & 0xffff_ffff) >> 24
    )
}

fn probe(probe: Probe, conninfo: String) -> Answer {
    let control = probe.control;
    let slots = probe.slots.iter().map(|(name, at)| format!("{name} {at}"));
    let standbys = probe.standbys.iter().map(|(name, standby)| {
        let state = if standby.streaming { "streaming" } else { "catchup" };
        format!("{state} {} {name}", standby.position)
    });
    one(
        PROBE,
        vec![
            probe.written.and_then(|(at, _)| lsn(at)),
            probe
                .written
                .and_then(|(at, timeline)| text(wal_file(at, timeline.0))),
            probe.replayed.and_then(lsn),
            probe.received.and_then(lsn),
            probe.receiver.and_then(text),
            probe.receiver_timeline.and_then(|timeline| int(timeline.0)),
            int(control.timeline),
            lsn(Lsn(control.checkpoint)),
            lsn(Lsn(control.min_recovery)),
            int(control.min_recovery_timeline),
            Some(Value::Bool(control.rewindable)),
            text(control.system_id.to_string()),
            int(150_018),
            Some(Value::Texts(standbys.collect())),
            Some(Value::Texts(slots.collect())),
            text(conninfo),
            text(probe.slot.unwrap_or_default()),
            text(format!("2026-01-01 00:00:{:02}.000000+00:00", probe.started % 60)),
            text(probe.synchronous),
        ],
    )
}

fn slots(server: &Server) -> Vec<Row> {
    let slots = server.slots().into_iter().flatten();
    slots
        .map(|(name, slot)| {
            vec![
                text(name.as_str()),
                Some(Value::Bool(slot.is_physical())),
                Some(Value::Bool(slot.active.is_some())),
                slot.restart.and_then(|at| lsn(Lsn(at))),
                Some(Value::Bool(slot.xmin.is_some())),
                Some(Value::Bool(slot.lost)),
            ]
        })
        .collect()
}

/// A parameter of type name or text.
fn parameter(parameters: &[Option<Vec<u8>>], index: usize) -> String {
    let bytes = parameters.get(index).cloned().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Carries out a statement.
pub(super) async fn answer(
    hub: &Arc<Hub>,
    host: usize,
    statement: &str,
    parameters: &[Option<Vec<u8>>],
) -> Result<Answer, Failure> {
    tokio::time::sleep(COST).await;
    let by_client = statement.starts_with(WRITE) || statement.starts_with(READ);
    if by_client && hub.record().checker.scene().by_hand(host) {
        return Err(Refusal::InRecovery.into());
    }
    if let Some(value) = statement.strip_prefix(WRITE) {
        return write(hub, host, value).await;
    }
    if statement == sql::CHECKPOINT {
        return checkpoint(hub, host).await;
    }
    hub.act(host, |now, inside| -> Result<Answer, Failure> {
        let recovering = inside.server.in_recovery()?;
        Ok(match statement {
            sql::PROBE => {
                let seen = inside.server.probe()?;
                // What the server has read, which the file may be ahead of.
                let conninfo = seen.conninfo.as_ref().map(|read| {
                    let host = &hub.hosts[read.to.0 as usize].name;
                    format!("host={host} port={PORT}")
                });
                probe(seen, conninfo.unwrap_or_default())
            }
            sql::DATA_DIRECTORY => one(TEXT, vec![text(data_dir(&hub.hosts[host].name))]),
            sql::IN_RECOVERY => one(BOOL, vec![Some(Value::Bool(recovering))]),
            sql::RECOVERING => {
                let pid = recovering.then_some(Value::Int4(STARTUP));
                one(RECOVERING, vec![Some(Value::Bool(recovering)), pid])
            }
            sql::PROMOTE => {
                inside.server.promote(now)?;
                one(BOOL, vec![Some(Value::Bool(true))])
            }
            sql::SLOTS => Answer {
                columns: SLOTS,
                rows: slots(&inside.server),
            },
            sql::POSITION => {
                let replayed = inside.server.replay_position();
                let at = replayed.or_else(|| Some(inside.server.cluster()?.log.flushed));
                one(TEXT, vec![at.and_then(|at| lsn(Lsn(at)))])
            }
            sql::CREATE_SLOT => {
                inside
                    .server
                    .create_slot(&parameter(parameters, 0), false, true)?;
                one(TEXT, vec![text("")])
            }
            sql::DROP_SLOT => {
                inside.server.drop_slot(&parameter(parameters, 0))?;
                one(TEXT, vec![text("")])
            }
            sql::ADVANCE_SLOT => {
                let to = Lsn::parse(&parameter(parameters, 1)).unwrap_or_default();
                inside.server.advance_slot(&parameter(parameters, 0), to.0)?;
                one(TEXT, vec![text("")])
            }
            sql::GATE => {
                let loads = text(inside.loads.to_string());
                one(GATE, vec![loads, Some(Value::Bool(false))])
            }
            // They end with what they say next.
            sql::DISMISS => one(INT, vec![Some(Value::Int4(0))]),
            sql::LOADED => one(TEXT, vec![text(inside.loads.to_string())]),
            sql::SETTINGS => Answer {
                columns: SETTINGS,
                rows: Vec::new(),
            },
            sql::WALSENDERS => Answer {
                columns: WALSENDERS,
                rows: walsenders(&inside.server)?,
            },
            sql::SYNCHRONOUS => {
                let names = inside.server.probe()?.synchronous;
                let loaded = inside.loads.to_string();
                let row = vec![
                    text(names),
                    text(loaded),
                    text("postgresql.conf"),
                    Some(Value::Bool(recovering)),
                ];
                one(SYNCHRONOUS, row)
            }
            sql::ACKNOWLEDGERS => Answer {
                columns: ACKNOWLEDGERS,
                rows: acknowledgers(&inside.server)?,
            },
            sql::CHECKPOINTER_SLEEPS => {
                one(BOOL, vec![Some(Value::Bool(inside.server.checkpointer_sleeps()))])
            }
            sql::REPLAY => {
                let paused = recovering.then(|| Value::Bool(inside.server.replay_paused()));
                one(REPLAY, vec![None, paused, Some(Value::Bool(recovering))])
            }
            sql::ROLE => one(INT, vec![int(1)]),
            // Clients of the model write in one step: whatever has begun has ended.
            sql::UNFINISHED => one(INT, vec![int(0)]),
            other => further(&inside.server, other)?,
        })
    })
}

/// What comes by the simple protocol: the replication protocol's commands, a client's read, and what makes roles.
fn further(server: &Server, statement: &str) -> Result<Answer, Failure> {
    if let Some(key) = statement.strip_prefix(READ) {
        if server.in_recovery()? {
            return Err(Refusal::InRecovery.into());
        }
        let key: u32 = key.trim().parse().unwrap_or(0);
        let last = server.visible().filter(|txn| register(*txn) == key).last();
        return Ok(one(TEXT, vec![last.and_then(|txn| text(txn.to_string()))]));
    }
    if statement == "IDENTIFY_SYSTEM" {
        let (system_id, timeline, _) = server.identify()?;
        let row = vec![text(system_id.to_string()), int(timeline.0), text("0/0"), None];
        return Ok(one(IDENTITY, row));
    }
    if let Some(timeline) = statement.strip_prefix("TIMELINE_HISTORY ") {
        let timeline: u32 = timeline.trim().parse().unwrap_or(0);
        server.identify()?;
        let Some(cluster) = server.cluster().filter(|cluster| cluster.histories.has(timeline)) else {
            return Err(Failure::new("58P01", "could not open file"));
        };
        let content = history(&cluster.histories.lines(timeline));
        let row = vec![text(format!("{timeline:08X}.history")), text(content)];
        return Ok(one(HISTORY, row));
    }
    if statement == sql::SOCKETS_IN_DATA_DIRECTORY {
        return Ok(Answer {
            columns: TEXT,
            rows: Vec::new(),
        });
    }
    Ok(Answer::default())
}

/// The text of a history file.
pub(in super::super) fn history(lines: &[surus_core::view::HistoryLine]) -> String {
    lines
        .iter()
        .map(|line| format!("{}\t{}\t{}\n", line.timeline.0, line.switch, line.reason))
        .collect()
}

/// The path of a host's data directory.
pub(in super::super) fn data_dir(name: &str) -> String {
    format!("/pg/{name}")
}

fn walsenders(server: &Server) -> Result<Vec<Row>, Failure> {
    let rows = server.replication()?;
    let rows = rows.into_iter().map(|row| {
        vec![
            text("replicator"),
            text(row.application_name),
            None,
            text(row.state),
            text(row.sync_state),
            int(row.sync_priority),
        ]
    });
    Ok(rows.collect())
}

fn acknowledgers(server: &Server) -> Result<Vec<Row>, Failure> {
    let rows = server.replication()?;
    let rows = rows.into_iter().map(|row| {
        let streams = row.state == "streaming" && row.flushed.is_some();
        vec![
            int(row.pid),
            text(row.application_name),
            int(row.sync_priority),
            Some(Value::Bool(streams)),
            text(row.heard.to_string()),
        ]
    });
    Ok(rows.collect())
}

async fn checkpoint(hub: &Arc<Hub>, host: usize) -> Result<Answer, Failure> {
    hub.act(host, |now, inside| inside.server.checkpoint(now))?;
    while hub.look(host, |inside| inside.server.checkpointing()) {
        hub.hosts[host].changed.notified().await;
    }
    Ok(Answer::default())
}

async fn write(hub: &Arc<Hub>, host: usize, value: &str) -> Result<Answer, Failure> {
    let txn: u64 = value.trim().parse().unwrap_or(0);
    let (sender, acked) = oneshot::channel();
    hub.act(host, |now, inside| {
        inside.commits.insert(txn, sender);
        let begun = inside.server.commit(now, txn, BYTES, SyncLevel::On);
        if begun.is_err() {
            inside.commits.remove(&txn);
        }
        begun
    })?;
    let lost = |_| Failure::new("57P01", "terminating connection due to administrator command");
    acked.await.map_err(lost)?;
    Ok(Answer::default())
}
