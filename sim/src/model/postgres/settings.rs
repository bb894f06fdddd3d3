//! What PostgreSQL is told (settings) and how long its work takes (costs).
//!
//! Every duration of the model is either a setting, with PostgreSQL's own default, or drawn from a [`Span`] of [`Costs`]: nothing here
//! reads a clock.

use surus_scenarios::SyncMode;

use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// A server, as the network knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Peer(pub u32);

/// `primary_conninfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conninfo {
    /// Host and port.
    pub to: Peer,
    /// `application_name`, by which the upstream knows the walreceiver.
    pub application_name: String,
}

/// What becomes of finished WAL segments (`archive_mode` and `archive_command`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Archiving {
    /// Nothing is archived.
    #[default]
    Off,
    /// Each is archived at once.
    Works,
    /// The command fails: WAL stays, a stop gives up on it.
    Fails,
    /// The command does not return: WAL stays, and a fast stop waits for it.
    Hangs,
}

/// `synchronous_commit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SyncLevel {
    /// Acknowledged before it is flushed here.
    Off,
    /// Flushed here.
    Local,
    /// Written by the standbys.
    RemoteWrite,
    /// Flushed by the standbys.
    #[default]
    On,
    /// Replayed by the standbys.
    RemoteApply,
}

/// postgresql.conf, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `primary_conninfo`.
    pub primary_conninfo: Option<Conninfo>,
    /// `primary_slot_name`.
    pub primary_slot_name: Option<String>,
    /// `synchronous_standby_names`, as written.
    pub synchronous_standby_names: String,
    /// `synchronous_commit`.
    pub synchronous_commit: SyncLevel,
    /// `recovery_min_apply_delay`.
    pub recovery_min_apply_delay: Time,
    /// `wal_keep_size`, in bytes.
    pub wal_keep_size: u64,
    /// `max_slot_wal_keep_size`, in bytes; `None` for no limit.
    pub max_slot_wal_keep_size: Option<u64>,
    /// `max_wal_senders`.
    pub max_wal_senders: usize,
    /// `wal_sender_timeout`.
    pub wal_sender_timeout: Time,
    /// `wal_receiver_timeout`.
    pub wal_receiver_timeout: Time,
    /// `wal_receiver_status_interval`.
    pub wal_receiver_status_interval: Time,
    /// `wal_retrieve_retry_interval`.
    pub wal_retrieve_retry_interval: Time,
    /// How long a walreceiver that does not stream yet waits for an upstream that says nothing. No setting of PostgreSQL covers that:
    /// it is the kernel's two minutes for a connection that does not come about, or hours for one that did, or what the keepalives of
    /// `primary_conninfo` say.
    pub connect_timeout: Time,
    /// `checkpoint_timeout`.
    pub checkpoint_timeout: Time,
    /// `max_wal_size`, in bytes: a checkpoint comes after half of it.
    pub max_wal_size: u64,
    /// `restart_after_crash`.
    pub restart_after_crash: bool,
    /// `archive_mode` and `archive_command`.
    pub archiving: Archiving,
}

impl Settings {
    /// [`Self::connect_timeout`] by what the agent writes into `primary_conninfo`: keepalives after 10 s and three times 5 s, and
    /// `tcp_user_timeout` of as much.
    const AGENTS_PATIENCE: Time = 25 * SEC;

    /// What the agent makes of the settings of a cluster, as far as they are not PostgreSQL's own: its file says so much, whoever leads.
    #[must_use]
    pub fn by_agent(cluster: &surus_scenarios::Settings) -> Self {
        Self {
            connect_timeout: Self::AGENTS_PATIENCE,
            wal_keep_size: 128 << 20,
            wal_retrieve_retry_interval: cluster.wal_retrieve_retry_interval * MS,
            // What becomes visible by a restart must not come before the `sync` key allows it.
            restart_after_crash: cluster.synchronous_mode == SyncMode::Off,
            ..Self::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            primary_conninfo: None,
            primary_slot_name: None,
            synchronous_standby_names: String::new(),
            synchronous_commit: SyncLevel::On,
            recovery_min_apply_delay: 0,
            wal_keep_size: 0,
            max_slot_wal_keep_size: None,
            max_wal_senders: 10,
            wal_sender_timeout: 60 * SEC,
            wal_receiver_timeout: 60 * SEC,
            wal_receiver_status_interval: 10 * SEC,
            wal_retrieve_retry_interval: 5 * SEC,
            connect_timeout: 127 * SEC,
            checkpoint_timeout: 300 * SEC,
            max_wal_size: 1 << 30,
            restart_after_crash: true,
            archiving: Archiving::Off,
        }
    }
}

