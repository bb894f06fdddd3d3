//! Synchronous replication: the orders, and who is elected.

use std::sync::Arc;
use std::time::Duration;

use surus_core::config::Config;
use surus_core::input::{Input, OperatorOrder, Outcome, RequestId};
use surus_core::sync::{Gate, Mode, Names, Settings, SyncKey};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Guard, Lane, Order};

use crate::models::{ancestry, gave, led_by_b};
use crate::story::*;

fn config(mode: Mode) -> Config {
    Config {
        synchronous: Settings {
            mode,
            ..Settings::default()
        },
        ..Config::new("a".into())
    }
}

fn key(leader: &str, voters: &[&str], quorum: usize) -> SyncKey {
    SyncKey {
        leader: leader.into(),
        voters: voters.iter().map(|name| NodeName::from(*name)).collect(),
        quorum,
    }
}

fn with_key(mut view: ClusterView, key: SyncKey) -> ClusterView {
    view.sync = Some(Arc::new(key));
    view.sync_revision = Revision(3);
    view
}

fn only(names: &[&str]) -> Names {
    Names::some(
        false,
        names.len(),
        names.iter().map(|name| NodeName::from(*name)).collect(),
    )
}

/// `a` as primary with the standby `b` at this position, and this setting.
fn serving(position: u64, names: &Names) -> Process {
    serves(position, |server| {
        server.synchronous = names.clone();
        server.managed = true;
    })
}

/// `a` leads, with this key.
fn leading(config: Config, key: Option<SyncKey>, names: &Names) -> Story {
    let mut story = Story::new(config);
    let view = view(10, Some("a"), 9);
    story.read(match key {
        Some(key) => with_key(view, key),
        None => view,
    });
    story.probed(serving(1000, names), ControlState::InProduction);
    story.locked(12);
    story
}

fn wrote(story: &Story) -> Option<Option<SyncKey>> {
    match story.under_way(Lane::Synchronous) {
        Some(Order::WriteSync { key, .. }) => Some(key.clone()),
        _ => None,
    }
}

fn set(story: &Story) -> Option<Names> {
    match story.under_way(Lane::Synchronous) {
        Some(Order::SetSynchronous { names }) => names.clone(),
        _ => None,
    }
}

fn written(story: &mut Story, revision: i64) {
    let revision = Revision(revision);
    story.done(Lane::Synchronous, Outcome::Written { revision });
}

#[test]
fn a_standby_is_named_once_commits_wait_for_it_and_it_has_what_was_there_before() {
    let mut story = leading(config(Mode::On), None, &Names::Alone);
    assert_eq!(
        wrote(&story),
        Some(Some(key("a", &[], 0))),
        "first nobody but the leader"
    );
    written(&mut story, 20);
    assert_eq!(set(&story), Some(only(&["b"])));
    story.done(Lane::Synchronous, Outcome::Ok);
    story.probed(serving(900, &only(&["b"])), ControlState::InProduction);
    assert_eq!(wrote(&story), None, "it lacks what was committed before");
    story.probed(serving(1000, &only(&["b"])), ControlState::InProduction);
    assert_eq!(
        wrote(&story),
        Some(Some(key("a", &["b"], 0))),
        "{:#?}",
        story.node.explain().state.sync
    );
    written(&mut story, 21);
    story.later(1000);
    assert_eq!(
        story.under_way(Lane::Synchronous),
        None,
        "at rest nothing is written"
    );
}

#[test]
fn a_standby_that_is_gone_is_taken_from_the_key_before_commits_stop_waiting_for_it() {
    let mut story = leading(config(Mode::On), Some(key("a", &["b"], 0)), &only(&["b"]));
    assert_eq!(
        wrote(&story),
        Some(Some(key("a", &["b"], 0))),
        "another agent may have written something"
    );
    written(&mut story, 20);
    let Process::Running(mut gone) = serving(0, &only(&["b"])) else {
        unreachable!()
    };
    gone.standbys.clear();
    story.probed(Process::Running(gone.clone()), ControlState::InProduction);
    assert_eq!(wrote(&story), Some(Some(key("a", &[], 0))));
    story.done(Lane::Synchronous, Outcome::Unknown("no answer".to_owned()));
    story.later(300);
    assert_eq!(
        wrote(&story),
        Some(Some(key("a", &[], 0))),
        "again, and nothing before it"
    );
    written(&mut story, 22);
    assert_eq!(set(&story), Some(Names::Alone));
}

