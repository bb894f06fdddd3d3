//! Everything that is said to a server, in one place: to be read by who writes rules for a database's log, and answered by a simulated
//! server, which knows these statements and no others.
//!
//! Sessions begin with the options of `connect`, as superuser. What creates roles is made in `bootstrap` and goes by the simple protocol.

/// Everything a probe wants to know, in one row. Whether the server is in recovery is asked anew where it decides if a function may
/// be called, since it can leave recovery in the midst of the query.
///
/// Columns by name and type: `written` text, `wal_file` text, `replayed` text, `received` text, `receiver` text, `receiver_timeline` int4,
/// `checkpoint_timeline` int4, `checkpoint` text, `recovered` text, `recovered_timeline` int4, `rewindable` bool, `system_id` text,
/// `version` int4, `standbys` text[], `slots` text[], `conninfo` text, `slot` text, `started` text, `synchronous` text.
///
/// A standby is state, position and `application_name`, with blanks between. Its position is what a commit waits for: as
/// `synchronous_commit` says, so the session must have that as the server has it.
pub const PROBE: &str = "\
SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn()::text END AS written, \
CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END AS wal_file, \
pg_last_wal_replay_lsn()::text AS replayed, \
pg_last_wal_receive_lsn()::text AS received, \
r.status AS receiver, \
CASE WHEN r.receive_start_lsn < r.flushed_lsn THEN r.received_tli END AS receiver_timeline, \
k.timeline_id AS checkpoint_timeline, \
k.checkpoint_lsn::text AS checkpoint, \
m.min_recovery_end_lsn::text AS recovered, \
m.min_recovery_end_timeline AS recovered_timeline, \
i.data_page_checksum_version <> 0 OR current_setting('wal_log_hints')::bool AS rewindable, \
s.system_identifier::text AS system_id, \
current_setting('server_version_num')::int AS version, \
ARRAY(SELECT state || ' ' || coalesce(CASE current_setting('synchronous_commit') WHEN 'remote_write' THEN write_lsn \
WHEN 'remote_apply' THEN replay_lsn ELSE flush_lsn END, '0/0')::text || ' ' || application_name \
FROM pg_stat_replication WHERE state IN ('streaming', 'catchup'))::text[] AS standbys, \
ARRAY(SELECT slot_name || ' ' || coalesce(restart_lsn, '0/0')::text FROM pg_replication_slots \
WHERE slot_type = 'physical' AND NOT temporary)::text[] AS slots, \
current_setting('primary_conninfo') AS conninfo, \
current_setting('primary_slot_name') AS slot, \
to_char(pg_postmaster_start_time(), 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM') AS started, \
current_setting('synchronous_standby_names') AS synchronous \
FROM pg_control_checkpoint() k, pg_control_recovery() m, pg_control_init() i, pg_control_system() s \
LEFT JOIN pg_stat_wal_receiver r ON true";

/// Where the server says it lives: one text. Asked once per connection, to be sure whose server it is.
pub const DATA_DIRECTORY: &str = "SELECT current_setting('data_directory')";

/// Is it a standby: one bool.
pub const IN_RECOVERY: &str = "SELECT pg_is_in_recovery()";

