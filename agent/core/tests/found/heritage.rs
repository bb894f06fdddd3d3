//! What a node must hold to lead, looked at again and again; and for whom it gives up what it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use surus_core::config::Config;
use surus_core::facts::Facts;
use surus_core::input::{Input, Outcome};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Lane, Order};

use crate::first::leading;
use crate::story::*;

/// A replica of timeline 1 that has received so much, from whom.
fn at(received: u64, upstream: Option<&str>) -> Process {
    let role = ServerRole::Replica {
        received: Some(Lsn(received)),
        replayed: Lsn(received),
        streaming: upstream.is_some(),
    };
    let Process::Running(mut server) = server(role) else {
        unreachable!()
    };
    server.upstream = upstream.map(str::to_owned);
    Process::Running(server)
}

/// Nobody leads, and the last leader left, having said this.
pub(crate) fn vacated(revision: i64, said: Status) -> ClusterView {
    let mut view = view(revision, None, revision);
    view.status = Some(Arc::new(Status {
        ttl: Some(Duration::from_secs(5)),
        vacated: Some("b".into()),
        ..said
    }));
    view
}

pub(crate) fn lived(timeline: u32, optime: u64) -> Status {
    Status {
        optime: Lsn(optime),
        timeline: Some(Timeline(timeline)),
        ..Status::default()
    }
}

fn nobody_answers(story: &mut Story) {
    story.hear(Input::Peer {
        name: "b".into(),
        asked: MonoTime::from_millis(story.now),
        status: None,
    });
}

/// The node has asked for the free lock.
fn asks_for_the_lock(free: ClusterView, holds: Process) -> Story {
    let mut story = Story::new(Config::new("a".into()));
    story.read(free);
    story.probed(holds, ControlState::InArchiveRecovery);
    nobody_answers(&mut story);
    assert!(matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. })));
    story
}

fn settle(story: &mut Story, holds: Process, renews: bool) {
    for _ in 0..3 {
        if story.orders.contains_key(&Lane::Guard) {
            story.done(Lane::Guard, Outcome::Ok);
        }
        if renews && matches!(story.under_way(Lane::Lock), Some(Order::Renew { .. })) {
            story.locked(30);
        }
        story.probed(holds.clone(), ControlState::InArchiveRecovery);
    }
}

#[test]
fn a_replica_that_came_back_with_less_gives_the_lock_back() {
    let free = vacated(10, lived(1, 5 << 20));
    for (left, promotes) in [(5 << 20, true), (3 << 20, false)] {
        let mut story = asks_for_the_lock(free.clone(), at(5 << 20, None));
        story.probed(at(left, None), ControlState::InArchiveRecovery);
        story.locked(20);
        settle(&mut story, at(left, None), true);
        let promotion = matches!(story.under_way(Lane::Postgres), Some(Order::Promote { .. }));
        assert_eq!(promotion, promotes);
        let release = matches!(story.under_way(Lane::Lock), Some(Order::Release { .. }));
        assert_eq!(release, !promotes);
    }
}

#[test]
fn a_replica_of_an_older_timeline_receives_no_more_when_it_is_compared() {
    let mut said = lived(2, 900);
    said.forks = vec![Fork {
        from: Timeline(1),
        at: Lsn(1000),
    }];
    for (received, promotes) in [(1000, true), (1001, false)] {
        let mut story = asks_for_the_lock(vacated(10, said.clone()), at(1000, Some("b:5432")));
        story.locked(20);
        settle(&mut story, at(1000, Some("b:5432")), true);
        assert!(matches!(
            story.under_way(Lane::Postgres),
            Some(Order::Follow { upstream: None })
        ));
        story.later(10);
        story.done(Lane::Postgres, Outcome::Ok);
        settle(&mut story, at(received, None), true);
        let promotion = matches!(story.under_way(Lane::Postgres), Some(Order::Promote { .. }));
        assert_eq!(promotion, promotes);
    }
}