#[test]
fn a_standby_that_stands_still_is_given_up() {
    let mut story = leading(config(Mode::On), Some(key("a", &["b"], 0)), &only(&["b"]));
    written(&mut story, 20);
    for _ in 0..4 {
        story.probed(serving(900, &only(&["b"])), ControlState::InProduction);
        assert_eq!(wrote(&story), None);
        if story.orders.contains_key(&Lane::Lock) {
            story.locked(30);
        }
        story.later(1000);
    }
    for _ in 0..2 {
        story.probed(serving(900, &only(&["b"])), ControlState::InProduction);
        if story.orders.contains_key(&Lane::Lock) {
            story.locked(30);
        }
        story.later(1000);
    }
    assert_eq!(wrote(&story), Some(Some(key("a", &[], 0))));
}

#[test]
fn strict_mode_lets_commits_wait() {
    let mut config = config(Mode::On);
    config.synchronous.strict = true;
    let mut story = leading(config, Some(key("a", &["b"], 0)), &only(&["b"]));
    written(&mut story, 20);
    let Process::Running(mut gone) = serving(0, &only(&["b"])) else {
        unreachable!()
    };
    gone.standbys.clear();
    story.probed(Process::Running(gone), ControlState::InProduction);
    assert_eq!(story.under_way(Lane::Synchronous), None);
}

#[test]
fn a_setting_that_somebody_else_made_is_repaired_from_the_key_on() {
    let story = leading(
        config(Mode::On),
        Some(key("a", &["b"], 0)),
        &Names::Foreign("*".to_owned()),
    );
    assert_eq!(wrote(&story), Some(Some(key("a", &[], 0))));
}

#[test]
fn turned_off_the_key_goes_first() {
    let mut story = leading(config(Mode::Off), Some(key("a", &["b"], 0)), &only(&["b"]));
    assert_eq!(wrote(&story), Some(None));
    written(&mut story, 20);
    assert!(matches!(
        story.under_way(Lane::Synchronous),
        Some(Order::SetSynchronous { names: None })
    ));
}

/// `a` as a replica when the lock of `b` becomes free; `c` is not behind it.
fn free(mode: Mode, key: SyncKey) -> Story {
    free_at(mode, key, 1000)
}

/// The same, with this position published.
fn free_at(mode: Mode, key: SyncKey, published: u64) -> Story {
    let mut story = Story::new(config(mode));
    let with_c = |view| with_key(with_c(view, |status| status.optime = Lsn(published)), key.clone());
    story.read(with_c(view(10, Some("b"), 9)));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.done(Lane::Guard, Outcome::Ok);
    story.hear(Input::Cluster(with_c(view(11, None, 9))));
    for _ in 0..30 {
        story.later(250);
        if story.orders.contains_key(&Lane::Read) {
            story.read(with_c(view(11, None, 9)));
        }
        ask(&mut story);
        if story.orders.contains_key(&Lane::Lock) {
            break;
        }
    }
    story
}

/// With the member `c`, and this in `status`.
fn with_c(mut view: ClusterView, change: impl FnOnce(&mut Status)) -> ClusterView {
    let (name, member) = member("c", "replica");
    view.members.insert(name, member);
    if let Some(status) = &mut view.status {
        change(Arc::make_mut(status));
    }
    view
}

/// `b` does not answer, and `c` says that it is where `a` is and may not lead.
fn ask(story: &mut Story) {
    for (name, status) in [("b", None), ("c", Some(answers(1, 1000, Some(false))))] {
        story.hear(Input::Peer {
            name: name.into(),
            asked: MonoTime::from_millis(story.now),
            status,
        });
    }
}

fn takes_the_lock(story: &Story) -> bool {
    matches!(story.under_way(Lane::Lock), Some(Order::Acquire { .. }))
}

#[test]
fn only_who_is_named_in_the_key_takes_the_lock() {
    assert!(takes_the_lock(&free(Mode::On, key("b", &["a"], 0))));
    let stays = free(Mode::On, key("b", &["c"], 0));
    assert!(!takes_the_lock(&stays));
    let explanation = stays.node.explain();
    let blocked = &explanation.decision.expect("it has decided").blocked;
    assert!(
        blocked
            .iter()
            .any(|(_, guard)| matches!(guard, Guard::NotSynchronous { .. }))
    );
    assert!(
        !takes_the_lock(&free(Mode::On, key("b", &[], 0))),
        "the leader alone has everything"
    );
    assert!(
        !takes_the_lock(&free(Mode::Off, key("b", &["c"], 0))),
        "the key stands though the mode is off"
    );
}

