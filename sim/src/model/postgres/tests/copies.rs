//! Base backups and pg_rewind.

use surus_core::view::ControlState;

use super::*;
use crate::clock::SEC;
use crate::model::postgres::rewind::{RewindError, Verdict};
use crate::model::postgres::settings::Span;
use crate::model::postgres::{DataDir, Ended, Relation, StopMode};

/// The second server is promoted while the first goes on: both have something of their own.
fn fork(costs: Costs) -> Cluster {
    let mut cluster = Cluster::with(2, costs);
    cluster.commit(0);
    let now = cluster.now;
    cluster.at(1).promote(now).unwrap();
    cluster.pass(SEC);
    cluster.commit(0);
    cluster.commit(1);
    let now = cluster.now;
    cluster.at(0).stop(now, StopMode::Fast).unwrap();
    cluster.settle();
    cluster
}

fn plan(cluster: &mut Cluster) -> Result<Verdict, RewindError> {
    let source = cluster.servers[1].snapshot().unwrap();
    let now = cluster.now;
    cluster.at(0).rewind_plan(now, &source)
}

#[test]
fn a_rewound_primary_follows_and_has_lost_what_only_it_had() {
    let mut cluster = fork(Costs::NONE);
    let Ok(Verdict::Required { redo, .. }) = plan(&mut cluster) else {
        panic!("it has diverged");
    };
    let source = cluster.servers[1].snapshot().unwrap();
    cluster.at(0).rewind_begin();
    cluster.at(0).rewind_finish(&source, redo);
    cluster.follow(0, 1);
    cluster.start(0);
    cluster.pass(10 * SEC);
    assert_eq!(cluster.servers[0].visible().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_source_that_has_not_checkpointed_makes_pg_rewind_do_nothing() {
    let costs = Costs {
        spread_checkpoint: Span(60 * SEC, 60 * SEC),
        ..Costs::NONE
    };
    let mut cluster = fork(costs);
    assert_eq!(plan(&mut cluster), Ok(Verdict::NotRequired));
    let log = |server: usize| &cluster.servers[server].cluster().unwrap().log;
    assert!(matches!(log(0).relation(log(1)), Relation::Diverged(_)));
    cluster.pass(61 * SEC);
    assert!(matches!(plan(&mut cluster), Ok(Verdict::Required { .. })));
}

#[test]
fn pg_rewind_needs_hints_and_wal_and_a_directory_it_can_recover() {
    let mut cluster = fork(Costs::NONE);
    cluster.at(0).cluster_mut().unwrap().control.rewindable = false;
    assert_eq!(plan(&mut cluster), Err(RewindError::NoHints));
    let target = cluster.at(0).cluster_mut().unwrap();
    target.control.rewindable = true;
    target.log.oldest = target.control.redo;
    assert_eq!(plan(&mut cluster), Err(RewindError::WalRemoved));
    let target = cluster.at(0).cluster_mut().unwrap();
    target.control.state = ControlState::InProduction;
    target.standby_signal = true;
    assert_eq!(plan(&mut cluster), Err(RewindError::NotClean));
}

#[test]
fn pg_rewind_recovers_a_crashed_target_which_writes_past_the_fork() {
    let mut cluster = Cluster::new(2);
    cluster.commit(0);
    let now = cluster.now;
    cluster.at(0).kill(now);
    cluster.at(1).promote(now).unwrap();
    cluster.settle();
    let before = cluster.position(0);
    assert!(matches!(plan(&mut cluster), Ok(Verdict::Required { .. })));
    assert!(
        before < cluster.position(0),
        "though it had committed nothing of its own"
    );
    assert_eq!(
        cluster.servers[0].cluster().unwrap().control.state,
        ControlState::ShutDown
    );
}

#[test]
fn what_was_begun_and_not_finished_cannot_be_started() {
    let mut cluster = fork(Costs::NONE);
    cluster.at(0).rewind_begin();
    assert!(cluster.at(0).start(1).is_err());
    cluster.at(0).clone_begin().unwrap();
    assert!(cluster.at(0).start(1).is_err());
    assert!(matches!(cluster.servers[0].dir, DataDir::Incomplete(_)));
}

#[test]
fn a_rewound_directory_is_not_consistent_before_it_has_what_its_source_had() {
    let mut cluster = fork(Costs::NONE);
    let Ok(Verdict::Required { redo, .. }) = plan(&mut cluster) else {
        panic!("it has diverged");
    };
    let mut source = cluster.servers[1].snapshot().unwrap();
    // The WAL of the last moment was not among the files yet.
    let end = source.log.inserted;
    cluster.at(0).rewind_finish(&source, redo);
    source.log.truncate(end - 1);
    cluster.at(0).cluster_mut().unwrap().log = source.log;
    cluster.at(0).cluster_mut().unwrap().standby_signal = true;
    cluster.start(0);
    assert!(cluster.servers[0].probe().is_err());
    let now = cluster.now;
    cluster.at(0).promote(now).unwrap();
    cluster.settle();
    let ended = Ended::Failed("WAL ends before the consistent recovery point");
    assert!(cluster.happened(0, &Happening::Exited(ended)));
}

#[test]
fn a_copy_started_without_a_signal_is_a_second_server_on_one_timeline() {
    let mut cluster = Cluster::new(1);
    cluster.commit(0);
    let copy = cluster.servers[0].snapshot().unwrap();
    let mut other = Server::new(Peer(9), Costs::NONE, Rng::new(1, 1));
    other.clone_finish(&copy);
    other.start(1).unwrap();
    other.tick(1);
    other.commit(1, 99, 200, SyncLevel::On).unwrap();
    cluster.commit(0);
    let own = &cluster.servers[0].cluster().unwrap().log;
    let theirs = &other.cluster().unwrap().log;
    assert_eq!(own.timeline(), theirs.timeline());
    assert!(matches!(own.relation(theirs), Relation::Diverged(_)));
}
