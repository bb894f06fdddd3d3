//! PostgreSQL promoted past its agent: by whom nothing was reserved, nothing is inherited.

use std::sync::Arc;

use surus_core::config::Config;
use surus_core::input::{Input, Outcome};
use surus_core::sync::{Mode, SyncKey};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Lane, Order};

use crate::models::gave;
use crate::story::*;

/// A server of timeline 2, which left the first one at 900.
fn second(role: ServerRole) -> Process {
    let Process::Running(mut server) = server(role) else {
        unreachable!()
    };
    server.timeline = Timeline(2);
    server.history = vec![line(1, 900)];
    Process::Running(server)
}

fn idle() -> ServerRole {
    ServerRole::Replica {
        received: None,
        replayed: Lsn(1000),
        streaming: false,
    }
}

fn writes() -> ServerRole {
    ServerRole::Primary { written: Lsn(1000) }
}

/// The last leader left, having said nothing that keeps others waiting.
fn free(revision: i64, change: impl FnOnce(&mut Status)) -> ClusterView {
    said(view(revision, None, revision), |status| {
        status.vacated = Some("b".into());
        change(status);
    })
}

/// The same, and a person names `a`.
fn named(sync: Option<SyncKey>, change: impl FnOnce(&mut Status)) -> ClusterView {
    ClusterView {
        sync: sync.map(Arc::new),
        failover: Some(FailoverKey {
            leader: None,
            candidate: Some("a".into()),
            due: Due::Now,
            revision: Revision(5),
        }),
        ..free(10, change)
    }
}

/// Which timeline `a` publishes with the lock that a person's word gives to it.
fn published(config: Config, process: Process, state: ControlState, view: &ClusterView) -> Option<Timeline> {
    let mut story = Story::new(config);
    story.read(view.clone());
    story.probed(process, state);
    story.read(view.clone());
    hear(&mut story, None);
    match story.under_way(Lane::Lock) {
        Some(Order::Acquire { status, .. }) => status.timeline,
        _ => panic!("a person named it: {:?}", story.given),
    }
}

fn hear(story: &mut Story, status: Option<PeerStatus>) {
    story.hear(Input::Peer {
        name: "b".into(),
        asked: MonoTime::from_millis(story.now),
        status,
    });
}

fn takes_the_lock(story: &Story) -> bool {
    matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. }))
}

#[test]
fn others_go_first_for_two_lifetimes_of_the_lock() {
    for (reserved, at_once) in [(None, false), (Some(Timeline(2)), true)] {
        let mut story = Story::new(Config::new("a".into()));
        let free = || free(10, |status| status.next = reserved);
        story.read(free());
        story.probed(second(idle()), ControlState::InArchiveRecovery);
        story.read(free());
        hear(&mut story, None);
        assert_eq!(takes_the_lock(&story), at_once, "next is {reserved:?}");
        for _ in 0..14 {
            story.later(1000);
            story.read(free());
            story.probed(second(idle()), ControlState::InArchiveRecovery);
            hear(&mut story, None);
        }
        assert!(takes_the_lock(&story), "nobody else is there");
    }
}

#[test]
fn it_counts_for_what_it_has_of_the_clusters_timelines() {
    // The last primary had come to 950, and at most 20 bytes may be lost; this node left its timeline at 900.
    for (lag, may) in [(20, false), (50, true)] {
        let mut story = Story::new(Config {
            maximum_lag_on_failover: lag,
            ..Config::new("a".into())
        });
        for _ in 0..14 {
            story.read(free(10, |status| status.optime = Lsn(950)));
            story.probed(second(idle()), ControlState::InArchiveRecovery);
            hear(&mut story, None);
            if takes_the_lock(&story) {
                break;
            }
            story.later(1000);
        }
        assert_eq!(takes_the_lock(&story), may);
    }
}

