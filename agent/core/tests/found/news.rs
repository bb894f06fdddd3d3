//! What a node says of itself when it cannot see, and whom it believes.

use std::sync::Arc;
use std::time::Duration;

use surus_core::config::Config;
use surus_core::input::{Input, Outcome};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Lane, Order};

use crate::first::leading;
use crate::story::*;

/// The renewal under way, as soon as there is one.
fn renewal(story: &mut Story) -> Order {
    for _ in 0..10 {
        if let Some(order @ Order::Renew { .. }) = story.under_way(Lane::Lock) {
            return order.clone();
        }
        story.later(300);
    }
    panic!("no renewal");
}

#[test]
fn a_renewal_is_void_once_status_has_moved_since_it_was_composed() {
    let mut story = leading(Config::new("a".into()));
    let Order::Renew { seen, .. } = renewal(&mut story) else {
        unreachable!()
    };
    story.locked(40);
    let Order::Renew { seen: next, .. } = renewal(&mut story) else {
        unreachable!()
    };
    assert!(seen < Revision(40));
    assert_eq!(next, Revision(40));
}

#[test]
fn a_renewal_that_wrote_nothing_reserves_no_timeline_and_announces_nothing() {
    let mut story = leading(Config::new("a".into()));
    story.done(Lane::Guard, Outcome::Ok);
    renewal(&mut story);
    story.locked(40);
    story.hear(Input::Config(Config {
        pause: true,
        ..Config::new("a".into())
    }));
    let Order::Renew { status, .. } = renewal(&mut story) else {
        unreachable!()
    };
    assert!(status.unfenced);
    // etcd has no space: the lock is confirmed by a read.
    story.done(
        Lane::Lock,
        Outcome::Locked {
            sent: MonoTime::from_millis(story.now),
            lease: LeaseId(7),
            term: Term(1),
            revision: Revision(50),
            written: None,
        },
    );
    for _ in 0..4 {
        if story.orders.contains_key(&Lane::Guard) {
            story.done(Lane::Guard, Outcome::Ok);
        }
        story.later(100);
    }
    let lifted = |order: &Order| matches!(order, Order::SetDeadline(None));
    assert!(!story.given.iter().any(lifted), "nobody has been told");
    let Order::Renew { seen, .. } = renewal(&mut story) else {
        unreachable!()
    };
    assert_eq!(seen, Revision(40), "what was read is not what was written");
}

#[test]
fn a_primary_that_cannot_be_seen_is_where_it_was_last_seen() {
    let mut story = leading(Config::new("a".into()));
    let written = ServerRole::Primary { written: Lsn(5000) };
    story.probed(server(written), ControlState::InProduction);
    renewal(&mut story);
    story.locked(40);
    story.probed(Process::Starting { as_primary: true }, ControlState::InProduction);
    let Order::Renew { status, .. } = renewal(&mut story) else {
        unreachable!()
    };
    assert_eq!((status.optime, status.timeline), (Lsn(5000), Some(Timeline(1))));
}

#[test]
fn a_ttl_as_short_as_a_round_is_renewed_in_time() {
    let config = Config {
        ttl: Duration::from_secs(3),
        loop_wait: Duration::from_secs(3),
        ..Config::new("a".into())
    };
    assert_eq!(config.round(), Duration::from_secs(1));
    let mut story = leading(config);
    for revision in 40..60 {
        renewal(&mut story);
        story.locked(revision);
        assert!(
            Duration::from_millis(900) < story.right_left(),
            "no stop is begun"
        );
    }
}

/// The cluster of `a`, `b` (the leader) and `c`, whose key says this.
fn with_c(revision: i64, timeline: u32, position: u64) -> ClusterView {
    let mut view = view(revision, Some("b"), revision);
    let (name, member) = member("c", "replica");
    let member = Member {
        clonefrom: true,
        timeline: Some(Timeline(timeline)),
        position: Some(Lsn(position)),
        ..Arc::unwrap_or_clone(member)
    };
    view.members.insert(name, Arc::new(member));
    view
}

fn follows(story: &mut Story, view: ClusterView) -> Option<NodeName> {
    story.given.clear();
    story.read(view);
    for _ in 0..3 {
        story.probed(
            server(ServerRole::Replica {
                received: Some(Lsn(5 << 20)),
                replayed: Lsn(5 << 20),
                streaming: false,
            }),
            ControlState::InArchiveRecovery,
        );
        if story.orders.contains_key(&Lane::Postgres) {
            story.done(Lane::Postgres, Outcome::Ok);
        }
    }
    story.given.iter().find_map(|order| match order {
        Order::Follow { upstream } => upstream.as_ref().map(|upstream| upstream.name.clone()),
        _ => None,
    })
}

