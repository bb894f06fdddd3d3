//! What one seed in tens of thousands showed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use surus_core::config::Config;
use surus_core::input::{Input, Outcome, RequestId};
use surus_core::node::Boot;
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Lane, Order};

use crate::first::leading;
use crate::heritage::{lived, vacated, with_a_third};
use crate::news::takes;
use crate::story::*;

/// How much longer `a`, whose own ttl is `own` and whose view claims one of 5 s, is kept from the lock by a grant for `asked`.
fn promised(own: u64, asked: Option<u64>) -> Duration {
    let mut story = Story::new(Config {
        ttl: Duration::from_secs(own),
        ..Config::new("a".into())
    });
    story.read(view(10, Some("b"), 9));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.hear(Input::FailsafeAsked {
        request: RequestId(1),
        leader: "b".into(),
        ttl: asked.map(Duration::from_secs),
    });
    let reply = story.given.iter().find_map(|order| match order {
        Order::Reply { ok, .. } => Some(*ok),
        _ => None,
    });
    assert_eq!(reply, Some(true));
    let surus_core::state::Promise { to, until, .. } =
        story.node.explain().state.promise.clone().expect("it granted");
    assert_eq!(to, "b".into());
    until.since(MonoTime::from_millis(story.now))
}

#[test]
fn a_grant_binds_for_what_it_was_asked_for_and_for_what_is_known() {
    let with_drift = Config::foreign_right;
    assert_eq!(promised(5, Some(8)), with_drift(Duration::from_secs(8)));
    assert_eq!(promised(5, Some(3)), with_drift(Duration::from_secs(5)));
    assert_eq!(promised(6, Some(3)), with_drift(Duration::from_secs(6)));
    // Patroni does not say.
    assert_eq!(promised(6, None), with_drift(Duration::from_secs(6)));
    assert_eq!(promised(3, None), with_drift(Duration::from_secs(5)));
}

/// `a`, which leads with `b` and an etcd that is silent, up to its question for grants; what it asked for.
fn asks(mut story: Story) -> (Story, Duration) {
    for _ in 0..12 {
        story.later(500);
        if let Some(Order::AskFailsafe { ttl, .. }) = story.under_way(Lane::Failsafe) {
            let ttl = *ttl;
            return (story, ttl);
        }
    }
    panic!("it asks nobody");
}

fn with_list(mut view: ClusterView) -> ClusterView {
    let list = ["a", "b"].map(|name| (NodeName::from(name), format!("http://{name}")));
    view.failsafe = Some(Arc::new(BTreeMap::from(list)));
    view
}

#[test]
fn grants_are_asked_for_the_ttl_that_the_right_is_reckoned_by() {
    let mut story = leading(Config::new("a".into()));
    story.read(with_list(view(20, Some("a"), 11)));
    // A longer one was set, and no renewal has told anybody: one who granted, and was restarted, would not know it.
    story.hear(Input::Config(Config {
        ttl: Duration::from_secs(9),
        ..Config::new("a".into())
    }));
    let (mut story, ttl) = asks(story);
    assert_eq!(ttl, Duration::from_secs(5));
    let outcome = Outcome::Failsafe {
        sent: MonoTime::from_millis(story.now),
        granted: BTreeSet::from(["b".into()]),
        refused: BTreeSet::new(),
    };
    story.done(Lane::Failsafe, outcome);
    assert_eq!(story.right_left(), Config::right(Duration::from_secs(5)));
}

#[test]
fn an_unfenced_server_of_the_agent_before_may_still_become_a_primary() {
    let paused = Config {
        pause: true,
        ..Config::new("a".into())
    };
    let mut story = Story::new(paused);
    let mut view = view(10, Some("a"), 9);
    if let Some(status) = &mut view.status {
        Arc::make_mut(status).unfenced = Some("a".into());
    }
    story.read(view);
    story.locked(11);
    // Its promotion was asked for before this agent began, and hangs.
    story.probed(
        Process::Unresponsive { may_write: false },
        ControlState::InArchiveRecovery,
    );
    for revision in 12..15 {
        story.later(1000);
        let says = match story.under_way(Lane::Lock) {
            Some(Order::Renew { status, .. }) => Some(status.unfenced),
            _ => None,
        };
        assert_eq!(says, Some(true));
        story.locked(revision);
    }
}