#[test]
fn who_leads_by_the_key_is_not_kept_out_by_what_was_not_acknowledged() {
    let beyond = 1000 + (2 << 20);
    assert!(takes_the_lock(&free_at(Mode::On, key("a", &[], 0), beyond)));
    assert!(!takes_the_lock(&free_at(Mode::On, key("b", &["a"], 0), beyond)));
}

#[test]
fn a_quorum_is_heard_and_not_before_the_old_right_is_over() {
    let two = free(Mode::Quorum, key("b", &["a", "c"], 1));
    assert!(takes_the_lock(&two));
    assert!(!takes_the_lock(&free(
        Mode::Quorum,
        key("b", &["a", "c", "d"], 2)
    )));
    let Some(Order::Acquire { grounds, .. }) = two.under_way(Lane::Lock) else {
        unreachable!()
    };
    assert_eq!(grounds.sync, Revision(3), "the key it was counted by");
}

/// 14071820: cut off for a whole reign, it read of its end and took the lock by what it had been told before that reign: the one that had
/// acknowledged what came of it had had no more than this node then.
#[test]
fn votes_from_before_a_reign_that_was_not_seen_do_not_count() {
    let mut story = free(Mode::Quorum, key("b", &[], 0));
    assert!(!takes_the_lock(&story));
    let view = with_c(view(30, None, 29), |status| status.vacated = Some("b".into()));
    let mut asked_anew = false;
    story.later(10);
    for _ in 0..8 {
        let view = with_key(view.clone(), key("b", &["c"], 0));
        story.hear(Input::Cluster(view));
        assert_eq!(takes_the_lock(&story), asked_anew);
        story.later(250);
        ask(&mut story);
        asked_anew = true;
    }
}

#[test]
fn a_promotion_comes_after_the_key() {
    let mut story = free(Mode::On, key("b", &["a"], 0));
    story.locked(12);
    story.probed(replica(), ControlState::InArchiveRecovery);
    assert!(!story.orders.contains_key(&Lane::Postgres));
    assert_eq!(wrote(&story), Some(Some(key("a", &[], 0))));
    written(&mut story, 20);
    let Some(Order::Promote { synchronous, .. }) = story.under_way(Lane::Postgres) else {
        panic!("{:?}", story.given);
    };
    assert_eq!(*synchronous, Some(Names::Alone));
}

/// 6528711: a person's word made `a` the leader that the failsafe list did not name. The `sync` key named it alone, it was lost half-way, and then
/// nobody was both on the list and in the key.
#[test]
fn who_is_named_alone_in_the_key_is_on_the_failsafe_list_first() {
    let mut story = Story::new(config(Mode::On));
    let mut led = with_key(view(11, Some("a"), 9), key("b", &["a"], 0));
    led.failsafe = Some(Arc::new(
        [("b".into(), "http://b:8008/patroni".to_owned())].into(),
    ));
    led.failsafe_revision = Revision(4);
    story.read(led.clone());
    story.locked(12);
    story.probed(replica(), ControlState::InArchiveRecovery);
    for _ in 0..30 {
        if matches!(story.under_way(Lane::Publish), Some(Order::WriteFailsafe { .. })) {
            break;
        }
        if story.orders.contains_key(&Lane::Publish) {
            story.done(Lane::Publish, Outcome::Ok);
        }
        story.later(100);
    }
    assert!(!story.orders.contains_key(&Lane::Postgres));
    assert_eq!(wrote(&story), None);
    let Some(Order::WriteFailsafe { list, .. }) = story.under_way(Lane::Publish) else {
        panic!("{:?}", story.given);
    };
    led.failsafe = Some(Arc::new(list.clone()));
    led.failsafe_revision = Revision(20);
    led.revision = Revision(20);
    story.done(Lane::Publish, Outcome::Ok);
    story.hear(Input::Cluster(led));
    assert_eq!(wrote(&story), Some(Some(key("a", &[], 0))));
}