/// Is it a standby, and which process does the recovery: bool, int4.
pub const RECOVERING: &str = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN \
(SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup' LIMIT 1) END";

/// Begins a promotion and does not wait for it: one bool.
pub const PROMOTE: &str = "SELECT pg_promote(wait := false)";

/// Simple protocol.
pub const CHECKPOINT: &str = "CHECKPOINT";

/// How many sessions have not ended what they were at when parting from clients began, a parameter of type int4 in milliseconds ago: one
/// int4. Counted are transactions from before that, and sessions that began shortly before or since, unless they have been idle for a
/// while: whoever opens a session means to use it.
pub const UNFINISHED: &str = "\
SELECT count(*)::int4 FROM pg_stat_activity, (SELECT clock_timestamp() - make_interval(secs => $1::int4 / 1000.0) AS at) began \
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND (xact_start <= began.at \
OR (backend_start > began.at - interval '150 milliseconds' AND application_name NOT LIKE 'Surus %' \
AND (state IS DISTINCT FROM 'idle' OR state_change > clock_timestamp() - interval '20 milliseconds')))";

/// The slots: name text, physical bool, active bool, restart position text, holds back vacuum bool, lost its WAL bool.
pub const SLOTS: &str = "\
SELECT slot_name::text, slot_type = 'physical', active, restart_lsn::text, xmin IS NOT NULL, \
coalesce(wal_status = 'lost', false) FROM pg_replication_slots";

/// Up to where a slot may be advanced: one text.
pub const POSITION: &str = "\
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text";

/// Makes a slot; a parameter of type name.
pub const CREATE_SLOT: &str = "SELECT pg_create_physical_replication_slot($1, true)";

/// Advances a slot; parameters of types name and text.
pub const ADVANCE_SLOT: &str = "SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)";

/// Drops a slot; a parameter of type name.
pub const DROP_SLOT: &str = "SELECT pg_drop_replication_slot($1)";

/// When the configuration was last read: one text.
pub const LOADED: &str = "SELECT pg_conf_load_time()::text";

/// By whom commits are acknowledged, as this session knows it: value text, when the configuration was read text, file that the value comes
/// from text, in recovery bool.
pub const SYNCHRONOUS: &str = "\
SELECT setting, pg_conf_load_time()::text, coalesce(sourcefile, source), pg_is_in_recovery() \
FROM pg_settings WHERE name = 'synchronous_standby_names'";

/// When the configuration was read text, and whether another file of rules waits for a restart bool.
pub const GATE: &str = "\
SELECT pg_conf_load_time()::text, pending_restart FROM pg_settings WHERE name = 'hba_file'";

/// Ends the sessions of all but the agent; how many there were: int4.
pub const DISMISS: &str = "\
SELECT count(pg_terminate_backend(pid))::int FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
AND NOT (usename = current_user AND application_name LIKE 'Surus %')";

/// Who could acknowledge commits: pid int4, `application_name` text, `sync_priority` int4, streams bool, time of its last word text.
pub const ACKNOWLEDGERS: &str = "\
SELECT pid, application_name, coalesce(sync_priority, 0), state = 'streaming' AND flush_lsn IS NOT NULL, coalesce(reply_time::text, '') \
FROM pg_stat_replication WHERE state IS NOT NULL";

/// The checkpointer sleeps, which it does not do with settings unread: one bool.
pub const CHECKPOINTER_SLEEPS: &str = "\
SELECT coalesce(bool_or(wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')), false) \
FROM pg_stat_activity WHERE backend_type = 'checkpointer'";

/// The parameters that take a restart: name text, setting text, unit text, type text, waits for a restart bool.
pub const SETTINGS: &str = "\
SELECT name, setting, coalesce(unit, ''), vartype, pending_restart FROM pg_settings \
WHERE context = 'postmaster' AND category NOT IN ('Write-Ahead Log / Recovery Target', 'Write-Ahead Log / Archive Recovery')";

/// Who streams: role text, `application_name` text, address text, state text, `sync_state` text, `sync_priority` int4.
pub const WALSENDERS: &str = "\
SELECT coalesce(usename::text, ''), application_name, host(client_addr), coalesce(state, ''), \
coalesce(sync_state, ''), coalesce(sync_priority, 0) FROM pg_stat_replication ORDER BY application_name";

/// How far replay has come: time of the last transaction text, paused bool, in recovery bool.
pub const REPLAY: &str = "\
SELECT to_char(pg_last_xact_replay_timestamp(), 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM'), \
CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END, pg_is_in_recovery()";

/// Is there a role of this name: one int4; a parameter of type name.
pub const ROLE: &str = "SELECT 1 FROM pg_roles WHERE rolname = $1";

/// Before statements with passwords: they must not reach the server's log. Simple protocol.
pub const KEEP_SECRETS: &str = "\
SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'; \
SET synchronous_commit = 'local'";

/// The Unix sockets in a leader's data directory, at which pg_rewind would fail; asked through [`Site::ask`](super::Site::ask).
pub const SOCKETS_IN_DATA_DIRECTORY: &str = "SELECT f FROM pg_catalog.pg_ls_dir('.', true, false) f WHERE f LIKE '.s.PGSQL.%' AND f NOT LIKE '%.lock'";