#[test]
fn a_leader_that_was_lost_before_it_recorded_its_history_has_left_where_it_said() {
    // `history` is of timeline 2, which left timeline 1 later than timeline 3 did.
    let mut said = lived(3, 500);
    said.forks = vec![Fork {
        from: Timeline(1),
        at: Lsn(500),
    }];
    let mut free = vacated(10, said);
    free.history = Arc::new(vec![line(1, 900)]);
    for (received, may) in [(500, true), (501, false)] {
        let mut story = Story::new(Config::new("a".into()));
        story.read(free.clone());
        story.probed(at(received, None), ControlState::InArchiveRecovery);
        assert_eq!(story.node.explain().could_take_lock.is_ok(), may);
    }
}

#[test]
fn no_fork_between_the_recorded_history_and_the_newest_timeline_is_forgotten() {
    // `history` ends with timeline 1; 3 left that, 4 left 3, and neither of their leaders came to record it.
    let fork = |from, at| Fork {
        from: Timeline(from),
        at: Lsn(at),
    };
    let mut said = lived(4, 900);
    said.forks = vec![fork(1, 500), fork(3, 800)];
    let mut free = vacated(10, said);
    free.history = Arc::new(vec![line(1, 700)]);
    assert_eq!(free.fork_of(Timeline(2)), Some(Lsn(0)), "4 never was on it");
    for (received, may) in [(500, true), (501, false)] {
        let mut story = Story::new(Config::new("a".into()));
        story.read(free.clone());
        story.probed(at(received, None), ControlState::InArchiveRecovery);
        assert_eq!(story.node.explain().could_take_lock.is_ok(), may);
    }
    // What is published goes on from what is recorded, and names the newest in any case.
    let way = || vec![fork(1, 500), fork(3, 800)];
    let published = |history| {
        free.history = Arc::new(history);
        free.to_publish(way())
    };
    let histories = [
        vec![],
        vec![line(1, 700)],
        vec![line(1, 500)],
        vec![line(1, 500), line(3, 800)],
    ];
    let told = histories.map(published);
    assert_eq!(told, [way(), way(), vec![fork(3, 800)], vec![fork(3, 800)]]);
}

#[test]
fn a_reign_that_published_nothing_does_not_lag() {
    // What was published, and the timeline that was reserved last.
    for (timeline, next, may) in [(0, 1, true), (0, 2, false), (1, 1, false), (1, 2, false)] {
        let mut story = Story::new(Config::new("a".into()));
        let mut said = lived(timeline, 5 << 20);
        said.next = Some(Timeline(next));
        let mut free = vacated(10, said);
        free.history = Arc::new(vec![line(1, 5 << 20)]);
        story.read(free);
        story.probed(at(1000, None), ControlState::InArchiveRecovery);
        assert_eq!(story.node.explain().could_take_lock.is_ok(), may, "{timeline}");
    }
}

/// What the order to take the lock says in `status`.
fn said(story: &Story) -> Status {
    let Some(Order::Acquire { status, .. }) = story.under_way(Lane::Lock) else {
        panic!("no order to take the lock")
    };
    Status {
        next: status.next,
        forks: status.forks.clone(),
        ..lived(status.timeline.expect("a timeline").0, status.optime.0)
    }
}

