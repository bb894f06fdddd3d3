//! What the fast world found once it ran on the models of PostgreSQL and of etcd.

use std::collections::BTreeMap;
use std::sync::Arc;

use surus_core::config::Config;
use surus_core::input::{Input, Outcome};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Lane, Order};

use crate::first::leading;
use crate::story::*;

/// Ends whatever order of this lane is under way as told.
pub(crate) fn end(story: &mut Story, lane: Lane, outcome: Outcome) {
    if story.orders.contains_key(&lane) {
        story.done(lane, outcome);
    }
}

pub(crate) fn gave(story: &Story, which: fn(&Order) -> bool) -> usize {
    story.given.iter().filter(|order| which(order)).count()
}

pub(crate) fn empty() -> PostgresView {
    PostgresView {
        data: DataDir::Empty,
        process: Process::Absent,
    }
}

pub(crate) fn look(story: &mut Story, view: PostgresView) {
    if !story.orders.contains_key(&Lane::Probe) {
        story.later(1000);
    }
    let at = MonoTime::from_millis(story.now);
    story.done(Lane::Probe, Outcome::Probed { at, view });
}

#[test]
fn nothing_is_written_to_a_cluster_before_initialize_names_it() {
    let mut story = Story::new(Config::new("a".into()));
    let nothing = ClusterView {
        revision: Revision(1),
        ..ClusterView::default()
    };
    story.read(nothing);
    look(&mut story, empty());
    end(&mut story, Lane::Guard, Outcome::Ok);
    story.done(Lane::Publish, Outcome::Ok);
    if !matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. })) {
        story.later(300);
    }
    story.locked(3);
    let creates = |order: &Order| matches!(order, Order::Bootstrap { .. });
    if gave(&story, creates) == 0 {
        story.later(1000);
    }
    assert_eq!(gave(&story, creates), 1);
    let system_id = SystemId(1);
    story.later(10);
    story.done(Lane::Postgres, Outcome::Bootstrapped { system_id });
    let starts = |order: &Order| matches!(order, Order::StartPrimary { .. });
    // The name is on its way, and etcd is slow.
    end(
        &mut story,
        Lane::Publish,
        Outcome::Unknown("no answer".to_owned()),
    );
    for _ in 0..3 {
        story.probed(Process::Absent, ControlState::ShutDown);
        end(
            &mut story,
            Lane::Publish,
            Outcome::Unknown("no answer".to_owned()),
        );
        if story.orders.contains_key(&Lane::Lock) {
            story.locked(4);
        }
        assert_eq!(gave(&story, starts), 0);
    }
    for revision in 5..10 {
        story.probed(Process::Absent, ControlState::ShutDown);
        end(&mut story, Lane::Publish, Outcome::Ok);
        if story.orders.contains_key(&Lane::Lock) {
            story.locked(revision);
        }
    }
    assert_eq!(gave(&story, starts), 1);
}

#[test]
fn nobody_creates_a_cluster_beside_one_whose_maker_lost_its_key() {
    let view = |revision, status_revision| ClusterView {
        revision: Revision(revision),
        initialize: Some(Initialize::InProgress),
        status: (0 < status_revision).then(Arc::default),
        status_revision: Revision(status_revision),
        ..ClusterView::default()
    };
    // Nobody has led for two lifetimes of the lock, as far as it was seen; or another reign has come and gone a moment ago.
    for (reign, may) in [(0, true), (7, false)] {
        let mut story = Story::new(Config::new("a".into()));
        for second in 1..10 {
            story.read(view(second, 0));
            look(&mut story, empty());
            assert!(!story.orders.contains_key(&Lane::Lock));
        }
        story.read(view(10, reign));
        for _ in 0..3 {
            story.later(1000);
            look(&mut story, empty());
        }
        assert_eq!(story.orders.contains_key(&Lane::Lock), may);
        // Two lifetimes from the end of that reign.
        story.later(8000);
        look(&mut story, empty());
        assert!(story.orders.contains_key(&Lane::Lock));
    }
}

fn names_it(order: &Order) -> bool {
    matches!(order, Order::WriteInitialize { .. })
}

/// The failsafe list that is written before `initialize` is.
fn listed_first(story: &mut Story) -> BTreeMap<NodeName, String> {
    for round in 0..8 {
        if let Some(Order::WriteFailsafe { list, .. }) = story.under_way(Lane::Publish) {
            return list.clone();
        }
        assert_eq!(gave(story, names_it), 0, "in round {round}");
        end(story, Lane::Publish, Outcome::Ok);
        story.later(300);
    }
    panic!("the list comes first");
}