/// A duration drawn between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Time, pub Time);

impl Span {
    /// No time at all.
    pub const NONE: Self = Self(0, 0);

    /// Draws a duration; no chance is used up where there is nothing to choose.
    pub fn draw(self, rng: &mut Rng) -> Time {
        if self.0 == self.1 {
            self.0
        } else {
            rng.range(self.0, self.1)
        }
    }
}

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// From the postmaster's birth to the beginning of recovery.
    pub start: Span,
    /// Before recovery from a crash: every file of the data directory is flushed.
    pub sync_directory: Span,
    /// WAL replayed in a second, in bytes. An ordinary machine replays about 100 MB/s.
    pub replay: u64,
    /// From WAL's arrival to its replay.
    pub apply: Span,
    /// An fsync; zero: done when it is asked for.
    pub fsync: Span,
    /// From the request for promotion to the end of recovery.
    pub promote: Span,
    /// From the end of recovery (new timeline, end-of-recovery record) to the first write.
    pub open: Span,
    /// A checkpoint that somebody asked for, or that a stop makes.
    pub checkpoint: Span,
    /// The checkpoint that follows a promotion by itself: spread out, so as not to disturb.
    pub spread_checkpoint: Span,
    /// From a fast stop's signal until the backends are gone.
    pub terminate: Span,
    /// From an immediate stop's signal until all processes are gone.
    pub quit: Span,
    /// From a reload until a process has taken it up; each has its own.
    pub reload: Span,
    /// A standby that has lost its upstream misses a request for promotion once in this many times, and sleeps on until its next attempt
    /// to connect; zero: never. Seen on 15.18.
    pub promote_missed: u64,
}

impl Costs {
    /// Everything happens at once: for scripts and unit tests.
    pub const NONE: Self = Self {
        start: Span::NONE,
        sync_directory: Span::NONE,
        replay: 0,
        apply: Span::NONE,
        fsync: Span::NONE,
        promote: Span::NONE,
        open: Span::NONE,
        checkpoint: Span::NONE,
        spread_checkpoint: Span::NONE,
        terminate: Span::NONE,
        quit: Span::NONE,
        reload: Span::NONE,
        promote_missed: 0,
    };

    /// An ordinary machine with an idle disk. Measured on PostgreSQL 15: `pg_promote` on an idle standby until the first write, that is
    /// `promote` and `open` together, 27 and 29 ms. The rest was measured on two processors shared with eight builds, and is counted
    /// as less where nothing competes: start after a clean stop 79 to 169 ms (median 109), fast stop with its checkpoint 63 to 122 ms (98),
    /// checkpoint of a few pages 33 to 100 ms (64), immediate stop 19 to 44 ms (28), commit 2 to 4 ms. Flushing the thousand files that
    /// initdb leaves took 2 s on that disk; here it is 0.03 to 0.2 ms a file, an estimate.
    pub const ORDINARY: Self = Self {
        start: Span(40 * MS, 200 * MS),
        sync_directory: Span(30 * MS, 200 * MS),
        replay: 100 << 20,
        apply: Span(0, 0),
        fsync: Span(0, 0),
        promote: Span(8 * MS, 40 * MS),
        open: Span(5 * MS, 25 * MS),
        checkpoint: Span(5 * MS, 80 * MS),
        spread_checkpoint: Span(SEC, 60 * SEC),
        terminate: Span(2 * MS, 40 * MS),
        quit: Span(2 * MS, 30 * MS),
        reload: Span(MS, 50 * MS),
        promote_missed: 8,
    };

    /// How long it takes to replay this much.
    #[must_use]
    pub fn replay_time(&self, bytes: u64) -> Time {
        if self.replay == 0 {
            return 0;
        }
        u64::try_from(u128::from(bytes) * u128::from(SEC) / u128::from(self.replay)).unwrap_or(Time::MAX)
    }
}
