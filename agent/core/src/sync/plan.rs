//! One write after another, so that the two sides meet at every instant, whatever becomes of each.
//!
//! Let K be the key as it stands and N the setting. Commits return by N and, until N is *confirmed*, by whatever was set before as well; the
//! key met all of that when it was written, or it would not stand. So:
//!
//! - the setting may be changed to anything that K meets;
//! - the key may be changed to one by which nobody can be elected who could not be by K;
//! - once N is confirmed (each process waits by it, and as many standbys as it demands have what was committed before), the key may be
//!   changed to anything that meets N.
//!
//! A write of the setting whose answer is lost has been made or not; both are states from which these rules lead on. One of the key may
//! besides arrive later, and until then nothing may rest on what stands there; so the key is written again first, which makes the former
//! write void. A leader that begins knows K from etcd, and has N not confirmed. When nothing else leads on, nobody is to be elected for
//! the moment but the leader: that meets everything.

use std::collections::BTreeSet;

use super::{Names, SyncKey};
use crate::types::NodeName;
use crate::zoo::{Flaw, lacks};

/// How things stand.
#[derive(Debug, Clone, Copy)]
pub struct Present<'a> {
    /// The primary, which asks.
    pub me: &'a NodeName,
    /// The key.
    pub key: Option<&'a SyncKey>,
    /// A write of the key may still arrive.
    pub doubt: bool,
    /// The setting, as the server says.
    pub names: &'a Names,
    /// The setting is in force in every process.
    pub in_force: bool,
    /// And as many standbys as it demands have what was committed before.
    pub confirmed: bool,
    /// As many standbys as the setting demands stream, so that it can be confirmed.
    pub confirmable: bool,
}

/// How things should stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The key.
    pub key: SyncKey,
    /// The setting.
    pub names: Names,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: everything is as it should be.
    Rest,
    /// The setting is not confirmed yet.
    Await,
    /// Write the key.
    Key(SyncKey),
    /// Write the setting (again, to know that it is in force).
    Names(Names),
}

/// What the key must be before a server of this node's reign is started as primary or promoted; `None`: it is.
///
/// Nobody but this node may be elected then. For what others wrote there is the word of a former leader; and after a crash or a promotion
/// commits are visible that were never acknowledged and that no standby need have: whoever is named later has what is in the log by then.
#[must_use]
pub fn before_writable(me: &NodeName, key: Option<&SyncKey>, doubt: bool) -> Option<SyncKey> {
    let alone = SyncKey::alone(me.clone());
    let again = doubt && !lacks(Flaw::SyncDoubtIgnored);
    (key != Some(&alone) && !lacks(Flaw::PromotedUnnamed) || again).then_some(alone)
}

/// The next step towards `target`.
#[must_use]
pub fn next(now: &Present<'_>, target: &Target) -> Step {
    let step = towards(now, target);
    match (&step, now.key) {
        (Step::Rest | Step::Await | Step::Names(_), Some(key))
            if now.doubt && !lacks(Flaw::SyncDoubtIgnored) =>
        {
            Step::Key(key.clone())
        }
        _ => step,
    }
}

fn towards(now: &Present<'_>, target: &Target) -> Step {
    let alone = || SyncKey::alone(now.me.clone());
    let wanted = &target.key;
    let Some(key) = now
        .key
        .filter(|key| key.leader == *now.me && key.meets(now.names))
    else {
        // Everybody may be elected, or whoever a former leader named: it begins with the least.
        return Step::Key(alone());
    };
    if key != wanted && allowed(now, key, wanted) {
        return Step::Key(wanted.clone());
    }
    if *now.names == target.names {
        return match (key == wanted, now.in_force) {
            (true, _) => Step::Rest,
            (false, true) => Step::Await,
            (false, false) => Step::Names(target.names.clone()),
        };
    }
    if key.meets(&target.names) || lacks(Flaw::SyncNamesFirst) {
        return Step::Names(target.names.clone());
    }
    if !now.confirmed && now.confirmable {
        // With what is set confirmed there is a way on which somebody may be elected all the time.
        return if now.in_force {
            Step::Await
        } else {
            Step::Names(now.names.clone())
        };
    }
    Step::Key(between(now, key, target).unwrap_or_else(alone))
}

/// The key may be changed to `wanted` now.
fn allowed(now: &Present<'_>, key: &SyncKey, wanted: &SyncKey) -> bool {
    let confirmed = now.confirmed || lacks(Flaw::SyncUnconfirmed);
    wanted.within(key) || confirmed && wanted.meets(now.names) || lacks(Flaw::SyncKeyFirst)
}

/// A key that meets what is set and what is to be set, by which somebody may be elected.
fn between(now: &Present<'_>, key: &SyncKey, target: &Target) -> Option<SyncKey> {
    let (Names::Some(old), Names::Some(new)) = (now.names, &target.names) else {
        return None;
    };
    let voters: BTreeSet<NodeName> = if new.any {
        old.of.union(&new.of).cloned().collect()
    } else {
        old.of.intersection(&new.of).cloned().collect()
    };
    let quorum = if new.any {
        voters.len().saturating_sub(old.number.min(new.number))
    } else {
        0
    };
    let leader = now.me.clone();
    let between = SyncKey {
        leader,
        voters,
        quorum,
    };
    let fits = between != *key && between.meets(&target.names) && allowed(now, key, &between);
    (fits && !between.voters.is_empty()).then_some(between)
}