/// M-10: a host that is lost is replaced after a ttl; a server that is frozen was given one, counted from when a look at it had failed.
#[test]
fn a_primary_that_does_not_answer_is_replaced_as_soon_as_a_lost_host() {
    let mut story = leading(Config::new("a".into()));
    story.done(Lane::Guard, Outcome::Ok);
    let (mut asked, mut first) = (None, None);
    for revision in 30.. {
        story.later(100);
        if story.orders.contains_key(&Lane::Lock) {
            story.locked(revision);
        }
        if matches!(story.under_way(Lane::Postgres), Some(Order::Stop { .. })) {
            break;
        }
        if story.orders.contains_key(&Lane::Probe) {
            let began = *asked.get_or_insert(story.now);
            // A look that is not answered takes a while to say so.
            if began + 1500 <= story.now {
                let at = MonoTime::from_millis(began);
                let known = story.node.explain().facts.postgres.clone();
                let view = PostgresView {
                    process: Process::Unresponsive { may_write: true },
                    ..known.expect("it has been looked at").value
                };
                (asked, first) = (None, first.or(Some(began)));
                story.done(Lane::Probe, Outcome::Probed { at, view });
            }
        }
        assert!(story.now < 130_000, "it is never stopped");
    }
    let silent = story.now - first.expect("a look was not answered");
    assert!((3333..3500).contains(&silent), "stopped after {silent} ms");
}

#[test]
fn a_start_that_a_stop_overtook_keeps_its_deadline() {
    let mut story = leading(Config::new("a".into()));
    story.done(Lane::Guard, Outcome::Ok);
    story.probed(Process::Absent, ControlState::InProduction);
    while !matches!(story.under_way(Lane::Postgres), Some(Order::StartPrimary { .. })) {
        story.probed(Process::Absent, ControlState::InProduction);
    }
    // Nothing is heard of it, nor of etcd, until the right is about to end.
    while !matches!(story.under_way(Lane::Postgres), Some(Order::Stop { .. })) {
        assert!(story.now < 120_000, "it is never stopped");
        if story.orders.contains_key(&Lane::Guard) {
            story.done(Lane::Guard, Outcome::Ok);
        }
        story.later(100);
    }
    story.later(100);
    assert!(!matches!(
        story.under_way(Lane::Guard),
        Some(Order::SetDeadline(None))
    ));
}

#[test]
fn a_member_whose_key_vanished_writes_it_anew_at_once() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(10, Some("b"), 9));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.done(Lane::Publish, Outcome::Ok);
    let mut without = view(11, Some("b"), 9);
    without.members.remove(&NodeName::from("a"));
    story.hear(Input::Cluster(without));
    assert!(matches!(
        story.under_way(Lane::Publish),
        Some(Order::WriteMember(_))
    ));
}

#[test]
fn what_the_order_that_took_the_lock_reserved_is_not_unsaid() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(10, Some("b"), 9));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.done(Lane::Guard, Outcome::Ok);
    // The first attempt took it, and its answer was lost: the next one tells only that the lock is held.
    takes(&mut story, &view(11, None, 9), false);
    let next = |order: &Order| match order {
        Order::Acquire { status, .. } | Order::Renew { status, .. } => status.next,
        _ => None,
    };
    let mut last = None;
    for _ in 0..8 {
        if let Some(order @ (Order::Acquire { .. } | Order::Renew { .. })) = story.under_way(Lane::Lock) {
            assert!(last <= next(order), "{last:?} {order:?}");
            last = next(order);
            story.done(Lane::Lock, Outcome::Unknown("no answer".to_owned()));
        }
        story.later(1000);
    }
    assert!(Some(Timeline(2)) <= last);
}

