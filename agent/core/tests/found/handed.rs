//! What people do in a cluster in which nothing fails, and how long clients wait for it.

use std::sync::Arc;
use std::time::Duration;

use surus_core::config::Config;
use surus_core::input::{Input, OperatorOrder, Outcome, RequestId};
use surus_core::state::Promise;
use surus_core::sync::{Mode, Settings, SyncKey};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Guard, Lane, Order};

use crate::first::leading;
use crate::models::gave;
use crate::story::*;

fn stops(order: &Order) -> bool {
    matches!(order, Order::Stop { .. })
}

fn takes(order: &Order) -> bool {
    matches!(order, Order::Acquire { .. })
}

/// A switchover of `leader` to `candidate`.
fn wish(mut view: ClusterView, leader: &str, candidate: &str) -> ClusterView {
    view.failover = Some(FailoverKey {
        leader: Some(leader.into()),
        candidate: Some(candidate.into()),
        due: Due::Now,
        revision: Revision(20),
    });
    view.failover_revision = Revision(20);
    view
}

/// In quorum mode a key without voters names its leader alone, and whoever was handed the lock could not take it.
#[test]
fn nobody_is_elected_by_votes_that_nobody_has() {
    for voters in [&[][..], &["b"]] {
        let mut story = leading(Config {
            synchronous: Settings {
                mode: Mode::Quorum,
                ..Settings::default()
            },
            ..Config::new("a".into())
        });
        story.finish(Lane::Guard);
        let mut wished = wish(view(20, Some("a"), 11), "a", "b");
        wished.sync = Some(Arc::new(SyncKey {
            leader: "a".into(),
            voters: voters.iter().map(|name| NodeName::from(*name)).collect(),
            quorum: 0,
        }));
        story.hear(Input::Cluster(wished));
        story.later(20);
        story.probed(serves(1000, |_| {}), ControlState::InProduction);
        story.later(20);
        story.finish(Lane::Publish);
        assert_eq!(gave(&story, stops), voters.len());
        let clears = |order: &Order| matches!(order, Order::ClearFailover(_));
        assert_eq!(gave(&story, clears), 1 - voters.len());
    }
}

/// 17000314: nobody took the lock, it came back, and clients were cut off once more for the same wish.
#[test]
fn a_hand_over_that_came_to_nothing_is_not_repeated() {
    let mut story = leading(Config::new("a".into()));
    story.finish(Lane::Guard);
    story.hear(Input::Cluster(wish(view(20, Some("a"), 11), "a", "b")));
    story.later(20);
    story.probed(serves(1000, |_| {}), ControlState::InProduction);
    assert_eq!(gave(&story, stops), 1);
    story.locked_if_asked(21);
    story.stopped(2000);
    let gives_back = |order: &Order| matches!(order, Order::Release { .. });
    for _ in 0..20 {
        let asked = MonoTime::from_millis(story.now);
        let status = Some(answers(1, 2100, None));
        story.hear(Input::Peer {
            name: "b".into(),
            asked,
            status,
        });
        story.later(20);
        story.finish(Lane::Peers);
    }
    assert_eq!(gave(&story, gives_back), 1);
    story.done(Lane::Lock, Outcome::Ok);
    // The one that it was for does not take it, and `a` comes to lead again.
    let mut back = wish(view(40, Some("a"), 40), "a", "b");
    back.leader.as_mut().unwrap().created = Revision(40);
    story.hear(Input::Cluster(back));
    story.later(1000);
    story.locked(41);
    story.probed(serves(2200, |_| {}), ControlState::InProduction);
    for _ in 0..20 {
        story.later(100);
        story.finish(Lane::Publish);
        story.locked_if_asked(42);
    }
    assert_eq!(gave(&story, stops), 1);
    let clears = |order: &Order| matches!(order, Order::ClearFailover(Revision(20)));
    assert_eq!(gave(&story, clears), 1);
}

/// 17000324: `a` had granted its leader to stay while etcd was away; that came back, and the leader handed the lock over.
#[test]
fn a_grant_ends_with_the_reign_that_it_was_for() {
    // What the last word in `status` says, and when it was said: the grant was given at 9.
    for (vacated, at, free) in [
        (Some("b"), 30, true),
        (Some("b"), 9, false),
        (Some("c"), 30, false),
        (None, 30, false),
    ] {
        let mut story = Story::new(Config::new("a".into()));
        story.read(view(10, Some("b"), 9));
        story.probed(replica(), ControlState::InArchiveRecovery);
        let (request, leader, ttl) = (RequestId(1), "b".into(), Some(Duration::from_secs(5)));
        story.hear(Input::FailsafeAsked { request, leader, ttl });
        story.finish(Lane::Reply);
        let left = view(30, None, at);
        story.hear(Input::Cluster(said(left, |status| {
            status.vacated = vacated.map(NodeName::from);
        })));
        let kept = story.node.explain().could_take_lock;
        let promised = matches!(kept, Err(Guard::FailsafePromise { .. }));
        assert_eq!(promised, !free, "{vacated:?} at {at}: {kept:?}");
    }
}