#[test]
fn who_takes_the_lock_of_a_reign_that_published_nothing_publishes_what_it_has_of_it() {
    // Timeline 1 was reserved last, and what was published is of the one before.
    let mut free = vacated(
        10,
        Status {
            next: Some(Timeline(1)),
            ..lived(0, 5 << 20)
        },
    );
    let mut story = asks_for_the_lock(free.clone(), at(1000, None));
    let status = said(&story);
    assert_eq!((status.timeline, status.optime), (Some(Timeline(1)), Lsn(1000)));
    assert_eq!(status.next, Some(Timeline(2)));
    story.locked(20);
    let mut led = view(20, Some("a"), 20);
    led.status = Some(Arc::new(status.clone()));
    story.hear(Input::Cluster(led));
    settle(&mut story, at(1000, None), true);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Promote { .. })
    ));
    // An agent that has not read etcd since, nor seen its server, does not take that back.
    let mut deaf = asks_for_the_lock(free.clone(), at(1000, None));
    deaf.locked(20);
    let silent = Process::Unresponsive { may_write: true };
    for revision in 21..24 {
        if deaf.orders.contains_key(&Lane::Lock) {
            deaf.locked(revision);
        }
        deaf.probed(silent.clone(), ControlState::InArchiveRecovery);
        deaf.later(1000);
    }
    let Some(Order::Renew { status: renewed, .. }) = deaf.under_way(Lane::Lock) else {
        panic!("no renewal")
    };
    assert_eq!((renewed.timeline, renewed.optime), (Some(Timeline(1)), Lsn(1000)));
    // It was lost before its promotion: the others do not lag behind a timeline that never was.
    free = vacated(30, status);
    asks_for_the_lock(free, at(1000, None));
}

#[test]
fn what_a_peer_says_in_the_instant_in_which_the_lock_becomes_free_is_hearsay() {
    let ahead = answers(1, 2000, Some(false));
    let mut story = Story::new(Config::new("a".into()));
    story.read(vacated(10, lived(1, 900)));
    story.probed(at(1000, None), ControlState::InArchiveRecovery);
    let answer = |story: &mut Story| {
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: Some(ahead.clone()),
        });
    };
    answer(&mut story);
    assert!(!story.orders.contains_key(&Lane::Lock));
    if story.orders.contains_key(&Lane::Peers) {
        story.done(Lane::Peers, Outcome::Ok);
    }
    story.later(600);
    assert!(
        !story.orders.contains_key(&Lane::Lock),
        "what it said then is hearsay still"
    );
    assert!(story.orders.contains_key(&Lane::Peers), "it is asked again");
    answer(&mut story);
    assert!(matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. })));
}

/// `a` follows `b`, and `c` has a key as well; what etcd holds.
pub(crate) fn with_a_third() -> (Story, ClusterView) {
    let mut led = view(10, Some("b"), 10);
    led.members.extend([member("c", "replica")]);
    let mut story = Story::new(Config::new("a".into()));
    story.read(led.clone());
    story.probed(at(1000, Some("b:5432")), ControlState::InArchiveRecovery);
    (story, led)
}

/// The lock becomes free, and only `a` has a key: it waits for a moment, and then reads etcd once more. Does it take the lock?
fn waits_for_the_third(mut story: Story, returns: bool) -> bool {
    let mut free = vacated(20, lived(1, 900));
    free.members = BTreeMap::from([member("a", "replica")]);
    story.hear(Input::Cluster(free.clone()));
    if story.orders.contains_key(&Lane::Read) {
        story.read(free.clone());
    }
    for _ in 0..2 {
        assert!(
            !story.orders.contains_key(&Lane::Lock),
            "where is c? it may be ahead"
        );
        story.later(600);
    }
    assert!(story.orders.contains_key(&Lane::Read), "the watch may be held up");
    if returns {
        free.members.extend([member("c", "replica")]);
        free.revision = Revision(30);
    }
    story.read(free);
    matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. }))
}

#[test]
fn a_member_whose_key_vanished_with_the_leaders_is_waited_for_a_moment() {
    assert!(waits_for_the_third(with_a_third().0, false));
}

/// 13135803: it wrote its key anew within half a second, and the watch of the one that took the lock had been silent for longer.
#[test]
fn a_member_whose_key_vanished_is_looked_for_in_etcd() {
    assert!(!waits_for_the_third(with_a_third().0, true));
}

#[test]
fn a_member_whose_key_vanished_before_the_leaders_is_waited_for_a_moment() {
    let (mut story, mut led) = with_a_third();
    led.members.remove(&NodeName::from("c"));
    led.revision = Revision(15);
    story.hear(Input::Cluster(led));
    story.later(3000);
    story.probed(at(1000, Some("b:5432")), ControlState::InArchiveRecovery);
    assert!(waits_for_the_third(story, false));
}

