//! What both sides should be: by who streams, by the members' tags, and by the settings.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::plan::Target;
use super::{Mode, Names, Settings, SyncKey};
use crate::types::{Lsn, NodeName};

/// A standby that could acknowledge commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: NodeName,
    /// How far it is.
    pub position: Lsn,
    /// Its tag `sync_priority`; higher comes first.
    pub priority: u32,
    /// It may not be elected, so it counts only where others are too few.
    pub nofailover: bool,
}

/// What `settings`, of a mode that is on, want with these candidates, for a leader whose position is `written`.
///
/// Who is a voter stays one rather than another of the same tag. With nobody to acknowledge, commits return by the primary alone; in strict
/// mode what is set stays.
#[must_use]
pub fn target(
    settings: &Settings,
    me: &NodeName,
    key: Option<&SyncKey>,
    names: &Names,
    written: Lsn,
    mut candidates: Vec<Candidate>,
) -> Target {
    let any = settings.mode == Mode::Quorum;
    let votes = |name: &NodeName| key.is_some_and(|key| key.voters.contains(name));
    drop_lagging(settings, written, &mut candidates);
    candidates.sort_by(|one, other| {
        let order = |candidate: &Candidate| {
            (
                candidate.nofailover,
                Reverse(candidate.priority),
                !votes(&candidate.name),
                Reverse(candidate.position),
                candidate.name.clone(),
            )
        };
        order(one).cmp(&order(other))
    });
    let electable = candidates
        .iter()
        .filter(|candidate| !candidate.nofailover)
        .count();
    let enough = settings.count.min(candidates.len());
    let chosen = if any { electable.max(enough) } else { enough };
    let number = settings.count.min(chosen);
    let of: BTreeSet<NodeName> = candidates.into_iter().take(chosen).map(|one| one.name).collect();
    if of.is_empty() {
        return nobody(settings, me, key, names);
    }
    let quorum = if any { of.len() - number } else { 0 };
    Target {
        key: SyncKey {
            leader: me.clone(),
            voters: of.clone(),
            quorum,
        },
        names: Names::some(any, number, of),
    }
}

fn nobody(settings: &Settings, me: &NodeName, key: Option<&SyncKey>, names: &Names) -> Target {
    let kept = key.filter(|key| settings.strict && key.leader == *me && key.meets(names));
    match (kept, names) {
        (Some(key), Names::Some(_)) => Target {
            key: key.clone(),
            names: names.clone(),
        },
        _ => Target {
            key: SyncKey::alone(me.clone()),
            names: settings.alone(),
        },
    }
}

/// Leaves those out that lag more behind the best than the settings allow; a single one is compared with the primary.
fn drop_lagging(settings: &Settings, written: Lsn, candidates: &mut Vec<Candidate>) {
    let Some(limit) = settings.maximum_lag else {
        return;
    };
    let best = match candidates.as_slice() {
        [_] => Some(written),
        some => some.iter().map(|candidate| candidate.position).max(),
    };
    let best = best.unwrap_or_default();
    candidates.retain(|candidate| best.ahead_of(candidate.position) <= limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str) -> Candidate {
        Candidate {
            name: name.into(),
            position: Lsn(1000),
            priority: 1,
            nofailover: false,
        }
    }

    fn set(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| NodeName::from(*name)).collect()
    }

    fn key(voters: &[&str], quorum: usize) -> SyncKey {
        SyncKey {
            leader: "a".into(),
            voters: set(voters),
            quorum,
        }
    }

    fn wanted(
        settings: Settings,
        former: Option<&SyncKey>,
        candidates: Vec<Candidate>,
    ) -> (Vec<String>, usize, String) {
        let target = target(
            &settings,
            &"a".into(),
            former,
            &Names::Alone,
            Lsn(1000),
            candidates,
        );
        let key = target.key;
        assert!(key.meets(&target.names), "{key:?} {}", target.names);
        let voters = key.voters.iter().map(|name| name.0.clone()).collect();
        (voters, key.quorum, target.names.to_string())
    }

    #[test]
    fn each_mode_chooses_in_its_way() {
        let on = Settings {
            mode: Mode::On,
            ..Settings::default()
        };
        let quorum = Settings {
            mode: Mode::Quorum,
            ..Settings::default()
        };
        let two = |settings: Settings| Settings { count: 2, ..settings };
        let all = || vec![candidate("b"), candidate("c"), candidate("d")];
        let voters = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(wanted(on, None, all()), (voters(&["b"]), 0, "b".to_owned()));
        let sticky = key(&["d"], 0);
        assert_eq!(
            wanted(on, Some(&sticky), all()),
            (voters(&["d"]), 0, "d".to_owned())
        );
        assert_eq!(
            wanted(two(on), None, all()),
            (voters(&["b", "c"]), 0, "2 (b,c)".to_owned())
        );
        assert_eq!(
            wanted(quorum, None, all()),
            (voters(&["b", "c", "d"]), 2, "ANY 1 (b,c,d)".to_owned())
        );
        assert_eq!(
            wanted(two(quorum), None, all()),
            (voters(&["b", "c", "d"]), 1, "ANY 2 (b,c,d)".to_owned())
        );
        assert_eq!(
            wanted(two(quorum), None, vec![candidate("b")]),
            (voters(&["b"]), 0, "ANY 1 (b)".to_owned())
        );
    }

    #[test]
    fn tags_and_lag_count() {
        let on = Settings {
            mode: Mode::On,
            maximum_lag: Some(100),
            ..Settings::default()
        };
        let preferred = Candidate {
            priority: 2,
            ..candidate("d")
        };
        let lagging = Candidate {
            position: Lsn(800),
            priority: 9,
            ..candidate("e")
        };
        let never = Candidate {
            nofailover: true,
            priority: 9,
            ..candidate("f")
        };
        let all = vec![candidate("b"), preferred, lagging.clone(), never.clone()];
        assert_eq!(wanted(on, None, all).0, ["d"]);
        assert_eq!(wanted(on, None, vec![never.clone()]).0, ["f"]);
        assert_eq!(wanted(on, None, vec![lagging]), (Vec::new(), 0, String::new()));
        let quorum = Settings {
            mode: Mode::Quorum,
            count: 2,
            ..on
        };
        let few = vec![candidate("b"), never.clone()];
        assert_eq!(wanted(quorum, None, few).0, ["b", "f"]);
        let enough = vec![candidate("b"), candidate("c"), never];
        assert_eq!(wanted(quorum, None, enough).0, ["b", "c"]);
    }

    #[test]
    fn strict_mode_keeps_what_is_set_and_waits() {
        let strict = Settings {
            mode: Mode::On,
            strict: true,
            ..Settings::default()
        };
        let (former, names) = (key(&["b"], 0), Names::some(false, 1, set(&["b"])));
        let kept = target(&strict, &"a".into(), Some(&former), &names, Lsn(0), Vec::new());
        assert_eq!((kept.key, kept.names), (former, names));
        let none = target(&strict, &"a".into(), None, &Names::Alone, Lsn(0), Vec::new());
        assert_eq!(none.names, Names::nobody(false));
    }
}
