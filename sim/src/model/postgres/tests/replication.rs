//! Streaming, positions, slots, replay.

use super::*;
use crate::clock::SEC;
use crate::model::postgres::wal::{SEGMENT, segment_start};
use crate::model::postgres::{Ended, Refusal, Relation, StopMode};

fn received(cluster: &Cluster, server: usize) -> Option<u64> {
    let probe = cluster.servers[server].probe().unwrap();
    probe.received.map(|lsn| lsn.0)
}

/// Makes the first server forget all WAL that nothing holds.
fn forget_wal(cluster: &mut Cluster) {
    for _ in 0..3 {
        let now = cluster.now;
        cluster.at(0).switch_wal(now).unwrap();
        cluster.at(0).write(now, 1000).unwrap();
        cluster.at(0).checkpoint(now).unwrap();
        cluster.settle();
    }
}

#[test]
fn after_a_restart_the_receive_position_is_the_start_of_a_segment_and_the_log_is_longer() {
    let mut cluster = Cluster::new(2);
    cluster.commit(0);
    let end = cluster.position(1);
    let now = cluster.now;
    cluster.at(0).kill(now);
    cluster.at(1).stop(now, StopMode::Fast).unwrap();
    cluster.settle();
    assert_eq!(cluster.servers[1].cluster().unwrap().valid_end(), end);
    cluster.start(1);
    assert_eq!(received(&cluster, 1), Some(segment_start(end)));
    assert_eq!(cluster.servers[1].replay_position(), Some(end));
}

#[test]
fn an_upstream_that_is_lost_without_a_word_is_noticed_after_the_timeout() {
    let mut cluster = Cluster::new(2);
    cluster.cut.push((1, 0));
    cluster.pass(50 * SEC);
    assert!(cluster.streams(1), "nobody has told it");
    cluster.pass(11 * SEC);
    assert!(!cluster.streams(1));
}

#[test]
fn a_standby_too_far_behind_needs_a_clone_unless_a_slot_held_its_wal() {
    for slot in [false, true] {
        let mut cluster = Cluster::new(2);
        if slot {
            cluster.at(0).create_slot("s", false, true).unwrap();
            cluster.at(1).settings.primary_slot_name = Some("s".to_owned());
            let now = cluster.now;
            cluster.at(1).reload(now).unwrap();
            cluster.settle();
        }
        let now = cluster.now;
        cluster.at(1).stop(now, StopMode::Fast).unwrap();
        cluster.settle();
        forget_wal(&mut cluster);
        cluster.start(1);
        cluster.pass(20 * SEC);
        assert_eq!(cluster.streams(1), slot);
    }
}

#[test]
fn a_slot_beyond_the_limit_is_lost_with_its_wal() {
    let mut cluster = Cluster::new(1);
    cluster.at(0).settings.max_slot_wal_keep_size = Some(SEGMENT);
    let now = cluster.now;
    cluster.at(0).reload(now).unwrap();
    cluster.at(0).create_slot("s", false, true).unwrap();
    cluster.at(0).create_slot("l", true, true).unwrap();
    forget_wal(&mut cluster);
    forget_wal(&mut cluster);
    let slots = cluster.servers[0].slots().unwrap();
    assert!(slots["s"].lost && slots["l"].lost);
    assert!(cluster.happened(0, &Happening::SlotLost("s".to_owned())));
    assert!(cluster.at(0).advance_slot("s", u64::MAX).is_err());
}

#[test]
fn a_logical_slot_holds_its_xmin_and_moves_forward_only() {
    let mut cluster = Cluster::new(2);
    cluster.at(0).create_slot("l", true, true).unwrap();
    assert_eq!(
        cluster.at(1).create_slot("l", true, true),
        Err(Refusal::InRecovery)
    );
    let before = cluster.servers[0].slots().unwrap()["l"].xmin;
    cluster.commit(0);
    let after = cluster.at(0).advance_slot("l", u64::MAX).unwrap();
    assert!(before < Some(after));
    assert_eq!(cluster.servers[0].slots().unwrap()["l"].xmin, Some(after));
    assert!(cluster.at(0).advance_slot("l", 8).is_err());
}

#[test]
fn a_delayed_replica_has_what_it_does_not_show() {
    let mut cluster = Cluster::new(2);
    cluster.at(1).settings.recovery_min_apply_delay = 60 * SEC;
    let now = cluster.now;
    cluster.at(1).reload(now).unwrap();
    cluster.commit(0);
    assert_eq!(received(&cluster, 1), Some(cluster.position(0)));
    assert_eq!(cluster.servers[1].visible().count(), 0);
    cluster.pass(61 * SEC);
    assert_eq!(cluster.servers[1].visible().count(), 1);
}