#[test]
fn under_a_leader_it_has_diverged_once_nobody_is_known_to_have_reserved_it() {
    for heard in [false, true] {
        let mut story = Story::new(Config {
            use_pg_rewind: true,
            ..Config::new("a".into())
        });
        let led = || said(view(10, Some("b"), 10), |_| {});
        story.read(led());
        for _ in 0..20 {
            story.later(1000);
            story.probed(second(idle()), ControlState::InArchiveRecovery);
            if heard {
                story.read(led());
            } else if story.orders.contains_key(&Lane::Read) {
                story.done(Lane::Read, Outcome::Unknown("no answer".to_owned()));
            }
            if let Some(Order::CompareHistory { .. }) = story.under_way(Lane::Postgres) {
                let (timeline, history) = (Timeline(1), Vec::new());
                story.done(Lane::Postgres, Outcome::Ancestry { timeline, history });
            }
        }
        let stopped = story
            .given
            .iter()
            .any(|order| matches!(order, Order::Stop { .. }));
        assert_eq!(stopped, heard);
    }
}

#[test]
fn a_primary_that_nobody_ordered_does_not_take_the_free_lock() {
    for paused in [false, true] {
        let mut story = Story::new(Config {
            pause: paused,
            ..Config::new("a".into())
        });
        story.read(said(view(10, Some("b"), 10), |_| {}));
        story.probed(replica(), ControlState::InArchiveRecovery);
        story.read(free(11, |status| status.next = Some(Timeline(3))));
        story.probed(second(writes()), ControlState::InProduction);
        hear(&mut story, None);
        assert_eq!(takes_the_lock(&story), paused, "in a pause it is a person's");
        let stops = matches!(story.under_way(Lane::Postgres), Some(Order::Stop { .. }));
        assert_eq!(stops, !paused);
    }
}

#[test]
fn one_of_the_clusters_number_that_began_elsewhere_is_another() {
    for (at, same) in [(900, true), (950, false)] {
        let mut story = Story::new(Config::new("a".into()));
        let from = Timeline(1);
        let free = || {
            free(10, |status| {
                status.timeline = Some(Timeline(2));
                status.forks = vec![Fork { from, at: Lsn(at) }];
            })
        };
        story.read(free());
        story.probed(second(idle()), ControlState::InArchiveRecovery);
        story.read(free());
        hear(&mut story, None);
        assert_eq!(takes_the_lock(&story), same);
    }
}

#[test]
fn a_timeline_has_one_writer() {
    // This node's server is a primary of timeline 2, and so is the leader's; nothing else tells the two apart.
    for wrote in [false, true] {
        let mut story = Story::new(Config {
            use_pg_rewind: true,
            ..Config::new("a".into())
        });
        let led = || {
            let mut led = said(view(10, Some("b"), 10), |status| {
                status.timeline = Some(Timeline(2));
            });
            for member in led.members.values_mut() {
                Arc::make_mut(member).timeline = Some(Timeline(2));
            }
            led
        };
        story.read(led());
        if wrote {
            story.probed(second(writes()), ControlState::InProduction);
            story.finish(Lane::Postgres);
        }
        for _ in 0..20 {
            story.later(1000);
            story.probed(second(idle()), ControlState::InArchiveRecovery);
            if let Some(Order::CompareHistory { .. }) = story.under_way(Lane::Postgres) {
                let (timeline, history) = (Timeline(2), vec![line(1, 900)]);
                story.done(Lane::Postgres, Outcome::Ancestry { timeline, history });
            }
        }
        let stop = |order: &&Order| matches!(order, Order::Stop { .. });
        let stopped = story.given.iter().filter(stop).count();
        assert_eq!(1 < stopped, wrote, "{:?}", story.given);
    }
}

#[test]
fn the_next_timeline_is_above_all_that_were_heard_of() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(free(10, |_| {}));
    story.probed(replica(), ControlState::InArchiveRecovery);
    let stopped = PeerStatus {
        running: false,
        stands: Some(Timeline(4)),
        ..answers(1, 0, Some(false))
    };
    hear(&mut story, Some(stopped));
    let Some(Order::Acquire { status, .. }) = story.under_way(Lane::Lock) else {
        panic!("nobody else is there")
    };
    assert_eq!(status.next, Some(Timeline(5)));
}