/// With the list in place it goes on.
fn assert_names_it(story: &mut Story) {
    for revision in 31..39 {
        story.later(300);
        end(story, Lane::Publish, Outcome::Ok);
        if story.orders.contains_key(&Lane::Lock) {
            story.locked(revision);
        }
    }
    assert_ne!(gave(story, names_it), 0);
}

/// 3205117: the agent that created it was lost before it could say so.
#[test]
fn who_finds_a_cluster_that_nobody_named_is_electable_before_initialize_names_it() {
    let mut story = Story::new(Config::new("a".into()));
    let list = BTreeMap::from([(NodeName::from("b"), "http://b:8008/patroni".to_owned())]);
    let mut view = view(10, Some("a"), 9);
    view.initialize = Some(Initialize::InProgress);
    view.failsafe = Some(Arc::new(list));
    view.failsafe_revision = Revision(1);
    story.read(view.clone());
    story.locked(12);
    story.probed(Process::Absent, ControlState::ShutDown);
    let listed = listed_first(&mut story);
    view.failsafe = Some(Arc::new(listed));
    view.failsafe_revision = Revision(30);
    view.revision = Revision(30);
    end(&mut story, Lane::Publish, Outcome::Ok);
    story.hear(Input::Cluster(view));
    assert_names_it(&mut story);
}

#[test]
fn who_creates_a_cluster_is_electable_before_initialize_names_it() {
    let mut story = Story::new(Config::new("a".into()));
    // Another began to create one, named itself, and was lost.
    let list = BTreeMap::from([(NodeName::from("b"), "http://b:8008/patroni".to_owned())]);
    let mut begun = ClusterView {
        revision: Revision(1),
        failsafe: Some(Arc::new(list)),
        failsafe_revision: Revision(1),
        ..ClusterView::default()
    };
    story.read(begun.clone());
    look(&mut story, empty());
    end(&mut story, Lane::Guard, Outcome::Ok);
    for _ in 0..30 {
        story.later(300);
        if story.orders.contains_key(&Lane::Lock) {
            break;
        }
        end(&mut story, Lane::Publish, Outcome::Ok);
    }
    // Its own key is on its way all the while.
    for _ in 0..8 {
        if let Some(Order::WriteMember(_)) = story.under_way(Lane::Publish) {
            break;
        }
        end(&mut story, Lane::Publish, Outcome::Ok);
        story.later(300);
    }
    story.locked(3);
    for revision in 4..20 {
        if matches!(story.under_way(Lane::Postgres), Some(Order::Bootstrap { .. })) {
            break;
        }
        story.later(500);
        if story.orders.contains_key(&Lane::Lock) {
            story.locked(revision);
        }
    }
    let system_id = SystemId(1);
    story.done(Lane::Postgres, Outcome::Bootstrapped { system_id });
    story.probed(Process::Absent, ControlState::ShutDown);
    end(&mut story, Lane::Publish, Outcome::Ok);
    let listed = listed_first(&mut story);
    assert!(listed.contains_key(&NodeName::from("a")));
    // It is on its way.
    story.later(800);
    assert_eq!(gave(&story, names_it), 0);
    end(&mut story, Lane::Publish, Outcome::Ok);
    begun.revision = Revision(30);
    begun.failsafe = Some(Arc::new(listed));
    begun.failsafe_revision = Revision(30);
    begun.leader = Some(LeaderKey {
        name: "a".into(),
        lease: Some(LeaseId(7)),
        created: Revision(3),
    });
    story.hear(Input::Cluster(begun));
    assert_names_it(&mut story);
}

/// The cluster under `b`, which is on timeline 2 since 500.
pub(crate) fn led_by_b(revision: i64) -> ClusterView {
    let mut view = view(revision, Some("b"), revision);
    if let Some(status) = &mut view.status {
        Arc::make_mut(status).timeline = Some(Timeline(2));
    }
    if let Some(member) = view.members.get_mut(&"b".into()) {
        Arc::make_mut(member).timeline = Some(Timeline(2));
    }
    view
}

pub(crate) fn ancestry(switch: u64) -> Outcome {
    Outcome::Ancestry {
        timeline: Timeline(2),
        history: vec![line(1, switch)],
    }
}