#[test]
fn nothing_is_given_up_for_a_leader_of_an_older_timeline() {
    let config = Config {
        reclone_on_divergence: true,
        use_pg_rewind: true,
        ..Config::new("a".into())
    };
    for (own, reserved, gives_up) in [(3, 3, false), (1, 2, true)] {
        let mut story = Story::new(config.clone());
        let mut led = view(10, Some("b"), 10);
        let said = Status {
            next: Some(Timeline(reserved)),
            ..lived(2, 900)
        };
        led.status = Some(Arc::new(said));
        for member in led.members.values_mut() {
            Arc::make_mut(member).timeline = Some(Timeline(2));
        }
        story.read(led);
        for _ in 0..20 {
            if !story.orders.contains_key(&Lane::Probe) {
                story.later(1000);
            }
            let control = ControlData {
                system_id: SystemId(1),
                state: ControlState::InProduction,
                timeline: Timeline(own),
                position: Lsn(1000),
                rewindable: true,
                fork: None,
            };
            let view = PostgresView {
                data: DataDir::Present(control),
                process: Process::Absent,
            };
            let at = MonoTime::from_millis(story.now);
            story.done(Lane::Probe, Outcome::Probed { at, view });
            if let Some(Order::CompareHistory { .. }) = story.under_way(Lane::Postgres) {
                let history = vec![line(1, 500)];
                let timeline = Timeline(2);
                story.done(Lane::Postgres, Outcome::Ancestry { timeline, history });
            }
        }
        let given_up = |order: &Order| matches!(order, Order::Rewind { .. } | Order::BaseBackup { .. });
        assert_eq!(story.given.iter().any(given_up), gives_up, "{:?}", story.given);
    }
}

#[test]
fn a_lock_that_an_earlier_order_took_reserves_nothing() {
    let mut said = lived(1, 900);
    said.next = Some(Timeline(4));
    let mut story = asks_for_the_lock(vacated(10, said), at(1000, None));
    let taken = Outcome::Locked {
        sent: MonoTime::from_millis(story.now),
        lease: LeaseId(7),
        term: Term(1),
        revision: Revision(20),
        written: None,
    };
    story.done(Lane::Lock, taken);
    settle(&mut story, at(1000, None), false);
    assert!(!story.orders.contains_key(&Lane::Postgres));
    let Some(Order::Renew { status, .. }) = story.under_way(Lane::Lock) else {
        panic!("no renewal")
    };
    assert_eq!(
        status.next,
        Some(Timeline(6)),
        "4 may be another's, and 5 what the order that took it reserved"
    );
    story.locked(21);
    settle(&mut story, at(1000, None), true);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Promote {
            above: Timeline(5),
            ..
        })
    ));
}

/// `a` leads `b`, whose key is here or has just vanished, and the failsafe key names these.
pub(crate) fn with_list(revision: i64, here: bool, names: &[&str]) -> ClusterView {
    let mut view = view(revision, Some("a"), revision);
    if !here {
        view.members.remove(&"b".into());
    }
    let list = names
        .iter()
        .map(|name| ((*name).into(), format!("http://{name}:8008/patroni")));
    view.failsafe = Some(Arc::new(list.collect()));
    view.failsafe_revision = Revision(3);
    view
}

/// The list that `a` writes when it leads.
fn writes(config: Config, views: &[ClusterView]) -> Option<Vec<String>> {
    let mut story = leading(config);
    story.given.clear();
    for view in views {
        story.read(view.clone());
        for revision in 40..44 {
            if matches!(story.under_way(Lane::Lock), Some(Order::Renew { .. })) {
                story.locked(revision);
            }
            if story.orders.contains_key(&Lane::Publish) {
                story.done(Lane::Publish, Outcome::Ok);
            }
            story.later(500);
        }
    }
    let list = story.given.iter().rev().find_map(|order| match order {
        Order::WriteFailsafe { list, .. } => Some(list.keys().map(|name| name.as_str().to_owned())),
        _ => None,
    });
    list.map(Iterator::collect)
}

