//! What the first fast world found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use surus_core::config::Config;
use surus_core::input::{Input, OperatorOrder, Outcome, RequestId};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Evidence, Lane, Order};

use crate::story::*;

/// `a` as a replica that takes the lock which `b` lost, up to its order to promote.
fn promoting() -> Story {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(10, Some("b"), 9));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.done(Lane::Guard, Outcome::Ok);
    story.hear(Input::Cluster(view(11, None, 9)));
    while !matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. })) {
        assert!(story.now < 120_000, "the lock is never taken");
        story.later(500);
        if story.orders.contains_key(&Lane::Read) {
            story.read(view(11, None, 9));
        }
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: None,
        });
    }
    story.locked(12);
    if !matches!(story.under_way(Lane::Postgres), Some(Order::Promote { .. })) {
        story.probed(replica(), ControlState::InArchiveRecovery);
    }
    story
}

#[test]
fn the_next_timeline_is_reserved_before_it_is_made() {
    let story = promoting();
    let acquire = story.given.iter().find_map(|order| match order {
        Order::Acquire { status, seen, .. } => Some((status.next, *seen)),
        _ => None,
    });
    assert_eq!(acquire, Some((Some(Timeline(2)), Revision(9))));
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Promote {
            above: Timeline(1),
            ..
        })
    ));
}

#[test]
fn a_timeline_that_another_reserved_is_not_made_again() {
    let mut story = Story::new(Config::new("a".into()));
    let mut gone = view(10, None, 9);
    if let Some(status) = &mut gone.status {
        Arc::make_mut(status).next = Some(Timeline(2));
    }
    story.read(gone.clone());
    story.probed(replica(), ControlState::InArchiveRecovery);
    for _ in 0..14 {
        story.later(500);
        if story.orders.contains_key(&Lane::Read) {
            story.read(gone.clone());
        }
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: None,
        });
    }
    let Some(Order::Acquire { status, .. }) = story.under_way(Lane::Lock) else {
        panic!("{:?}", story.given.last());
    };
    assert_eq!(status.next, Some(Timeline(3)));
}

#[test]
fn a_promotion_that_may_still_come_to_pass_is_stopped_before_the_lock_goes() {
    let mut story = promoting();
    story.done(Lane::Postgres, Outcome::Unknown("takes long".to_owned()));
    story.probed(replica(), ControlState::InArchiveRecovery);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Stop { .. })
    ));
    assert!(
        !story
            .given
            .iter()
            .any(|order| matches!(order, Order::Release { .. }))
    );
    assert!(!matches!(
        story.under_way(Lane::Guard),
        Some(Order::SetDeadline(None))
    ));
}

/// `a` as a primary that leads.
pub(crate) fn leading(config: Config) -> Story {
    let mut story = Story::new(config);
    story.read(view(10, Some("a"), 9));
    story.locked(11);
    story.probed(primary(), ControlState::InProduction);
    story
}

#[test]
fn a_right_counts_with_the_ttl_of_its_order() {
    let mut story = leading(Config::new("a".into()));
    story.later(1000);
    assert!(matches!(story.under_way(Lane::Lock), Some(Order::Renew { .. })));
    story.hear(Input::Config(Config {
        ttl: Duration::from_secs(30),
        ..Config::new("a".into())
    }));
    story.locked(13);
    assert!(story.right_left() <= Duration::from_secs(5));
}