/// 14611282: its upstream had been promoted by hand, and PostgreSQL passes over a number of which it has a history file.
#[test]
fn the_next_timeline_is_above_all_whose_history_is_here() {
    let heard = |upto| {
        let Process::Running(mut server) = server(idle()) else {
            unreachable!()
        };
        server.heard_of = Some(Timeline(upto));
        Process::Running(server)
    };
    let mut story = Story::new(Config::new("a".into()));
    story.read(free(10, |_| {}));
    story.probed(heard(3), ControlState::InArchiveRecovery);
    hear(&mut story, None);
    let Some(Order::Acquire { status, .. }) = story.under_way(Lane::Lock) else {
        panic!("nobody else is there")
    };
    assert_eq!(status.next, Some(Timeline(4)));
    // One more has come meanwhile.
    story.locked(11);
    story.probed(heard(4), ControlState::InArchiveRecovery);
    story.locked_if_asked(12);
    let promotes = |order: &Order| matches!(order, Order::Promote { .. });
    assert_eq!(gave(&story, promotes), 0);
    let Some(Order::Renew { status, .. }) = story.under_way(Lane::Lock) else {
        panic!("it reserves another")
    };
    assert_eq!(status.next, Some(Timeline(5)));
}

/// 9036577: it was lost before it had named itself, and the only one on the list had less.
#[test]
fn who_leads_by_a_persons_word_is_on_the_failsafe_list_before_its_promotion() {
    for listed in [false, true] {
        let mut story = Story::new(Config::new("a".into()));
        let mut led = said(view(11, Some("a"), 9), |_| {});
        let name = if listed { "a" } else { "b" };
        led.failsafe = Some(Arc::new(
            [(name.into(), format!("http://{name}:8008/patroni"))].into(),
        ));
        led.failsafe_revision = Revision(4);
        story.read(led);
        story.locked(12);
        for _ in 0..10 {
            story.probed(replica(), ControlState::InArchiveRecovery);
            story.finish(Lane::Guard);
            story.locked_if_asked(13);
        }
        let ours = |order: &Order| matches!(order, Order::WriteFailsafe { list, .. } if list.contains_key(&NodeName::from("a")));
        assert!(listed || story.given.iter().any(ours), "{:?}", story.given);
        let promoted = story
            .given
            .iter()
            .any(|order| matches!(order, Order::Promote { .. }));
        assert_eq!(promoted, listed, "{:?}", story.given);
    }
}

#[test]
fn a_replica_does_not_wait_for_an_upstream_on_a_timeline_that_it_has_left() {
    for (theirs, upstream) in [(1, "b"), (2, "c")] {
        let mut story = Story::new(Config {
            replicate_from: Some("c".into()),
            ..Config::new("a".into())
        });
        let mut led = said(view(10, Some("b"), 10), |status| {
            status.timeline = Some(Timeline(2));
        });
        let (name, mut upstream_member) = member("c", "replica");
        Arc::make_mut(&mut upstream_member).timeline = Some(Timeline(theirs));
        led.members.insert(name, upstream_member);
        story.read(led);
        let Process::Running(mut server) = second(idle()) else {
            unreachable!()
        };
        server.upstream = None;
        story.probed(Process::Running(server), ControlState::InArchiveRecovery);
        let Some(Order::Follow {
            upstream: Some(followed),
        }) = story.under_way(Lane::Postgres)
        else {
            panic!("it follows nobody")
        };
        assert_eq!(followed.name, NodeName::from(upstream));
    }
}

/// 12022662: it was published with the lock that a person's word gave to `a`, which was lost before it was promoted. Those whom the key named were
/// past its fork, and nobody could lead.
#[test]
fn a_timeline_made_by_hand_is_published_once_the_sync_key_names_nobody_else() {
    let of = |leader: &str| SyncKey {
        leader: leader.into(),
        voters: [NodeName::from("c")].into(),
        quorum: 0,
    };
    for (key, timeline) in [(None, 2), (Some(of("b")), 1), (Some(of("a")), 2)] {
        let view = named(key.clone(), |_| {});
        let config = Config::new("a".into());
        let told = published(config, second(idle()), ControlState::InArchiveRecovery, &view);
        assert_eq!(told, Some(Timeline(timeline)), "{key:?}");
    }
}