#[test]
fn a_primary_is_started_again_when_nobody_is_named_who_may_lack_what_becomes_visible() {
    let mut story = leading(config(Mode::On), Some(key("a", &["b"], 0)), &only(&["b"]));
    written(&mut story, 20);
    let mut alone = with_key(view(21, Some("a"), 12), key("a", &["b"], 0));
    alone.members.remove(&"b".into());
    story.read(alone);
    story.hear(Input::PostgresExited);
    story.probed(Process::Absent, ControlState::InProduction);
    assert!(!story.orders.contains_key(&Lane::Postgres));
    assert_eq!(wrote(&story), Some(Some(key("a", &[], 0))));
    written(&mut story, 21);
    let Some(Order::StartPrimary { synchronous, .. }) = story.under_way(Lane::Postgres) else {
        panic!("{:?}", story.given);
    };
    assert_eq!(*synchronous, Some(Names::Alone));
}

#[test]
fn the_key_waits_for_a_restart_that_a_person_waits_for() {
    let names = only(&["b"]);
    let mut story = leading(config(Mode::On), Some(key("a", &["b"], 0)), &names);
    let restart = |story: &mut Story, request| {
        story.hear(Input::Operator {
            request: RequestId(request),
            order: OperatorOrder::Restart,
        });
    };
    written(&mut story, 20);
    restart(&mut story, 1);
    for revision in 21..40 {
        if let Some(Order::Restart { .. }) = story.under_way(Lane::Postgres) {
            break;
        }
        if wrote(&story).is_some() {
            written(&mut story, revision);
        }
        story.later(100);
    }
    let failed = Outcome::Failed("the stop failed".to_owned());
    story.done(Lane::Postgres, failed);
    // The next attempt waits a while, in which the standbys must not come and go.
    restart(&mut story, 2);
    let writes = |story: &Story| {
        let writes = |order: &&Order| matches!(order, Order::WriteSync { .. });
        story.given.iter().filter(writes).count()
    };
    let before = writes(&story);
    for revision in 40..80 {
        if story.orders.contains_key(&Lane::Probe) {
            story.probed(serving(1000, &names), ControlState::InProduction);
        }
        if wrote(&story).is_some() {
            written(&mut story, revision);
        } else if set(&story).is_some() {
            story.done(Lane::Synchronous, Outcome::Ok);
        }
        story.later(20);
    }
    assert!(writes(&story) <= before + 1, "{}", writes(&story) - before);
}

#[test]
fn a_replica_that_commits_wait_for_stops_once_they_do_not() {
    let mut story = Story::new(config(Mode::On));
    let named = |revision, voters: &[&str]| with_key(view(revision, Some("b"), 9), key("b", voters, 0));
    story.read(named(10, &["a"]));
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.hear(Input::Shutdown);
    assert!(!story.orders.contains_key(&Lane::Postgres));
    story.hear(Input::Cluster(named(11, &[])));
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Stop { .. })
    ));

    let mut impatient = Story::new(config(Mode::On));
    impatient.read(named(10, &["a"]));
    impatient.probed(replica(), ControlState::InArchiveRecovery);
    impatient.hear(Input::Shutdown);
    impatient.later(1900);
    assert!(!impatient.orders.contains_key(&Lane::Postgres));
    impatient.later(200);
    assert!(matches!(
        impatient.under_way(Lane::Postgres),
        Some(Order::Stop { .. })
    ));
}

#[test]
fn a_primary_that_crashed_yields_to_a_standby_that_has_every_commit() {
    let both = ["b", "c"];
    for (mode, voters, quorum, running, yields) in [
        (Mode::On, &both[..1], 0, &["b"][..], true),
        // It does not run, or commits waited for nobody.
        (Mode::On, &both[..1], 0, &["c"], false),
        (Mode::On, &[], 0, &["b", "c"], false),
        (Mode::Off, &both[..1], 0, &["b"], false),
        // Of two that acknowledge for each other, both must be heard.
        (Mode::Quorum, &both, 1, &["b"], false),
        (Mode::Quorum, &both, 1, &["b", "c"], true),
    ] {
        let led = key("a", voters, quorum);
        let mut story = leading(config(mode), Some(led.clone()), &only(voters));
        let mut view = with_key(view(20, Some("a"), 12), led);
        view.members = ["a", "b", "c"]
            .iter()
            .map(|name| member(name, "replica"))
            .collect();
        view.members
            .retain(|name, _| name == &"a".into() || running.contains(&name.as_str()));
        story.read(view);
        story.given.clear();
        for round in 0..6 {
            if story.orders.contains_key(&Lane::Synchronous) {
                written(&mut story, 21 + round);
            }
            if matches!(story.under_way(Lane::Lock), Some(Order::Renew { .. })) {
                story.locked(30);
            }
            story.probed(Process::Absent, ControlState::InProduction);
        }
        let gave = |which: fn(&Order) -> bool| story.given.iter().any(which);
        assert_eq!(
            gave(|order| matches!(order, Order::Release { .. })),
            yields,
            "{voters:?} {running:?}"
        );
        assert_eq!(
            gave(|order| matches!(order, Order::StartPrimary { .. })),
            !yields,
            "{voters:?} {running:?}"
        );
    }
}