/// 7100981: an agent was killed over a promotion that took long. The next one ordered another, which failed at once; it gave the lock back as
/// vacated, and the first promotion came to pass.
#[test]
fn a_promotion_that_fails_says_nothing_of_the_one_before() {
    let fenced = Boot {
        guard_deadline: Some(MonoTime::from_millis(110_000)),
        ..Boot::default()
    };
    let mut story = Story::begun(Config::new("a".into()), fenced);
    let mut reserved = view(10, Some("a"), 9);
    let next = reserved.status.as_mut().map(Arc::make_mut);
    next.expect("a status").next = Some(Timeline(2));
    story.read(reserved);
    story.locked(11);
    story.probed(replica(), ControlState::InArchiveRecovery);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Promote { .. })
    ));
    story.done(
        Lane::Postgres,
        Outcome::Failed("it did not take effect".to_owned()),
    );
    story.probed(replica(), ControlState::InArchiveRecovery);
    assert!(
        matches!(story.under_way(Lane::Postgres), Some(Order::Stop { .. })),
        "{:?}",
        story.given
    );
    let released = |order: &Order| matches!(order, Order::Release { .. });
    assert!(!story.given.iter().any(released));
}

/// 6521510: a switchover that had waited in etcd stopped a primary in the instant of its promotion. Its standbys were still connected, with the
/// timeline before, so that none of them got the shutdown checkpoint: ten seconds without a primary.
#[test]
fn a_primary_hands_over_to_who_has_come_to_its_timeline() {
    let mut story = leading(Config::new("a".into()));
    story.done(Lane::Guard, Outcome::Ok);
    let serving = |position| {
        serves(position, |server| {
            server.timeline = Timeline(2);
            server.history = vec![line(1, 900)];
        })
    };
    let mut asked = view(20, Some("a"), 11);
    asked.members = [member("a", "primary"), member("b", "replica")].into();
    asked.failover = Some(FailoverKey {
        leader: Some("a".into()),
        candidate: Some("b".into()),
        due: Due::Now,
        revision: Revision(20),
    });
    story.probed(serving(900), ControlState::InProduction);
    story.hear(Input::Cluster(asked));
    story.probed(serving(900), ControlState::InProduction);
    let ends = |order: &Order| matches!(order, Order::Stop { .. } | Order::ClearFailover(_));
    assert!(!story.given.iter().any(ends), "{:?}", story.given);
    story.probed(serving(950), ControlState::InProduction);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Stop { .. } | Order::Checkpoint)
    ));
}

/// 15518233: etcd had no space when all keys vanished, so nobody could write its own anew; the first to get the lock when there was space was
/// not the best one.
#[test]
fn a_member_whose_key_vanished_is_waited_for_while_etcd_refuses_to_write_it() {
    let (mut story, _) = with_a_third();
    let mut free = vacated(20, lived(1, 900));
    free.members = BTreeMap::new();
    story.hear(Input::Cluster(free.clone()));
    let later = |story: &mut Story, space: bool| {
        story.later(100);
        if story.orders.contains_key(&Lane::Publish) {
            let refused = Outcome::Failed("etcd has no space".to_owned());
            story.done(Lane::Publish, if space { Outcome::Ok } else { refused });
        }
        if story.orders.contains_key(&Lane::Read) {
            story.read(free.clone());
        }
        story.orders.contains_key(&Lane::Lock)
    };
    let waits = (0..40).all(|_| !later(&mut story, false));
    assert!(waits, "c cannot write its key either");
    // There is space, and `c` is not back within half a second.
    let waited = (0..20).take_while(|_| !later(&mut story, true)).count();
    assert!((5..10).contains(&waited), "{waited}");
}