/// 14048807: the same where nothing was published yet, and what had been promoted by hand was a primary by then.
#[test]
fn a_primary_by_a_persons_word_is_published_once_the_sync_key_names_it() {
    for (leader, timeline) in [("b", None), ("a", Some(Timeline(2)))] {
        let key = Some(SyncKey::alone(leader.into()));
        let view = named(key, |status| status.timeline = None);
        let mut config = Config::new("a".into());
        config.synchronous.mode = Mode::On;
        let told = published(config, second(writes()), ControlState::InProduction, &view);
        assert_eq!(told, timeline, "the key is that of {leader}");
    }
}

/// 15989167: two reigns had reserved and published nothing of what they had come to. What a person then promoted took the lock, published its timeline, was
/// stopped for having done that, and left a cluster in whose history nobody was who may lead.
#[test]
fn a_reservation_alone_tells_that_a_timeline_was_made_by_hand() {
    for reserved in [None, Some(Timeline(2))] {
        let mut story = Story::new(Config::new("a".into()));
        let free = || {
            free(10, |status| {
                status.timeline = None;
                status.next = reserved;
            })
        };
        let third = |role| {
            let Process::Running(mut server) = second(role) else {
                unreachable!()
            };
            server.timeline = Timeline(3);
            server.history = vec![line(1, 800), line(2, 900)];
            Process::Running(server)
        };
        story.read(free());
        story.probed(second(idle()), ControlState::InArchiveRecovery);
        story.later(100);
        story.probed(third(writes()), ControlState::InProduction);
        story.read(free());
        hear(&mut story, None);
        let stops = |order: &Order| matches!(order, Order::Stop { .. });
        let surus = usize::from(reserved.is_some());
        assert_eq!(gave(&story, stops), surus, "next is {reserved:?}");
        assert_eq!(
            takes_the_lock(&story),
            reserved.is_none(),
            "Patroni reserves nothing"
        );
    }
}

/// 13162384: a person promoted this node's server in the instant in which its agent had it promoted, and it took the number of the last primary's
/// timeline, from where that one had left the timeline before.
#[test]
fn what_a_person_promoted_below_the_reserved_number_is_promoted_anew() {
    for timeline in [2, 3] {
        let mut story = Story::new(Config {
            failsafe_mode: false,
            ..Config::new("a".into())
        });
        let from = Timeline(1);
        let told = |status: &mut Status, next: u32| {
            status.timeline = Some(Timeline(2));
            status.forks = vec![Fork { from, at: Lsn(900) }];
            status.next = Some(Timeline(next));
        };
        let free = || free(10, |status| told(status, 2));
        story.read(free());
        let at = |role, timeline| {
            let Process::Running(mut server) = second(role) else {
                unreachable!()
            };
            server.timeline = Timeline(timeline);
            server.history.truncate(timeline as usize - 1);
            server.upstream = None;
            Process::Running(server)
        };
        let replayed = Lsn(900);
        let before = || {
            let role = ServerRole::Replica {
                received: Some(replayed),
                replayed,
                streaming: false,
            };
            at(role, 1)
        };
        story.probed(before(), ControlState::InArchiveRecovery);
        story.read(free());
        hear(&mut story, None);
        story.locked(12);
        story.read(said(view(13, Some("a"), 12), |status| told(status, 3)));
        for _ in 0..10 {
            if let Some(Order::Promote { .. }) = story.under_way(Lane::Postgres) {
                break;
            }
            story.finish(Lane::Postgres);
            story.probed(before(), ControlState::InArchiveRecovery);
            story.finish(Lane::Guard);
            story.locked_if_asked(14);
        }
        let promotes = matches!(story.under_way(Lane::Postgres), Some(Order::Promote { .. }));
        assert!(promotes, "{:?}", story.given);
        for _ in 0..2 {
            story.finish(Lane::Postgres);
            story.finish(Lane::Guard);
            story.probed(at(writes(), timeline), ControlState::InProduction);
        }
        let stop = |order: &Order| matches!(order, Order::Stop { .. });
        assert_eq!(story.given.iter().any(stop), timeline == 2, "{:?}", story.given);
    }
}
