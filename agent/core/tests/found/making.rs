//! A cluster in the making, whose maker does not come to the end.

use surus_core::action::StopMode;
use surus_core::config::Config;
use surus_core::input::{Input, Outcome};
use surus_core::types::*;
use surus_core::view::*;
use surus_core::{Lane, Order};

use crate::models::{empty, end, gave, look};
use crate::story::*;

/// A server in a cluster that is not made to its end.
fn half_made() -> PostgresView {
    PostgresView {
        data: DataDir::Incomplete("a bootstrap was interrupted".to_owned()),
        process: primary(),
    }
}

/// Something in `status` says that a primary has lived.
fn says_lived(order: &Order) -> bool {
    let (Order::Acquire { status, .. } | Order::Renew { status, .. } | Order::Release { status, .. }) = order
    else {
        return false;
    };
    status.timeline.is_some()
}

/// Turmoil 1354857: an agent was killed while it made the cluster, and the next one led with the server that it left. Whatever was to be
/// set there was refused, and once it had stopped the cluster counted as one that has lived: nobody made another.
#[test]
fn a_cluster_whose_maker_was_killed_is_made_anew() {
    let mut story = Story::new(Config::new("a".into()));
    let mut begun = view(5, Some("a"), 4);
    begun.initialize = Some(Initialize::InProgress);
    begun.status = None;
    story.read(begun);
    for revision in 6..9 {
        look(&mut story, half_made());
        end(&mut story, Lane::Guard, Outcome::Ok);
        story.later(100);
        story.locked_if_asked(revision);
    }
    let stop = Order::Stop {
        mode: StopMode::Immediate,
        checkpoint_first: false,
    };
    assert_eq!(story.under_way(Lane::Postgres), Some(&stop), "{:?}", story.given);
    story.done(Lane::Postgres, Outcome::Stopped { checkpoint: None });
    let gone = PostgresView {
        process: Process::Absent,
        ..half_made()
    };
    let creates = |order: &Order| matches!(order, Order::Bootstrap { .. });
    for revision in 9..15 {
        look(&mut story, gone.clone());
        end(&mut story, Lane::Guard, Outcome::Ok);
        end(&mut story, Lane::Publish, Outcome::Ok);
        story.locked_if_asked(revision);
    }
    assert_eq!(gave(&story, creates), 1, "{:?}", story.given);
    assert_eq!(gave(&story, says_lived), 0);
}

/// Turmoil 1355957: who made the cluster was asked to end before it was done, and what its server had come to stood in `status` from then on.
#[test]
fn nothing_is_said_of_a_cluster_in_the_making() {
    let mut story = Story::new(Config::new("a".into()));
    story.read(ClusterView {
        revision: Revision(1),
        ..ClusterView::default()
    });
    look(&mut story, empty());
    end(&mut story, Lane::Guard, Outcome::Ok);
    story.done(Lane::Publish, Outcome::Ok);
    story.later(300);
    story.locked(3);
    story.later(1000);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Bootstrap { .. })
    ));
    for revision in 4..6 {
        look(&mut story, half_made());
        story.locked_if_asked(revision);
    }
    story.hear(Input::Shutdown);
    assert!(matches!(
        story.under_way(Lane::Postgres),
        Some(Order::Stop { .. })
    ));
    story.done(Lane::Postgres, Outcome::Stopped { checkpoint: None });
    for revision in 6..9 {
        look(
            &mut story,
            PostgresView {
                process: Process::Absent,
                ..half_made()
            },
        );
        end(&mut story, Lane::Guard, Outcome::Ok);
        story.locked_if_asked(revision);
    }
    let released = |order: &Order| matches!(order, Order::Release { .. });
    assert_ne!(gave(&story, released), 0, "{:?}", story.given);
    assert_eq!(gave(&story, says_lived), 0);
}

/// Turmoil 1367827: a cluster was complete, and its maker lost before `initialize` named it. A person promoted the replica that came of it, and
/// its agent waited for ever for whoever was making the cluster.
#[test]
fn a_primary_does_not_wait_for_a_maker_that_is_gone() {
    let mut story = Story::new(Config::new("a".into()));
    let mut begun = view(5, None, 4);
    begun.initialize = Some(Initialize::InProgress);
    begun.status = None;
    let takes = |order: &Order| matches!(order, Order::Acquire { .. });
    let mut waited = 0;
    while gave(&story, takes) == 0 && waited < 30 {
        begun.revision = Revision(begun.revision.0 + 1);
        story.read(begun.clone());
        story.probed(primary(), ControlState::InProduction);
        end(&mut story, Lane::Guard, Outcome::Ok);
        end(&mut story, Lane::Publish, Outcome::Ok);
        story.later(1000);
        waited += 1;
    }
    // Two lifetimes of the lock, 5 s each.
    assert!((9..20).contains(&waited), "{waited} s: {:?}", story.given);
}

/// Turmoil 1372747: who had made a cluster that was never named had taken the lock as its replica, and reserved a timeline. The next one was made under
/// that reservation, and its primary taken for one that a person had promoted: stopped, and elected by nobody for what it held.
#[test]
fn a_new_cluster_is_none_that_a_person_promoted() {
    for replica_before in [false, true] {
        a_new_cluster(replica_before);
    }
}

/// Made where nothing was, or in the place of a replica of the one before, whose data directory somebody has removed.
fn a_new_cluster(replica_before: bool) {
    let mut story = Story::new(Config::new("a".into()));
    let led = |revision, initialize, timeline| ClusterView {
        initialize: Some(initialize),
        ..said(view(revision, Some("a"), revision), |status| {
            status.timeline = timeline;
            status.next = Some(Timeline(2));
        })
    };
    story.read(led(5, Initialize::InProgress, None));
    if replica_before {
        story.probed(replica(), ControlState::InArchiveRecovery);
        end(&mut story, Lane::Guard, Outcome::Ok);
    }
    for revision in 6..9 {
        look(&mut story, empty());
        end(&mut story, Lane::Guard, Outcome::Ok);
        story.locked_if_asked(revision);
    }
    story.later(10);
    let system_id = SystemId(1);
    story.done(Lane::Postgres, Outcome::Bootstrapped { system_id });
    let starts = |order: &Order| matches!(order, Order::StartPrimary { .. });
    for revision in 9..20 {
        story.probed(Process::Absent, ControlState::ShutDown);
        end(&mut story, Lane::Guard, Outcome::Ok);
        end(&mut story, Lane::Publish, Outcome::Ok);
        story.locked_if_asked(revision);
        if gave(&story, starts) == 1 {
            break;
        }
    }
    story.later(10);
    story.done(Lane::Postgres, Outcome::Ok);
    for revision in 20..25 {
        story.probed(primary(), ControlState::InProduction);
        end(&mut story, Lane::Guard, Outcome::Ok);
        story.locked_if_asked(revision);
        story.read(led(revision, Initialize::Done(system_id), Some(Timeline(1))));
    }
    let stops = |order: &Order| matches!(order, Order::Stop { .. });
    assert_eq!(gave(&story, stops), 0, "{:?}", story.given);
}