/// 3205680: a person had the only synchronous standby cloned anew, from a member that was behind, and it was elected.
#[test]
fn whom_the_key_names_is_cloned_from_the_leader_alone() {
    for (voters, from) in [(&["a"][..], "b"), (&["c"], "c")] {
        let mut story = Story::new(config(Mode::On));
        let mut view = with_key(view(10, Some("b"), 9), key("b", voters, 0));
        let (name, tagged) = member("c", "replica");
        let tagged = Member {
            clonefrom: true,
            ..(*tagged).clone()
        };
        view.members.insert(name, Arc::new(tagged));
        story.read(view);
        let at = MonoTime::from_millis(story.now);
        let view = PostgresView {
            data: DataDir::Empty,
            process: Process::Absent,
        };
        if !story.orders.contains_key(&Lane::Probe) {
            story.later(1000);
        }
        story.done(Lane::Probe, Outcome::Probed { at, view });
        let Some(Order::BaseBackup { from: source }) = story.under_way(Lane::Postgres) else {
            panic!("{:?}", story.given);
        };
        assert_eq!(source.name, from.into());
    }
}

/// `a` has just become the primary of a cluster with a gate of ten seconds, and nobody else is named in the key.
fn behind_a_gate(hold: bool) -> Story {
    let mut gated = config(Mode::On);
    gated.synchronous.gate = Some(Gate {
        bound: Duration::from_secs(10),
        hold,
    });
    let mut story = leading(gated, Some(key("a", &[], 0)), &Names::Alone);
    look_behind(&mut story);
    story
}

fn look_behind(story: &mut Story) {
    let gated = serves(1000, |server| (server.managed, server.gated) = (true, true));
    story.probed(gated, ControlState::InProduction);
}

fn opens(story: &Story) -> bool {
    story.given.contains(&Order::OpenGate)
}

#[test]
fn clients_are_let_in_once_a_standby_is_named() {
    let mut story = behind_a_gate(true);
    for second in 0..60 {
        let mut alone = with_key(view(30 + second, Some("a"), 12), key("a", &[], 0));
        alone.sync_revision = Revision(30);
        story.locked_if_asked(60 + second);
        story.hear(Input::Cluster(alone));
        look_behind(&mut story);
    }
    assert!(!opens(&story), "it holds");
    let mut named = with_key(view(200, Some("a"), 12), key("a", &["b"], 0));
    named.sync_revision = Revision(200);
    story.hear(Input::Cluster(named));
    for _ in 0..3 {
        story.finish(Lane::Synchronous);
        look_behind(&mut story);
    }
    assert!(opens(&story));
}

#[test]
fn clients_are_let_in_when_the_bound_is_over() {
    let mut story = behind_a_gate(false);
    let begun = story.now;
    for second in 0..20 {
        story.locked_if_asked(60 + second);
        story.finish(Lane::Synchronous);
        look_behind(&mut story);
        assert_eq!(opens(&story), begun + 10_000 <= story.now, "after {second} looks");
    }
}

/// 14605387: `b`, promoted by hand, was given the lock by a person and lost before the key was its own; what the key named had been rewound onto it.
#[test]
fn who_is_still_named_gives_up_nothing_for_a_leader_who_is_not() {
    let rewinds = |order: &Order| matches!(order, Order::Rewind { .. });
    for (key, given_up) in [(key("a", &[], 0), false), (key("b", &[], 0), true)] {
        let mut story = Story::new(Config {
            use_pg_rewind: true,
            ..config(Mode::Quorum)
        });
        let led = || with_key(led_by_b(10), key.clone());
        story.read(led());
        for _ in 0..20 {
            story.probed(Process::Absent, ControlState::InProduction);
            if let Some(Order::CompareHistory { .. }) = story.under_way(Lane::Postgres) {
                story.done(Lane::Postgres, ancestry(500));
            }
        }
        assert_eq!(gave(&story, rewinds) == 1, given_up, "{key:?}");
    }
}