/// Seed 3796992: what was about to be replayed was overwritten, and replayed all the same.
#[test]
fn what_has_been_received_is_replayed_before_more_is_asked_for() {
    let mut cluster = Cluster::new(3);
    cluster.cut.push((2, 0));
    cluster.at(1).ills.replay = 30 * SEC;
    let now = cluster.now;
    cluster.at(0).switch_wal(now).unwrap();
    cluster.commit(0);
    let end = cluster.position(0);
    let now = cluster.now;
    cluster.at(0).kill(now);
    cluster.at(2).promote(now).unwrap();
    cluster.settle();
    cluster.follow(1, 2);
    cluster.pass(20 * SEC);
    let replayed = cluster.servers[1].replay_position();
    assert!(replayed < Some(end), "it takes its time");
    cluster.pass(60 * SEC);
    assert_eq!(cluster.servers[1].replay_position(), Some(end));
    assert_eq!(cluster.servers[1].cluster().unwrap().valid_end(), end);
    assert!(!cluster.streams(1), "it went on past the fork");
}

#[test]
fn a_promotion_ends_a_pause_and_replays_all_that_was_received() {
    let mut cluster = Cluster::new(2);
    let now = cluster.now;
    cluster.at(1).pause_replay(now, true).unwrap();
    let (txn, _) = cluster.commit(0);
    assert_eq!(cluster.servers[1].visible().count(), 0);
    cluster.at(1).promote(now).unwrap();
    cluster.settle();
    assert!(cluster.servers[1].writable());
    assert!(cluster.servers[1].visible().any(|seen| seen == txn));
}

#[test]
fn a_promotion_that_is_missed_comes_at_the_next_attempt_to_connect_or_when_the_startup_process_is_woken() {
    for woken in [false, true] {
        let costs = Costs {
            promote_missed: 1,
            ..Costs::NONE
        };
        let mut cluster = Cluster::with(2, costs);
        let now = cluster.now;
        cluster.at(0).kill(now);
        cluster.pass(SEC);
        let now = cluster.now;
        cluster.at(1).promote(now).unwrap();
        cluster.settle();
        assert!(!cluster.servers[1].writable());
        if woken {
            cluster.at(1).wake_startup(now);
            cluster.settle();
            assert!(cluster.servers[1].writable());
        }
        cluster.pass(6 * SEC);
        assert!(cluster.servers[1].writable());
    }
}

#[test]
fn a_placeholder_keeps_a_standby_from_coming_up() {
    let mut cluster = Cluster::new(2);
    let now = cluster.now;
    cluster.at(1).stop(now, StopMode::Fast).unwrap();
    cluster.settle();
    cluster.at(1).cluster_mut().unwrap().histories.reserve(1, 2);
    cluster.start(1);
    cluster.pass(100 * SEC);
    assert_eq!(cluster.servers[1].probe().unwrap_err(), Refusal::StartingUp);
    assert!(!cluster.happened(1, &Happening::Exited(Ended::Failed(""))));
}

#[test]
fn a_torn_record_that_was_streamed_is_replaced_by_what_is_written_after_it() {
    let mut cluster = Cluster::new(2);
    cluster.commit(0);
    // Half of a record reaches disk and standby before the power goes.
    let now = cluster.now;
    cluster.at(0).disk.slow = 10 * SEC;
    cluster.at(0).write(now, 4000).unwrap();
    let half = {
        let log = &mut cluster.at(0).cluster_mut().unwrap().log;
        log.flushed = log.inserted - 2000;
        log.flushed
    };
    cluster.at(0).power_off();
    cluster.at(0).disk.slow = 0;
    let valid = cluster.servers[0].cluster().unwrap().valid_end();
    assert!(valid < half);
    cluster.start(0);
    cluster.pass(100 * SEC);
    cluster.commit(0);
    assert_eq!(cluster.position(0), cluster.position(1));
}

#[test]
fn a_standby_of_one_that_is_promoted_goes_on_with_the_new_timeline_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.follow(2, 1);
    cluster.commit(0);
    let now = cluster.now;
    cluster.at(1).promote(now).unwrap();
    cluster.settle();
    assert!(cluster.streams(2), "without another attempt to connect");
    cluster.commit(1);
    let log = |server: usize| &cluster.servers[server].cluster().unwrap().log;
    assert_eq!(log(1).relation(log(2)), Relation::Equal);
}