#[test]
fn a_rewind_that_found_nothing_to_do_is_not_repeated_at_once() {
    let mut story = Story::new(Config {
        use_pg_rewind: true,
        ..Config::new("a".into())
    });
    story.read(led_by_b(10));
    for _ in 0..20 {
        story.probed(Process::Absent, ControlState::InProduction);
        match story.under_way(Lane::Postgres) {
            Some(Order::CompareHistory { .. }) => story.done(Lane::Postgres, ancestry(500)),
            Some(Order::Rewind { .. }) => story.done(Lane::Postgres, Outcome::Ok),
            _ => story.later(20),
        }
    }
    let rewinds = gave(&story, |order| matches!(order, Order::Rewind { .. }));
    let waited = (story.now - 100_000) / 1000;
    assert!(
        0 < rewinds && rewinds as u64 <= waited + 1,
        "{rewinds} in {waited} s"
    );
}

#[test]
fn rewinds_in_vain_end_in_a_clone_or_with_a_person() {
    for reclone in [true, false] {
        let mut story = Story::new(Config {
            use_pg_rewind: true,
            reclone_on_divergence: reclone,
            ..Config::new("a".into())
        });
        story.read(led_by_b(10));
        for _ in 0..400 {
            story.probed(Process::Absent, ControlState::InProduction);
            match story.under_way(Lane::Postgres) {
                Some(Order::CompareHistory { .. }) => story.done(Lane::Postgres, ancestry(500)),
                Some(Order::Rewind { .. }) => story.done(Lane::Postgres, Outcome::Ok),
                _ => {
                    story.later(100);
                    story.read(led_by_b(10));
                }
            }
        }
        let rewinds = gave(&story, |order| matches!(order, Order::Rewind { .. }));
        assert!((5..=20).contains(&rewinds), "{rewinds}");
        let clones = gave(&story, |order| matches!(order, Order::BaseBackup { .. }));
        assert_eq!(clones, usize::from(reclone));
    }
}

#[test]
fn nobody_clones_from_a_member_on_an_older_timeline() {
    for (timeline, source) in [(1, "b"), (2, "c")] {
        let mut story = Story::new(Config::new("a".into()));
        let mut view = led_by_b(10);
        let (name, mut tagged) = member("c", "replica");
        let member = Arc::make_mut(&mut tagged);
        member.clonefrom = true;
        member.timeline = Some(Timeline(timeline));
        view.members.insert(name, tagged);
        story.read(view);
        look(&mut story, empty());
        let Some(Order::BaseBackup { from }) = story.under_way(Lane::Postgres) else {
            panic!("{:?}", story.given.last());
        };
        assert_eq!(from.name, source.into());
    }
}

/// `a` as a replica on timeline 1 that follows `b` and does not stream.
fn stranded() -> Process {
    stranded_at(500)
}

fn stranded_at(position: u64) -> Process {
    let Process::Running(mut server) = replica() else {
        panic!("it runs");
    };
    server.role = ServerRole::Replica {
        received: Some(Lsn(position)),
        replayed: Lsn(position),
        streaming: false,
    };
    Process::Running(server)
}

#[test]
fn a_replica_that_stands_still_is_started_anew_once_in_a_reign() {
    let failed = || Outcome::Failed("the stop failed".to_owned());
    // One that failed has changed nothing, and does not count.
    for (failures, restarts) in [(0, 1), (1, 2), (2, 3)] {
        let mut story = Story::new(Config::new("a".into()));
        story.read(led_by_b(10));
        let mut left = failures;
        for _ in 0..120 {
            story.probed(stranded(), ControlState::InArchiveRecovery);
            match story.under_way(Lane::Postgres) {
                Some(Order::CompareHistory { .. }) => story.done(Lane::Postgres, ancestry(500)),
                Some(Order::Restart {
                    guard_until: None, ..
                }) if 0 < left => {
                    left -= 1;
                    story.done(Lane::Postgres, failed());
                }
                Some(Order::Restart {
                    guard_until: None, ..
                }) => story.done(Lane::Postgres, Outcome::Ok),
                _ => {}
            }
        }
        assert_eq!(
            gave(&story, |order| matches!(order, Order::Restart { .. })),
            restarts
        );
    }
}

/// What the old primary had sent to one standby and another had not acknowledged is beyond the fork: to wait for PostgreSQL to follow is in vain.
#[test]
fn a_replica_that_is_known_to_be_beyond_the_fork_is_compared_at_once() {
    for (fork, at_once) in [(Some(400), true), (Some(500), false), (None, false)] {
        let mut story = Story::new(Config::new("a".into()));
        let mut led = led_by_b(10);
        if let Some(status) = &mut led.status {
            let (from, fork) = (Timeline(1), fork.map(Lsn));
            Arc::make_mut(status).forks = fork.map(|at| Fork { from, at }).into_iter().collect();
        }
        story.read(led);
        story.probed(stranded(), ControlState::InArchiveRecovery);
        let compares = |order: &Order| matches!(order, Order::CompareHistory { .. });
        assert_eq!(gave(&story, compares), usize::from(at_once), "{fork:?}");
        for _ in 0..7 {
            story.probed(stranded(), ControlState::InArchiveRecovery);
        }
        assert_eq!(gave(&story, compares), 1, "{fork:?}");
    }
}

