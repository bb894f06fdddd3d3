//! Start, stop, death and promotion.

use surus_core::view::ControlState;

use super::*;
use crate::clock::{MS, SEC};
use crate::model::postgres::settings::{Archiving, Span};
use crate::model::postgres::{Ended, Relation, StopMode};

fn state(cluster: &Cluster, server: usize) -> ControlState {
    cluster.servers[server].cluster().unwrap().control.state
}

fn relation(cluster: &Cluster, a: usize, b: usize) -> Relation {
    let log = |server: usize| &cluster.servers[server].cluster().unwrap().log;
    log(a).relation(log(b))
}

#[test]
fn a_standby_streams_what_the_primary_writes() {
    let mut cluster = Cluster::new(2);
    cluster.commit(0);
    assert!(cluster.streams(1));
    assert_eq!(relation(&cluster, 0, 1), Relation::Equal);
    assert_eq!(cluster.servers[1].visible().collect::<Vec<_>>(), [1]);
    assert_eq!(state(&cluster, 1), ControlState::InArchiveRecovery);
}

#[test]
fn a_cascading_standby_gets_everything_through_its_upstream() {
    let mut cluster = Cluster::new(3);
    cluster.follow(2, 1);
    cluster.commit(0);
    assert_eq!(relation(&cluster, 0, 2), Relation::Equal);
    assert!(cluster.servers[1].probe().unwrap().standbys.contains_key("s2"));
}

#[test]
fn a_fast_stop_brings_the_standbys_up_to_the_shutdown_checkpoint() {
    let mut cluster = Cluster::new(2);
    cluster.commit(0);
    cluster.at(0).stop(2, StopMode::Fast).unwrap();
    cluster.settle();
    assert!(cluster.happened(0, &Happening::Exited(Ended::Fast)));
    assert_eq!(state(&cluster, 0), ControlState::ShutDown);
    assert_eq!(relation(&cluster, 0, 1), Relation::Equal);
    assert!(!cluster.streams(1));
}

#[test]
fn the_control_file_says_shut_down_while_a_walsender_or_the_archiver_is_still_waited_for() {
    let mut cluster = Cluster::new(2);
    cluster.cut.push((1, 0));
    cluster.at(0).stop(2, StopMode::Fast).unwrap();
    cluster.settle();
    assert_eq!(state(&cluster, 0), ControlState::ShutDown);
    assert!(cluster.servers[0].alive());
    cluster.pass(61 * SEC);
    assert!(!cluster.servers[0].alive(), "wal_sender_timeout ends the wait");

    let mut cluster = Cluster::new(1);
    cluster.at(0).settings.archiving = Archiving::Hangs;
    cluster.at(0).reload(2).unwrap();
    cluster.at(0).stop(3, StopMode::Fast).unwrap();
    cluster.pass(600 * SEC);
    assert_eq!(state(&cluster, 0), ControlState::ShutDown);
    assert!(cluster.servers[0].alive());
}

#[test]
fn an_immediate_stop_leaves_a_crash_to_recover_from() {
    let mut cluster = Cluster::new(1);
    cluster.commit(0);
    cluster.at(0).stop(2, StopMode::Immediate).unwrap();
    cluster.settle();
    assert_eq!(state(&cluster, 0), ControlState::InProduction);
    let before = cluster.position(0);
    cluster.start(0);
    assert!(before < cluster.position(0), "recovery appended its checkpoint");
    assert_eq!(cluster.servers[0].visible().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_backend_that_is_stuck_delays_a_fast_stop_and_not_for_long_an_immediate_one() {
    let mut cluster = Cluster::new(1);
    cluster.at(0).stick_backend(100 * SEC);
    cluster.at(0).stop(1, StopMode::Fast).unwrap();
    cluster.pass(50 * SEC);
    assert!(cluster.servers[0].alive());
    let now = cluster.now;
    cluster.at(0).stop(now, StopMode::Immediate).unwrap();
    cluster.pass(6 * SEC);
    assert!(!cluster.servers[0].alive());
}

#[test]
fn a_checkpoint_under_way_becomes_that_of_the_stop() {
    let mut cluster = Cluster::new(1);
    cluster.at(0).costs.checkpoint = Span(SEC, SEC);
    cluster.at(0).checkpoint(1).unwrap();
    cluster.at(0).stick_backend(100 * SEC);
    cluster.at(0).stop(2, StopMode::Fast).unwrap();
    cluster.pass(50 * SEC);
    assert!(cluster.servers[0].alive(), "a backend is stuck");
    cluster.pass(60 * SEC);
    assert_eq!(state(&cluster, 0), ControlState::ShutDown);
}

#[test]
fn backends_go_on_for_a_while_without_their_postmaster() {
    let mut cluster = Cluster::new(1);
    cluster.at(0).kill_postmaster(1, SEC);
    assert!(cluster.servers[0].probe().is_err());
    let (_, facts) = cluster.commit(0);
    assert_eq!(facts.last(), Some(&Fact::Acked { covered: false }));
    assert!(cluster.at(0).start(2).is_err(), "the shared memory is in use");
    cluster.pass(2 * SEC);
    cluster.start(0);
    assert!(cluster.servers[0].writable());
}

#[test]
fn a_promotion_comes_in_phases() {
    let costs = Costs {
        promote: Span(20 * MS, 20 * MS),
        open: Span(10 * MS, 10 * MS),
        spread_checkpoint: Span(30 * SEC, 30 * SEC),
        ..Costs::NONE
    };
    let mut cluster = Cluster::with(2, costs);
    cluster.commit(0);
    cluster.at(0).kill(1);
    let now = cluster.now;
    cluster.at(1).promote(now).unwrap();
    assert_eq!(cluster.servers[1].in_recovery(), Ok(true));
    cluster.pass(25 * MS);
    let files = &cluster.servers[1].cluster().unwrap().histories;
    assert!(
        files.has(2) && !cluster.servers[1].writable(),
        "the file comes first"
    );
    cluster.pass(10 * MS);
    assert!(cluster.servers[1].writable());
    let control = cluster.servers[1].cluster().unwrap().control;
    assert_eq!((control.timeline, control.min_recovery_timeline), (1, 2));
    cluster.pass(31 * SEC);
    assert_eq!(cluster.servers[1].cluster().unwrap().control.timeline, 2);
}

#[test]
fn the_others_follow_a_promotion_and_a_diverged_one_cannot() {
    let mut cluster = Cluster::new(3);
    cluster.commit(0);
    cluster.cut.extend([(1, 0), (2, 0)]);
    cluster.commit(0);
    let now = cluster.now;
    cluster.at(1).promote(now).unwrap();
    cluster.settle();
    cluster.follow(2, 1);
    cluster.commit(1);
    assert_eq!(relation(&cluster, 1, 2), Relation::Equal);
    assert_eq!(cluster.servers[2].identify().unwrap().1.0, 2);
    cluster.at(0).stop(now, StopMode::Fast).unwrap();
    cluster.pass(61 * SEC);
    cluster.follow(0, 1);
    cluster.start(0);
    cluster.pass(30 * SEC);
    assert!(matches!(relation(&cluster, 0, 1), Relation::Diverged(_)));
}