#[test]
fn a_replica_does_not_wait_for_an_upstream_that_is_far_behind_it() {
    let mut story = Story::new(Config {
        replicate_from: Some("c".into()),
        ..Config::new("a".into())
    });
    let near = with_c(10, 1, (5 << 20) - 100);
    assert_eq!(follows(&mut story, near), Some("c".into()));
    let far = with_c(20, 1, 3 << 20);
    assert_ne!(follows(&mut story, far), Some("c".into()));
}

#[test]
fn what_the_leader_itself_told_of_its_timeline_counts_for_a_clone() {
    let mut story = Story::new(Config {
        reclone_on_divergence: true,
        ..Config::new("a".into())
    });
    // Neither `status` nor the key of the leader, whose PostgreSQL has just ended, tells of its timeline 2.
    story.read(with_c(10, 1, 900));
    story.probed(Process::Absent, ControlState::InProduction);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::CompareHistory { .. })
    ));
    story.done(
        Lane::Postgres,
        Outcome::Ancestry {
            timeline: Timeline(2),
            history: vec![line(1, 500)],
        },
    );
    let mut later = with_c(20, 1, 900);
    for member in later.members.values_mut() {
        if member.role == "primary" {
            let member = Arc::make_mut(member);
            member.state = "crashed".to_owned();
            member.timeline = None;
        }
    }
    story.read(later);
    story.probed(Process::Absent, ControlState::InProduction);
    let clones = |order: &Order| matches!(order, Order::BaseBackup { .. });
    assert!(
        !story.given.iter().any(clones),
        "from a member that is no further than the node itself"
    );
}

#[test]
fn the_deadline_of_a_promotion_that_failed_follows_the_right_while_postgres_is_silent() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(10, None, 9));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.done(Lane::Guard, Outcome::Ok);
    for _ in 0..40 {
        if story.orders.contains_key(&Lane::Lock) {
            break;
        }
        story.later(500);
        if story.orders.contains_key(&Lane::Read) {
            story.read(view(10, None, 9));
        }
        if story.orders.contains_key(&Lane::Probe) {
            story.probed(replica(), ControlState::InArchiveRecovery);
        }
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: None,
        });
    }
    story.locked(20);
    let deadline = |story: &Story| match story.under_way(Lane::Guard) {
        Some(Order::SetDeadline(Some(deadline))) => Some(*deadline),
        _ => None,
    };
    while !matches!(story.under_way(Lane::Postgres), Some(Order::Promote { .. })) {
        story.probed(replica(), ControlState::InArchiveRecovery);
    }
    let first = deadline(&story).expect("armed for the promotion");
    story.done(Lane::Guard, Outcome::Ok);
    story.later(10);
    story.done(
        Lane::Postgres,
        Outcome::Failed("PostgreSQL does not answer".to_owned()),
    );
    for revision in 21..24 {
        if story.orders.contains_key(&Lane::Guard) {
            story.done(Lane::Guard, Outcome::Ok);
        }
        renewal(&mut story);
        story.locked(revision);
    }
    assert!(deadline(&story).is_some_and(|deadline| first < deadline));
    // 13507090: somebody had promoted it, which is why it was no replica; it was frozen, and the deadline was lifted for what it had been.
    let silent = || Process::Unresponsive { may_write: false };
    for (process, fenced) in [(silent(), true), (silent(), true), (replica(), false)] {
        story.finish(Lane::Guard);
        story.probed(process, ControlState::InArchiveRecovery);
        story.locked_if_asked(30);
        let last = story.given.iter().rev().find_map(|order| match order {
            Order::SetDeadline(deadline) => Some(*deadline),
            _ => None,
        });
        assert_eq!(last.unwrap().is_some(), fenced);
    }
}