#[test]
fn the_list_follows_the_members_and_is_emptied_with_the_mode() {
    let config = |failsafe_mode| Config {
        failsafe_mode,
        ..Config::new("a".into())
    };
    let names = |list: &[&str]| Some(list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let grown = [with_list(50, true, &["a"])];
    assert_eq!(writes(config(true), &grown), names(&["a", "b"]));
    assert_eq!(writes(config(true), &[with_list(50, true, &["a", "b"])]), None);
    let vanished = [
        with_list(50, true, &["a", "b"]),
        with_list(60, false, &["a", "b"]),
    ];
    assert_eq!(writes(config(true), &vanished), None, "b is expected back");
    assert_eq!(writes(config(false), &grown), names(&[]));
    assert_eq!(writes(config(false), &[with_list(50, true, &[])]), None);
}

/// Story A-5b on containers: with a `loop_wait` of 10 s a new cluster had no `config` key for 10 s, for the failsafe list had just been written.
#[test]
fn the_config_key_does_not_wait_for_another_round_after_the_failsafe_list() {
    let config = usual_paces();
    let mut story = Story::new(config);
    let mut view = with_list(50, true, &[]);
    view.config_revision = None;
    story.read(view);
    story.probed(primary(), ControlState::InProduction);
    story.locked(60);
    let wanted = |order: &Order| matches!(order, Order::WriteFailsafe { .. } | Order::WriteConfig);
    for _ in 0..4 {
        story.finish(Lane::Publish);
        story.later(100);
    }
    let given: Vec<_> = story.given.iter().filter(|order| wanted(order)).collect();
    assert!(
        matches!(given[..], [Order::WriteFailsafe { .. }, Order::WriteConfig]),
        "{given:?}"
    );
}

#[test]
fn an_agent_that_has_just_begun_leaves_on_the_list_who_has_no_key_yet() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(with_list(50, false, &["a", "b"]));
    story.probed(primary(), ControlState::InProduction);
    story.locked(60);
    for _ in 0..4 {
        if story.orders.contains_key(&Lane::Publish) {
            story.done(Lane::Publish, Outcome::Ok);
        }
        story.later(500);
    }
    let list = |order: &Order| matches!(order, Order::WriteFailsafe { .. });
    assert!(!story.given.iter().any(list), "b is expected back");
}

/// 3311867: a member that had just been cut off itself took all others for dead.
#[test]
fn who_reached_nobody_asks_again() {
    for (heard, takes) in [(false, false), (true, true)] {
        let mut story = Story::new(Config::new("a".into()));
        let mut led = view(10, Some("b"), 9);
        led.members
            .extend([member("c", "replica"), member("d", "replica")]);
        story.read(led.clone());
        story.probed(at(1000, Some("b:5432")), ControlState::InArchiveRecovery);
        let silent = |story: &mut Story, name: &str, status| {
            story.hear(Input::Peer {
                name: name.into(),
                asked: MonoTime::from_millis(story.now),
                status,
            });
        };
        let same = answers(1, 1000, Some(true));
        silent(&mut story, "d", heard.then(|| same.clone()));
        for name in ["b", "c"] {
            silent(&mut story, name, None);
        }
        story.later(4000);
        let free = vacated(20, lived(1, 1000));
        led.revision = Revision(20);
        (led.leader, led.status, led.status_revision) = (None, free.status, free.status_revision);
        story.read(led);
        story.probed(at(1000, None), ControlState::InArchiveRecovery);
        silent(&mut story, "d", Some(same));
        let taken = matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. }));
        assert_eq!(taken, takes, "c has not been asked again");
    }
}