/// A store that was made anew counts from one again: what it says of a reign may be older than the grant.
#[test]
fn a_grant_outlives_the_history_of_the_store() {
    let promise = Promise {
        to: "b".into(),
        until: MonoTime::NEVER,
        status: None,
    };
    let left = said(view(30, None, 30), |status| status.vacated = Some("b".into()));
    assert!(!promise.void(&left));
    let known = Promise {
        status: Some(Revision(29)),
        ..promise
    };
    assert!(known.void(&left));
}

/// 17001194: the candidate of a switchover let an equal of a higher `failover_priority` go first, which left the lock to it for five seconds.
#[test]
fn who_is_named_does_not_wait_for_who_is_preferred() {
    for named in [true, false] {
        let mut story = Story::new(Config::new("a".into()));
        let with = |view: ClusterView| if named { wish(view, "b", "a") } else { view };
        let grown = |revision, leader, status| {
            let mut view = with(view(revision, leader, status));
            view.members.extend([member("c", "replica")]);
            view
        };
        story.read(grown(10, Some("b"), 9));
        story.probed(replica(), ControlState::InArchiveRecovery);
        story.finish(Lane::Guard);
        story.hear(Input::Cluster(said(grown(30, None, 30), |status| {
            status.vacated = Some("b".into());
        })));
        story.later(20);
        if story.orders.contains_key(&Lane::Probe) {
            story.probed(replica(), ControlState::InArchiveRecovery);
        }
        let asked = MonoTime::from_millis(story.now);
        let preferred = PeerStatus {
            failover_priority: 2,
            ..answers(1, 1000, None)
        };
        story.hear(Input::Peer {
            name: "c".into(),
            asked,
            status: Some(preferred),
        });
        story.hear(Input::Peer {
            name: "b".into(),
            asked,
            status: None,
        });
        story.later(20);
        assert_eq!(gave(&story, takes), usize::from(named));
    }
}

/// With a `loop_wait` of 10 s commits waited as long for a standby that was gone, and one that came back protected nothing.
#[test]
fn the_standbys_of_a_synchronous_primary_are_looked_at_every_second() {
    for (mode, expected) in [(Mode::Off, 1), (Mode::On, 10), (Mode::Quorum, 10)] {
        let mut story = leading(Config {
            synchronous: Settings {
                mode,
                ..Settings::default()
            },
            ..usual_paces()
        });
        let looks = |order: &Order| matches!(order, Order::Probe);
        for lane in [Lane::Guard, Lane::Publish, Lane::Synchronous, Lane::Upkeep] {
            story.finish(lane);
        }
        let before = gave(&story, looks);
        for _ in 0..100 {
            story.later(100);
            if story.orders.contains_key(&Lane::Probe) {
                story.probed(primary(), ControlState::InProduction);
            }
        }
        let seen = gave(&story, looks) - before;
        assert!(seen.abs_diff(expected) <= 2, "{mode:?}: {seen}");
    }
}

/// Story F-52: reads had failed while etcd was away, the next was ten seconds off, and who was handed the lock did not take it by the watch alone.
#[test]
fn a_free_lock_is_read_of_at_once_where_the_last_read_is_old() {
    let mut story = Story::new(usual_paces());
    story.read(view(10, Some("b"), 9));
    story.probed(replica(), ControlState::InArchiveRecovery);
    for _ in 0..345 {
        story.later(100);
        if story.orders.contains_key(&Lane::Read) {
            story.done(Lane::Read, Outcome::Failed("etcd is away".to_owned()));
        }
    }
    assert!(!story.orders.contains_key(&Lane::Read));
    story.hear(Input::Cluster(said(view(30, None, 30), |status| {
        status.vacated = Some("b".into());
    })));
    assert!(story.orders.contains_key(&Lane::Read), "it reads at once");
}

/// 17002084: with `primary_start_timeout: 0`, by which a crash fails over at once, a primary that a person restarted was given up as it came up.
#[test]
fn a_restart_is_no_crash() {
    let gives_up = |order: &Order| matches!(order, Order::Stop { .. });
    for asked in [true, false] {
        let mut story = leading(Config {
            primary_start_timeout: Duration::ZERO,
            ..Config::new("a".into())
        });
        story.finish(Lane::Guard);
        if asked {
            let (request, order) = (RequestId(1), OperatorOrder::Restart);
            story.hear(Input::Operator { request, order });
            story.later(20);
            if story.orders.contains_key(&Lane::Probe) {
                story.probed(primary(), ControlState::InProduction);
            }
            story.done(Lane::Postgres, Outcome::Ok);
        }
        let starting = || Process::Starting { as_primary: true };
        for _ in 0..90 {
            story.later(100);
            story.locked_if_asked(20);
            if story.orders.contains_key(&Lane::Probe) {
                story.probed(starting(), ControlState::InProduction);
            }
        }
        assert_eq!(gave(&story, gives_up), usize::from(!asked), "asked: {asked}");
        story.later(2000);
        story.probed(starting(), ControlState::InProduction);
        assert_eq!(gave(&story, gives_up), 1, "it does not come up");
    }
}
