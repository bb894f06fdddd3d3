//! A leader whose right is over, and whose key etcd still holds.

use std::time::Duration;

use surus_core::config::Config;
use surus_core::input::{Input, Outcome, RequestId};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Guard, Lane, Order, Rule};

use crate::story::*;

/// What etcd holds under `b`, which last wrote `status` at 9.
fn led() -> ClusterView {
    said(view(10, Some("b"), 9), |status| status.next = Some(Timeline(2)))
}

/// `a`, a replica of `b`, whose right lasts for five seconds more.
fn follows(view: &ClusterView) -> Story {
    let mut story = Story::new(Config::new("a".into()));
    story.read(view.clone());
    story.probed(replica(), ControlState::InArchiveRecovery);
    story.finish(Lane::Guard);
    story.finish(Lane::Publish);
    story
}

/// So many milliseconds in which etcd answers, and `b` is not heard of; the orders that were given to end its reign.
fn silence(story: &mut Story, view: &ClusterView, millis: u64) -> Vec<Order> {
    let before = story.given.len();
    for _ in 0..millis / 100 {
        story.later(100);
        if story.orders.contains_key(&Lane::Read) {
            story.read(view.clone());
        }
        story.finish(Lane::Publish);
    }
    let given = story.given[before..].iter();
    given
        .filter(|order| matches!(order, Order::EndReign { .. }))
        .cloned()
        .collect()
}

/// Ten seconds in which etcd answers nothing.
fn etcd_is_away(story: &mut Story) {
    for _ in 0..10 {
        story.later(1000);
        for lane in [Lane::Publish, Lane::Read] {
            if story.orders.contains_key(&lane) {
                story.done(lane, Outcome::Unknown("no answer from etcd".to_owned()));
            }
        }
    }
}

/// What keeps it from ending the reign.
fn kept_by(story: &Story) -> Option<Guard> {
    let last = story.node.explain().decision?;
    let blocked = last.blocked.iter().find(|(rule, _)| *rule == Rule::EndReign)?;
    Some(blocked.1.clone())
}

const END: Order = Order::EndReign {
    created: Revision(5),
    seen: Revision(9),
};

#[test]
fn a_reign_is_ended_when_its_right_is_over_and_not_before() {
    let mut story = follows(&led());
    assert_eq!(silence(&mut story, &led(), 4900), []);
    assert_eq!(silence(&mut story, &led(), 300), [END]);
    story.done(Lane::Lock, Outcome::Ok);
    assert_eq!(story.node.explain().facts.leader(), None);
    assert!(matches!(story.under_way(Lane::Peers), Some(Order::AskPeers(_))));
}

#[test]
fn a_leader_that_renews_is_left_alone() {
    let mut story = follows(&led());
    for revision in 10..20 {
        let mut view = led();
        (view.revision, view.status_revision) = (Revision(revision), Revision(revision));
        assert_eq!(silence(&mut story, &view, 3000), []);
    }
}

#[test]
fn the_next_leader_is_not_forgotten_for_an_answer_that_comes_late() {
    let mut story = follows(&led());
    assert_eq!(silence(&mut story, &led(), 5200), [END]);
    let mut next = led();
    next.revision = Revision(12);
    next.status_revision = Revision(12);
    next.leader = next.leader.map(|key| LeaderKey {
        name: "c".into(),
        created: Revision(12),
        ..key
    });
    story.hear(Input::Cluster(next));
    story.done(Lane::Lock, Outcome::Ok);
    assert_eq!(story.node.explain().facts.leader(), Some(&"c".into()));
}

#[test]
fn patronis_right_is_its_lease() {
    for view in [
        said(led(), |status| status.ttl = None),
        // It has the key of a Surus, and has not written `status` yet.
        ClusterView {
            status_revision: Revision(4),
            ..led()
        },
    ] {
        let mut story = follows(&view);
        assert_eq!(silence(&mut story, &view, 15_000), []);
    }
}

#[test]
fn who_has_granted_or_may_not_lead_leaves_it_to_others() {
    let mut story = follows(&led());
    silence(&mut story, &led(), 3000);
    let (request, leader, ttl) = (RequestId(1), "b".into(), Some(Duration::from_secs(5)));
    story.hear(Input::FailsafeAsked { request, leader, ttl });
    assert_eq!(silence(&mut story, &led(), 4900), []);
    assert!(matches!(kept_by(&story), Some(Guard::FailsafePromise { .. })));
    assert_eq!(silence(&mut story, &led(), 300), [END]);

    let mut story = Story::new(Config {
        nofailover: true,
        ..Config::new("a".into())
    });
    story.read(led());
    story.probed(replica(), ControlState::InArchiveRecovery);
    assert_eq!(silence(&mut story, &led(), 9000), []);
    assert_eq!(kept_by(&story), Some(Guard::NoFailover));
}

#[test]
fn a_leader_that_etcd_was_lost_to_is_given_time_to_renew() {
    let mut story = follows(&led());
    etcd_is_away(&mut story);
    // It is back.
    let early = silence(&mut story, &led(), 2400);
    assert_eq!(early, []);
    assert!(matches!(kept_by(&story), Some(Guard::EtcdReturned { .. })));
    assert_eq!(silence(&mut story, &led(), 1500), [END]);
}

/// Story G-20 on containers: a request waits for an etcd that is away, and is answered when it is back. That time is none that a leader has had.
#[test]
fn the_time_to_renew_begins_with_what_etcd_answers_and_not_with_what_it_is_asked() {
    let mut story = follows(&led());
    etcd_is_away(&mut story);
    while !story.orders.contains_key(&Lane::Publish) {
        story.later(100);
    }
    story.later(1300);
    assert_eq!(silence(&mut story, &led(), 2400), []);
    assert_eq!(silence(&mut story, &led(), 500), [END]);
}