/// Turmoil 1365790: after its new start it streamed from a member that stood on a timeline which came to nothing as well, and heard of that one.
#[test]
fn a_replica_that_came_further_is_started_anew_once_more() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(led_by_b(10));
    let restart = |order: &Order| matches!(order, Order::Restart { .. });
    for (position, restarts) in [(300, 1), (400, 2), (400, 2), (300, 2)] {
        for _ in 0..60 {
            story.probed(stranded_at(position), ControlState::InArchiveRecovery);
            match story.under_way(Lane::Postgres) {
                Some(Order::CompareHistory { .. }) => story.done(Lane::Postgres, ancestry(500)),
                Some(_) => story.done(Lane::Postgres, Outcome::Ok),
                None => {}
            }
        }
        assert_eq!(gave(&story, restart), restarts, "at {position}");
    }
}

/// 13260080: it fetched the history file of a timeline to which somebody had promoted its upstream by hand, and asked for that for ever.
#[test]
fn a_replica_on_the_leaders_timeline_that_seeks_another_is_started_anew() {
    for heard_of in [None, Some(Timeline(2))] {
        let mut story = Story::new(Config::new("a".into()));
        story.read(view(10, Some("b"), 9));
        for _ in 0..60 {
            let Process::Running(mut idle) = stranded() else {
                unreachable!()
            };
            idle.heard_of = heard_of;
            story.probed(Process::Running(idle), ControlState::InArchiveRecovery);
            end(&mut story, Lane::Postgres, Outcome::Ok);
        }
        let restarts = gave(&story, |order| matches!(order, Order::Restart { .. }));
        assert_eq!(restarts, usize::from(heard_of.is_some()), "once in a reign");
    }
}

#[test]
fn a_replica_started_for_a_leader_of_before_is_stopped_if_it_does_not_come_up() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(10, Some("b"), 9));
    story.probed(Process::Absent, ControlState::InArchiveRecovery);
    story.done(Lane::Postgres, Outcome::Ok);
    let starting = || Process::Starting { as_primary: false };
    for _ in 0..30 {
        story.probed(starting(), ControlState::InArchiveRecovery);
        end(&mut story, Lane::Postgres, Outcome::Ok);
    }
    let stops = |order: &Order| matches!(order, Order::Stop { .. });
    assert_eq!(gave(&story, stops), 0, "it may take as long as it takes");
    let mut moved = view(20, Some("c"), 19);
    moved.members.extend(BTreeMap::from([member("c", "primary")]));
    story.hear(Input::Cluster(moved));
    for _ in 0..3 {
        story.probed(starting(), ControlState::InArchiveRecovery);
    }
    assert_eq!(gave(&story, stops), 1);
}

#[test]
fn an_etcd_that_was_restored_from_a_backup_is_believed_after_a_while() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(100, Some("b"), 90));
    story.probed(replica(), ControlState::InArchiveRecovery);
    let old = || view(50, None, 40);
    let known = |story: &Story| story.node.explain().facts.view().map(|view| view.revision);
    // One old answer, or some, can be a member's fault.
    story.later(1000);
    story.read(old());
    assert_eq!(known(&story), Some(Revision(100)));
    story.later(1000);
    story.read(view(101, Some("b"), 91));
    assert_eq!(known(&story), Some(Revision(101)));
    let mut waited = 0;
    while known(&story) != Some(Revision(50)) {
        story.later(1000);
        story.read(old());
        waited += 1;
        assert!(waited < 20);
    }
    assert!(10 <= waited, "believed after {waited} s");
    // Whose right it was cannot be told: all of a lifetime is waited for.
    let takes = |order: &Order| matches!(order, Order::Acquire { .. });
    for _ in 0..4 {
        story.later(1000);
        story.read(old());
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: None,
        });
        assert_eq!(gave(&story, takes), 0);
    }
}