/// 3510053: the last leader, a replica by now and ahead, lost its key for a moment in the race for the next reign.
#[test]
fn a_last_leader_that_could_lead_may_write_its_key_anew() {
    for (could, takes) in [(true, false), (false, true)] {
        let mut story = Story::new(Config::new("a".into()));
        story.read(view(10, Some("b"), 9));
        story.probed(at(1000, Some("b:5432")), ControlState::InArchiveRecovery);
        story.later(11_000);
        story.read(vacated(20, lived(1, 1000)));
        story.later(600);
        story.probed(at(1000, None), ControlState::InArchiveRecovery);
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: Some(answers(1, 1500, Some(could))),
        });
        let mut keyless = vacated(21, lived(1, 1000));
        keyless.members.remove(&NodeName::from("b"));
        story.read(keyless);
        let taken = matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. }));
        assert_eq!(taken, takes, "b has 500 bytes more, and could lead: {could}");
    }
}

/// What a member had said itself does not tell whose fault it is that it is silent now.
#[test]
fn nobody_vouches_for_itself() {
    let mut facts = Facts::default();
    let mut hear = |name: &str, asked, status| {
        facts.observe_peer(name.into(), MonoTime::from_millis(asked), status);
        facts.peers[&NodeName::from(name)].vouched
    };
    hear("b", 1000, Some(answers(1, 1000, Some(true))));
    assert!(!hear("b", 1500, None), "b had answered before");
    hear("c", 1500, Some(answers(1, 1000, Some(true))));
    assert!(hear("b", 2000, None), "c can be reached");
}

/// 1380867: a member far behind took the lock by a person's word and was lost before its promotion.
#[test]
fn nobody_leaves_the_list_before_the_promotion_is_over() {
    let mut story = Story::new(Config::new("a".into()));
    let listed = |revision, leader: Option<&str>| {
        let mut view = with_list(revision, true, &["a", "b", "c"]);
        view.leader = leader.and_then(|name| self::view(revision, Some(name), revision).leader);
        view
    };
    story.read(listed(10, Some("b")));
    story.probed(at(1000, Some("b:5432")), ControlState::InArchiveRecovery);
    story.later(11_000);
    story.read(ClusterView {
        status: vacated(20, lived(1, 900)).status,
        ..listed(20, None)
    });
    story.probed(at(1000, None), ControlState::InArchiveRecovery);
    nobody_answers(&mut story);
    if !story.orders.contains_key(&Lane::Lock) {
        story.later(1000);
    }
    story.locked(60);
    let published = |story: &mut Story| {
        for _ in 0..6 {
            if story.orders.contains_key(&Lane::Publish) {
                story.done(Lane::Publish, Outcome::Ok);
            }
            story.later(200);
        }
        let lists = story.given.iter().filter_map(|order| match order {
            Order::WriteFailsafe { list, .. } => Some(list.len()),
            _ => None,
        });
        lists.collect::<Vec<_>>()
    };
    settle(&mut story, at(1000, None), false);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Promote { .. })
    ));
    assert_eq!(
        published(&mut story),
        [],
        "c may be the only one that can lead after this"
    );
    story.done(Lane::Postgres, Outcome::Ok);
    story.probed(primary(), ControlState::InProduction);
    assert_eq!(published(&mut story).first(), Some(&2));
}

#[test]
fn who_is_not_on_the_list_may_not_lead_before_the_list_is_emptied() {
    for (names, ttl, may) in [
        (&["b"][..], Some(5), false),
        (&[], Some(5), true),
        (&["a", "b"], Some(5), true),
        // Patroni's leader leaves the list when the mode is turned off.
        (&["b"], None, true),
    ] {
        let mut story = Story::new(Config {
            failsafe_mode: false,
            ..Config::new("a".into())
        });
        let mut free = with_list(10, true, names);
        free.leader = None;
        free.status = Some(Arc::new(Status {
            ttl: ttl.map(Duration::from_secs),
            ..lived(1, 900)
        }));
        story.read(free);
        story.probed(at(1000, None), ControlState::InArchiveRecovery);
        assert_eq!(story.node.explain().could_take_lock.is_ok(), may, "{names:?}");
    }
}
