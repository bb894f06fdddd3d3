//! What springs a trap: an act of an agent, or a fact. The same in every world.

use surus_scenarios::Trigger;

use crate::record::{Deed, End, Rebuild, Seen};

/// The order is one that matters: it changes PostgreSQL, or who holds the lock.
fn matters(deed: Deed) -> bool {
    matches!(
        deed,
        Deed::Acquire
            | Deed::Release
            | Deed::Bootstrap
            | Deed::BaseBackup
            | Deed::StartReplica
            | Deed::StartPrimary
            | Deed::StopFast
            | Deed::StopImmediate
            | Deed::Promote
            | Deed::Follow
            | Deed::CompareHistory
            | Deed::Rewind
            | Deed::Restart
            | Deed::AdoptPostmaster
    )
}

/// What happened is what the trap waits for.
pub(crate) fn fits(when: Trigger, seen: &Seen) -> bool {
    if let Seen::OrderBegan { order, .. } = seen {
        return match when {
            Trigger::AnyAct => matters(*order),
            Trigger::Promote => *order == Deed::Promote,
            Trigger::Stop => matches!(order, Deed::StopFast | Deed::StopImmediate),
            Trigger::Start => matches!(order, Deed::StartPrimary | Deed::StartReplica),
            Trigger::Restart => *order == Deed::Restart,
            Trigger::Follow => *order == Deed::Follow,
            Trigger::Rewind => *order == Deed::Rewind,
            Trigger::BaseBackup => *order == Deed::BaseBackup,
            Trigger::Bootstrap => *order == Deed::Bootstrap,
            Trigger::Acquire => *order == Deed::Acquire,
            Trigger::Renew => *order == Deed::Renew,
            Trigger::Release => *order == Deed::Release,
            Trigger::Read => *order == Deed::ReadCluster,
            Trigger::Failsafe => *order == Deed::AskFailsafe,
            Trigger::WriteFailsafe => *order == Deed::WriteFailsafe,
            Trigger::History => *order == Deed::WriteHistory,
            Trigger::Member => *order == Deed::WriteMember,
            Trigger::Checkpoint => *order == Deed::Checkpoint,
            Trigger::Probe => *order == Deed::Probe,
            Trigger::AskPeers => *order == Deed::AskPeers,
            Trigger::Deadline => *order == Deed::SetDeadline,
            _ => false,
        };
    }
    match when {
        Trigger::LockLost => matches!(seen, Seen::LockLost { .. } | Seen::LockReleased { .. }),
        Trigger::LockTaken => matches!(seen, Seen::LockTaken { .. }),
        Trigger::LockReleased => matches!(seen, Seen::LockReleased { .. }),
        Trigger::Promoted => matches!(seen, Seen::Promoted { .. }),
        Trigger::Stopped => matches!(
            seen,
            Seen::Ended {
                how: End::FastStop | End::ImmediateStop,
                ..
            }
        ),
        Trigger::Started => matches!(seen, Seen::Up { .. }),
        Trigger::Rewound => matches!(
            seen,
            Seen::Rebuilt {
                how: Rebuild::Rewind,
                ..
            }
        ),
        Trigger::Cloned => matches!(
            seen,
            Seen::Rebuilt {
                how: Rebuild::Clone,
                ..
            }
        ),
        Trigger::Granted => matches!(seen, Seen::Granted { .. }),
        _ => false,
    }
}
