//! The control file, as pg_controldata shows it.

use surus_core::types::{Lsn, SystemId, Timeline};
use surus_core::view::{ControlData, ControlState};

/// What is written in global/pg_control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster's identity.
    pub system_id: SystemId,
    /// "Database cluster state".
    pub state: ControlState,
    /// "Latest checkpoint location": where its record begins.
    pub checkpoint: u64,
    /// "Latest checkpoint's REDO location": where recovery begins.
    pub redo: u64,
    /// "Latest checkpoint's TimeLineID".
    pub timeline: u32,
    /// "Minimum recovery ending location": a standby is not consistent before; zero when there is none.
    pub min_recovery: u64,
    /// "Min recovery ending loc's timeline".
    pub min_recovery_timeline: u32,
    /// Data checksums or wal_log_hints are on, without which pg_rewind refuses.
    pub rewindable: bool,
}

impl ControlFile {
    /// The server that left this was stopped cleanly: there is nothing to recover.
    #[must_use]
    pub fn clean(&self) -> bool {
        matches!(
            self.state,
            ControlState::ShutDown | ControlState::ShutDownInRecovery
        )
    }

    /// The timeline that crash recovery follows.
    #[must_use]
    pub fn recovery_timeline(&self) -> u32 {
        self.timeline.max(self.min_recovery_timeline)
    }

    /// What the agent makes of it: the later of checkpoint and minimal end of recovery.
    #[must_use]
    pub fn data(&self) -> ControlData {
        let (position, timeline) = if self.checkpoint < self.min_recovery {
            (self.min_recovery, self.min_recovery_timeline)
        } else {
            (self.checkpoint, self.timeline)
        };
        ControlData {
            system_id: self.system_id,
            state: self.state,
            timeline: Timeline(timeline),
            position: Lsn(position),
            rewindable: self.rewindable,
            fork: None,
        }
    }
}

/// pg_controldata's words for a state.
#[must_use]
pub fn state_name(state: ControlState) -> &'static str {
    match state {
        ControlState::ShutDown => "shut down",
        ControlState::ShutDownInRecovery => "shut down in recovery",
        ControlState::InProduction => "in production",
        ControlState::InArchiveRecovery => "in archive recovery",
        ControlState::InCrashRecovery => "in crash recovery",
        ControlState::ShuttingDown => "shutting down",
    }
}
