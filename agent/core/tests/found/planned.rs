//! What the bench found a planned stop to wait for in vain.

use std::sync::Arc;

use surus_core::config::Config;
use surus_core::input::{Input, Outcome};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Lane, Order};

use crate::first::leading;
use crate::heritage::with_list;
use crate::models::gave;
use crate::story::*;

/// A server that starts before it is known whom to follow has to be told a moment later, and takes the processor from a promotion beside it.
#[test]
fn a_stopped_server_waits_a_moment_for_whom_to_follow() {
    let starts = |order: &Order| matches!(order, Order::StartReplica { .. });
    for nofailover in [false, true] {
        let mut story = Story::new(Config::new("a".into()));
        let mut free = view(10, None, 10);
        for member in free.members.values_mut() {
            Arc::make_mut(member).nofailover = nofailover;
        }
        story.read(free);
        story.probed(Process::Absent, ControlState::ShutDown);
        assert_eq!(gave(&story, starts), usize::from(nofailover));
        // Nobody has taken the lock after all.
        story.later(500);
        assert_eq!(gave(&story, starts), 1);
    }
}

/// A standby has the shutdown checkpoint some milliseconds after the primary has written it, which may be just after it was asked.
#[test]
fn a_candidate_is_asked_again_soon() {
    let mut story = leading(Config::new("a".into()));
    story.done(Lane::Guard, Outcome::Ok);
    story.probed(serves(1000, |_| {}), ControlState::InProduction);
    story.locked_if_asked(40);
    story.hear(Input::Shutdown);
    story.stopped(2000);
    let asks = |order: &Order| matches!(order, Order::AskPeers { .. });
    let mut asked = Vec::new();
    for _ in 0..100 {
        asked.push(gave(&story, asks));
        story.finish(Lane::Peers);
        story.hear(Input::Peer {
            name: "b".into(),
            asked: MonoTime::from_millis(story.now),
            status: Some(answers(1, 2000, None)),
        });
        story.later(10);
    }
    assert!(5 < asked[6], "{asked:?}");
    // One that does not get it is not asked as often for long: 14702257 asked more than S12 allows, over stops that were repeated.
    assert!(asked[26] - asked[6] < 6, "{asked:?}");
}

/// Story F-49: with a `loop_wait` of 10 s a switchover was refused for want of a standby that had streamed for seconds.
#[test]
fn a_wish_is_refused_by_a_look_that_is_newer_than_it() {
    for joined in [false, true] {
        let mut story = leading(usual_paces());
        story.finish(Lane::Guard);
        for _ in 0..20 {
            story.later(100);
            story.finish(Lane::Publish);
            if story.orders.contains_key(&Lane::Probe) {
                story.probed(primary(), ControlState::InProduction);
            }
        }
        let mut wish = view(20, Some("a"), 11);
        wish.failover = Some(FailoverKey {
            leader: Some("a".into()),
            candidate: None,
            due: Due::Now,
            revision: Revision(20),
        });
        story.hear(Input::Cluster(wish));
        let clears = |order: &Order| matches!(order, Order::ClearFailover(_));
        assert_eq!(gave(&story, clears), 0);
        assert!(story.orders.contains_key(&Lane::Probe), "it looks at once");
        story.later(20);
        let now = if joined { serves(1000, |_| {}) } else { primary() };
        story.probed(now, ControlState::InProduction);
        let stops = |order: &Order| matches!(order, Order::Stop { .. });
        assert_eq!(gave(&story, stops), usize::from(joined));
        assert_eq!(gave(&story, clears), usize::from(!joined));
    }
}