/// 3012203: the agent froze between telling of a shorter ttl and telling its guard.
#[test]
fn a_shorter_ttl_is_told_once_the_guard_strikes_within_it() {
    let long = Config {
        ttl: Duration::from_secs(30),
        ..Config::new("a".into())
    };
    let mut story = leading(long);
    let deadline = |story: &mut Story| {
        let told = match story.under_way(Lane::Guard) {
            Some(Order::SetDeadline(Some(deadline))) => Some(*deadline),
            _ => None,
        };
        if story.orders.contains_key(&Lane::Guard) {
            story.done(Lane::Guard, Outcome::Ok);
        }
        told
    };
    let mut strikes = deadline(&mut story).unwrap();
    let began = story.now;
    assert!(Duration::from_secs(28) < story.right_left());
    story.hear(Input::Config(Config::new("a".into())));
    let mut shorter = None;
    for revision in 13..200 {
        story.later(250);
        strikes = deadline(&mut story).unwrap_or(strikes);
        story.probed(primary(), ControlState::InProduction);
        if let Some(Order::Renew { ttl, status, .. }) = story.under_way(Lane::Lock) {
            assert_eq!(*ttl, status.ttl);
            let right = Duration::from_secs(5);
            if *ttl == right {
                assert!(strikes.since(MonoTime::from_millis(story.now)) <= right);
                shorter = shorter.or(Some(story.now));
            }
            story.locked(revision);
        }
    }
    let waited = shorter.unwrap() - began;
    assert!(
        (23_000..30_000).contains(&waited),
        "as the right of before runs out: {waited}"
    );
    assert!(story.right_left() <= Duration::from_secs(5));
}

#[test]
fn who_leads_is_never_cloned_over() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(10, Some("b"), 9));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.hear(Input::Operator {
        request: RequestId(1),
        order: OperatorOrder::Reinitialize {
            force: false,
            from_leader: true,
        },
    });
    story.later(10);
    story.done(Lane::Postgres, Outcome::Stopped { checkpoint: None });
    // Meanwhile the lock came to this node, by an order of before.
    story.hear(Input::Cluster(view(12, Some("a"), 11)));
    story.probed(Process::Absent, ControlState::InArchiveRecovery);
    if story.orders.contains_key(&Lane::Lock) {
        story.locked(13);
    }
    story.later(1000);
    assert!(
        !story
            .given
            .iter()
            .any(|order| matches!(order, Order::BaseBackup { .. }))
    );
}

#[test]
fn the_lock_is_taken_again_after_an_outage_under_failsafe() {
    let mut story = leading(Config::new("a".into()));
    let mut listed = view(14, Some("a"), 9);
    listed.failsafe = Some(Arc::new(BTreeMap::from([
        (NodeName::from("a"), "http://a".to_owned()),
        (NodeName::from("b"), "http://b".to_owned()),
    ])));
    story.read(listed.clone());
    for _ in 0..8 {
        story.later(500);
        if let Some(Order::AskFailsafe { .. }) = story.under_way(Lane::Failsafe) {
            let outcome = Outcome::Failsafe {
                sent: MonoTime::from_millis(story.now),
                granted: BTreeSet::from([NodeName::from("b")]),
                refused: BTreeSet::new(),
            };
            story.done(Lane::Failsafe, outcome);
        }
    }
    if story.orders.contains_key(&Lane::Lock) {
        story.done(Lane::Lock, Outcome::NotLocked { holder: None });
    }
    listed.leader = None;
    listed.revision = Revision(20);
    story.hear(Input::Cluster(listed));
    story.later(300);
    assert!(matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. })));
}

#[test]
fn no_second_cluster_is_created_beside_one_that_has_lived() {
    let mut story = Story::new(Config::new("a".into()));
    let mut claimed = view(10, None, 9);
    claimed.initialize = Some(Initialize::InProgress);
    story.read(claimed.clone());
    story.later(1000);
    let at = MonoTime::from_millis(story.now);
    let empty = PostgresView {
        data: DataDir::Empty,
        process: Process::Absent,
    };
    story.done(Lane::Probe, Outcome::Probed { at, view: empty });
    for _ in 0..30 {
        story.later(500);
        if story.orders.contains_key(&Lane::Read) {
            story.read(claimed.clone());
        }
    }
    assert!(
        !story
            .given
            .iter()
            .any(|order| matches!(order, Order::Acquire { .. }))
    );
}