#[test]
fn a_replica_that_cannot_be_started_is_cloned_anew_once_in_a_reign() {
    let mut story = Story::new(Config {
        reclone_on_divergence: true,
        ..Config::new("a".into())
    });
    story.read(view(10, Some("b"), 9));
    let clones = |story: &Story| {
        let clone = |order: &&Order| matches!(order, Order::BaseBackup { .. });
        story.given.iter().filter(clone).count()
    };
    let starts = |story: &Story| {
        let start = |order: &&Order| matches!(order, Order::StartReplica { .. });
        story.given.iter().filter(start).count()
    };
    for _ in 0..400 {
        story.probed(Process::Absent, ControlState::InArchiveRecovery);
        match story.under_way(Lane::Postgres) {
            Some(Order::StartReplica { .. }) => {
                story.done(Lane::Postgres, Outcome::Failed("it ended at once".to_owned()));
                assert!(clones(&story) == 1 || starts(&story) <= 3);
            }
            Some(Order::BaseBackup { .. }) => story.done(Lane::Postgres, Outcome::Ok),
            _ => {}
        }
    }
    assert_eq!(clones(&story), 1);
    assert!(6 < starts(&story), "it is tried again, at a pace");
}

#[test]
fn wal_that_was_received_beyond_the_fork_is_not_promoted() {
    for (received, may) in [(500, true), (501, false)] {
        let mut story = Story::new(Config::new("a".into()));
        let mut free = view(10, None, 9);
        free.history = Arc::new(vec![line(1, 500)]);
        story.read(free);
        let behind = ServerRole::Replica {
            received: Some(Lsn(received)),
            replayed: Lsn(400),
            streaming: false,
        };
        story.probed(server(behind), ControlState::InArchiveRecovery);
        assert_eq!(story.node.explain().could_take_lock.is_ok(), may);
    }
}

#[test]
fn a_position_on_another_timeline_does_not_count_in_a_hand_over() {
    let cases = [
        (1, false, true),
        (2, false, false),
        (0, false, false),
        (1, true, false),
    ];
    for (timeline, primary_by_hand, gives) in cases {
        let mut story = leading(Config::new("a".into()));
        story.done(Lane::Guard, Outcome::Ok);
        let Process::Running(mut server) = primary() else {
            unreachable!()
        };
        server.standbys.insert("b".to_owned(), Standby::default());
        story.probed(Process::Running(server), ControlState::InProduction);
        if story.orders.contains_key(&Lane::Lock) {
            story.locked(40);
        }
        story.hear(Input::Shutdown);
        story.stopped(1000);
        // 13172553: one that a person promoted has a timeline of that number as well.
        let status = PeerStatus {
            primary: primary_by_hand,
            ..answers(timeline, 2000, None)
        };
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: Some(status),
        });
        let releases = |order: &Order| matches!(order, Order::Release { .. });
        assert_eq!(story.given.iter().any(releases), gives, "timeline {timeline}");
    }
}

/// Takes the free lock as soon as it may; `written`: the transaction is known to be this order's.
pub(crate) fn takes(story: &mut Story, free: &ClusterView, written: bool) {
    story.hear(Input::Cluster(free.clone()));
    for _ in 0..40 {
        if matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. })) {
            break;
        }
        story.later(500);
        if story.orders.contains_key(&Lane::Read) {
            story.read(free.clone());
        }
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: None,
        });
    }
    let revision = Revision(free.revision.0 + 1);
    let outcome = Outcome::Locked {
        sent: MonoTime::from_millis(story.now),
        lease: LeaseId(7),
        term: Term(1),
        revision,
        written: written.then_some(revision),
    };
    story.done(Lane::Lock, outcome);
}

#[test]
fn a_timeline_reserved_in_an_earlier_reign_is_not_made() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(10, Some("b"), 9));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.done(Lane::Guard, Outcome::Ok);
    takes(&mut story, &view(11, None, 9), true);
    story.probed(replica(), ControlState::InArchiveRecovery);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Promote { .. })
    ));
    story.done(Lane::Postgres, Outcome::Refused("too late".to_owned()));
    story.hear(Input::Cluster(view(20, Some("b"), 19)));
    story.probed(replica(), ControlState::InArchiveRecovery);
    let promotions = |story: &Story| {
        let promotes = |order: &&Order| matches!(order, Order::Promote { .. });
        story.given.iter().filter(promotes).count()
    };
    let before = promotions(&story);
    takes(&mut story, &view(30, None, 29), false);
    story.probed(replica(), ControlState::InArchiveRecovery);
    assert_eq!(promotions(&story), before);
    assert!(
        matches!(story.under_way(Lane::Lock), Some(Order::Renew { .. })),
        "it reserves one first"
    );
}