#[test]
fn a_release_in_doubt_stays_in_doubt_when_the_next_one_fails() {
    let mut story = leading(Config::new("a".into()));
    story.done(Lane::Guard, Outcome::Ok);
    let paused = |pause| {
        Input::Config(Config {
            pause,
            ..Config::new("a".into())
        })
    };
    story.hear(paused(true));
    end(&mut story, Lane::Lock, Outcome::Unknown("no answer".to_owned()));
    story.probed(Process::Absent, ControlState::InProduction);
    let releases = |order: &Order| matches!(order, Order::Release { .. });
    for answer in [
        Outcome::Unknown("no answer".to_owned()),
        Outcome::Failed("no leader".to_owned()),
    ] {
        let before = gave(&story, releases);
        while gave(&story, releases) == before {
            story.probed(Process::Absent, ControlState::InProduction);
            if let Some(Order::Renew { .. }) = story.under_way(Lane::Lock) {
                story.done(Lane::Lock, Outcome::Unknown("no answer".to_owned()));
            }
            assert!(story.now < 110_000);
        }
        story.done(Lane::Lock, answer);
    }
    story.hear(paused(false));
    for _ in 0..3 {
        story.probed(Process::Absent, ControlState::InProduction);
        end(&mut story, Lane::Lock, Outcome::Failed("no leader".to_owned()));
    }
    assert_eq!(
        gave(&story, |order| matches!(order, Order::StartPrimary { .. })),
        0
    );
}

#[test]
fn an_exit_that_is_told_late_is_not_believed_without_a_look() {
    let mut story = leading(Config {
        primary_start_timeout: std::time::Duration::ZERO,
        ..Config::new("a".into())
    });
    story.done(Lane::Guard, Outcome::Ok);
    story.later(1000);
    story.probed(primary(), ControlState::InProduction);
    // It is the server from before a restart.
    story.hear(Input::PostgresExited);
    end(&mut story, Lane::Lock, Outcome::Unknown("no answer".to_owned()));
    story.later(300);
    let gives_up = |order: &Order| matches!(order, Order::Release { .. } | Order::StartPrimary { .. });
    assert_eq!(gave(&story, gives_up), 0);
    assert!(!matches!(
        story.under_way(Lane::Guard),
        Some(Order::SetDeadline(None))
    ));
    story.probed(primary(), ControlState::InProduction);
    assert_eq!(gave(&story, gives_up), 0);
}

#[test]
fn who_holds_the_lock_and_cannot_start_its_replica_gives_it_up() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view(10, Some("a"), 9));
    story.locked(11);
    let gives_up = |order: &Order| matches!(order, Order::Release { .. });
    let mut starts = 0;
    while gave(&story, gives_up) == 0 {
        story.probed(Process::Absent, ControlState::InArchiveRecovery);
        if let Some(Order::StartReplica { .. }) = story.under_way(Lane::Postgres) {
            starts += 1;
            story.done(Lane::Postgres, Outcome::Failed("it ended at once".to_owned()));
        }
        if let Some(Order::Renew { .. }) = story.under_way(Lane::Lock) {
            story.locked(12);
        }
        assert!(story.now < 200_000, "it holds on after {starts} starts");
    }
    assert!(3 <= starts);
}

fn without_slots() -> Config {
    Config {
        use_slots: false,
        ..Config::new("a".into())
    }
}

#[test]
fn a_replica_goes_on_without_its_slot_when_slots_are_turned_off_and_with_one_when_on() {
    for (config, asks_for, follows_with) in [
        (without_slots(), Some("a"), Some(None)),
        (without_slots(), None, None),
        (Config::new("a".into()), None, Some(Some("a"))),
        (Config::new("a".into()), Some("a"), None),
    ] {
        let mut story = Story::new(config);
        story.read(view(10, Some("b"), 9));
        let Process::Running(mut server) = replica() else {
            panic!("it runs");
        };
        server.slot = asks_for.map(str::to_owned);
        story.probed(Process::Running(server), ControlState::InArchiveRecovery);
        let told = match story.under_way(Lane::Postgres) {
            Some(Order::Follow {
                upstream: Some(upstream),
            }) => Some(upstream.slot.as_deref()),
            _ => None,
        };
        assert_eq!(told, follows_with, "{asks_for:?}");
    }
}

#[test]
fn slots_that_nobody_uses_any_more_hold_no_wal() {
    let mut story = leading(without_slots());
    story.read(view(12, Some("a"), 11));
    for slots in [&["b", "x"][..], &["x"]] {
        story.given.clear();
        let Process::Running(mut server) = primary() else {
            panic!("it runs");
        };
        server.slots = slots.iter().map(|name| ((*name).to_owned(), Lsn(1))).collect();
        story.probed(Process::Running(server), ControlState::InProduction);
        let dropped = story.given.iter().find_map(|order| match order {
            Order::SyncSlots { ensure, drop } if ensure.is_empty() => Some(drop.clone()),
            _ => None,
        });
        assert_eq!(dropped, slots.contains(&"b").then(|| ["b".to_owned()].into()));
        end(&mut story, Lane::Upkeep, Outcome::Ok);
        story.later(2000);
    }
}