#[test]
fn an_older_timeline_takes_no_lock_in_a_pause() {
    let mut story = Story::new(Config {
        pause: true,
        ..Config::new("a".into())
    });
    let mut free = view(10, None, 9);
    if let Some(status) = &mut free.status {
        Arc::make_mut(status).timeline = Some(Timeline(2));
    }
    story.read(free.clone());
    story.probed(primary(), ControlState::InProduction);
    for _ in 0..20 {
        story.later(500);
        if story.orders.contains_key(&Lane::Read) {
            story.read(free.clone());
        }
    }
    assert!(
        !story
            .given
            .iter()
            .any(|order| matches!(order, Order::Acquire { .. }))
    );
}

fn paused() -> Config {
    Config {
        pause: true,
        ..Config::new("a".into())
    }
}

/// What the renewal under way would write to `status` about the guard's deadline.
fn renewal_says_unfenced(story: &Story) -> Option<bool> {
    match story.under_way(Lane::Lock) {
        Some(Order::Renew { status, .. }) => Some(status.unfenced),
        _ => None,
    }
}

fn lifts(story: &Story) -> bool {
    matches!(story.under_way(Lane::Guard), Some(Order::SetDeadline(None)))
}

#[test]
fn a_deadline_is_lifted_in_a_pause_only_when_status_says_so() {
    let mut story = leading(Config::new("a".into()));
    story.done(Lane::Guard, Outcome::Ok);
    // Nothing that was left without an answer by an agent before this one can arrive any more.
    for _ in 0..10 {
        story.later(1000);
        story.locked(12);
        if story.orders.contains_key(&Lane::Guard) {
            story.done(Lane::Guard, Outcome::Ok);
        }
    }
    story.hear(Input::Config(paused()));
    assert!(!lifts(&story));
    story.later(1000);
    assert!(!lifts(&story));
    assert_eq!(renewal_says_unfenced(&story), Some(true));
    story.locked(13);
    if !lifts(&story) {
        story.done(Lane::Guard, Outcome::Ok);
    }
    assert!(lifts(&story));
    story.done(Lane::Guard, Outcome::Ok);

    // The pause ends: the deadline is back before anything else is said.
    story.hear(Input::Config(Config::new("a".into())));
    assert!(matches!(
        story.under_way(Lane::Guard),
        Some(Order::SetDeadline(Some(_)))
    ));
    story.later(1000);
    assert_eq!(renewal_says_unfenced(&story), Some(true));
    story.done(Lane::Guard, Outcome::Ok);
    story.locked(14);
    story.later(1000);
    assert_eq!(renewal_says_unfenced(&story), Some(false));
}

#[test]
fn nobody_but_a_person_takes_the_lock_of_a_primary_without_a_deadline() {
    let mut story = Story::new(Config::new("a".into()));
    let mut gone = view(10, None, 9);
    if let Some(status) = &mut gone.status {
        Arc::make_mut(status).unfenced = Some("b".into());
    }
    story.read(gone.clone());
    story.probed(replica(), ControlState::InArchiveRecovery);
    let wait = |story: &mut Story, view: &ClusterView| {
        for _ in 0..40 {
            story.later(500);
            if story.orders.contains_key(&Lane::Read) {
                story.read(view.clone());
            }
            story.hear(Input::Peer {
                name: "b".into(),
                asked: MonoTime::from_millis(story.now),
                status: None,
            });
        }
    };
    wait(&mut story, &gone);
    assert!(!story.orders.contains_key(&Lane::Lock));
    assert_eq!(
        story
            .node
            .explain()
            .could_take_lock
            .err()
            .map(|guard| guard.code()),
        Some("unfenced")
    );

    gone.revision = Revision(11);
    gone.failover = Some(FailoverKey {
        leader: None,
        candidate: Some("a".into()),
        due: Due::Now,
        revision: Revision(11),
    });
    wait(&mut story, &gone);
    assert!(matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. })));
    let explained = story.node.explain();
    let because = &explained.decision.expect("it takes the lock").because;
    assert!(because.contains(&Evidence::Forced), "{because:?}");
}