/// Story F-50: with a `loop_wait` of 10 s the lock was handed over to a replica that the failsafe list did not name, which did not take it.
#[test]
fn the_lock_is_handed_to_nobody_whom_the_failsafe_list_does_not_name() {
    let listed = |revision, names: &[&str], leader: Option<&str>| {
        let mut view = with_list(revision, true, names);
        view.failover = Some(FailoverKey {
            leader: leader.map(NodeName::from),
            candidate: Some("b".into()),
            due: Due::Now,
            revision: Revision(20),
        });
        view
    };
    let stops = |order: &Order| matches!(order, Order::Stop { .. });
    let clears = |order: &Order| matches!(order, Order::ClearFailover(_));
    for manual in [false, true] {
        let mut story = leading(Config::new("a".into()));
        story.finish(Lane::Guard);
        story.probed(serves(1000, |_| {}), ControlState::InProduction);
        let leader = (!manual).then_some("a");
        story.hear(Input::Cluster(listed(20, &["a"], leader)));
        story.later(20);
        story.probed(serves(1000, |_| {}), ControlState::InProduction);
        assert_eq!(gave(&story, stops), usize::from(manual), "by hand: {manual}");
        assert_eq!(gave(&story, clears), 0, "it waits for the list");
        story.hear(Input::Cluster(listed(21, &["a", "b"], leader)));
        assert_eq!(gave(&story, stops), 1);
    }
}

/// Story F-50, the other half: the list was written half a round after its last writing at the earliest, which is five seconds then.
#[test]
fn the_failsafe_list_names_who_has_come_within_half_a_second() {
    let mut story = Story::new(usual_paces());
    story.read(with_list(50, false, &[]));
    story.probed(primary(), ControlState::InProduction);
    story.locked(60);
    let lists = |order: &Order| matches!(order, Order::WriteFailsafe { .. });
    let written = |story: &mut Story| {
        for _ in 0..4 {
            story.finish(Lane::Publish);
            story.later(100);
        }
        gave(story, lists)
    };
    assert_eq!(written(&mut story), 1, "a alone");
    story.hear(Input::Cluster(with_list(70, true, &["a"])));
    assert_eq!(written(&mut story), 2, "b has come");
}

/// Story F-50 as well: with a `loop_wait` of 10 s who joined just after another had no slot for ten seconds, and so no stream.
#[test]
fn a_slot_for_who_comes_next_does_not_wait_for_another_round() {
    let mut story = leading(usual_paces());
    let slots = |order: &Order| matches!(order, Order::SyncSlots { .. });
    let look = |story: &mut Story, slots: &[&str]| {
        story.later(20);
        let shown = serves(1000, |server| {
            let known = slots.iter().map(|name| ((*name).to_owned(), Lsn(1)));
            server.slots = known.collect();
        });
        story.probed(shown, ControlState::InProduction);
    };
    look(&mut story, &[]);
    assert_eq!(gave(&story, slots), 1, "for b");
    story.later(10);
    story.finish(Lane::Upkeep);
    assert!(story.orders.contains_key(&Lane::Probe), "it looks at once");
    look(&mut story, &["b"]);
    let mut grown = view(20, Some("a"), 11);
    let joined = grown.members[&NodeName::from("b")].clone();
    grown.members.insert("c".into(), joined);
    story.hear(Input::Cluster(grown));
    for _ in 0..12 {
        story.later(100);
    }
    assert_eq!(gave(&story, slots), 2, "for c");
}

/// 17000934: a primary that was to end waited for five seconds for a standby that had everything and may never lead. It waits for one that has less
/// (18100921).
#[test]
fn a_standby_that_never_leads_is_waited_for_until_it_has_everything() {
    for (nofailover, has, gone) in [(true, 2100, true), (true, 1900, false), (false, 2100, true)] {
        let mut story = leading(Config::new("a".into()));
        let mut tagged = view(20, Some("a"), 11);
        let b = tagged.members.get_mut(&NodeName::from("b")).unwrap();
        Arc::make_mut(b).nofailover = nofailover;
        story.hear(Input::Cluster(tagged));
        story.finish(Lane::Guard);
        story.later(1000);
        story.probed(serves(1000, |_| {}), ControlState::InProduction);
        story.locked_if_asked(40);
        story.hear(Input::Shutdown);
        story.stopped(2000);
        for _ in 0..10 {
            story.later(20);
            story.finish(Lane::Peers);
            let status = Some(PeerStatus {
                nofailover,
                ..answers(1, has, None)
            });
            let asked = MonoTime::from_millis(story.now);
            let name = "b".into();
            story.hear(Input::Peer { name, asked, status });
        }
        let gives_back = |order: &Order| matches!(order, Order::Release { .. });
        assert_eq!(gave(&story, gives_back), usize::from(gone), "{nofailover} {has}");
    }
}
